//! What an archive has for extensions' members: grants on them, rows of their configuration, values of their
//! sequences.

use std::collections::HashSet;

use crate::error::Result;
use crate::format::archive::Item;
use crate::job::restore::allowed::schema_of_extension;
use crate::postgres::quoting::unquoted;
use crate::postgres::{MemberKind, Named, Session};

/// The entries for members of extensions that will not exist. An archive has no entries for members, so it does not
/// say which extension they belong to: if other extensions are restored, the server is asked for their members. `None`
/// if they cannot be made in the session's database.
pub(super) async fn orphans(
    items: &[Item],
    left_out: &HashSet<i64>,
    session: &Session,
) -> Result<Option<HashSet<i64>>> {
    let hanging = hanging(items, left_out);
    let brought: Vec<(&str, String)> = items
        .iter()
        .filter(|item| item.entry.desc == "EXTENSION" && !left_out.contains(&item.entry.dump_id))
        .map(|item| (item.entry.tag.as_str(), schema_of_extension(item)))
        .collect();
    let there = if brought.is_empty() {
        vec![false; hanging.len()]
    } else {
        let asked: Vec<Named<'_>> = hanging
            .iter()
            .map(|(item, member)| Named {
                kind: member.kind,
                schema: item.entry.namespace.as_deref().unwrap_or_default(),
                name: &member.name,
            })
            .collect();
        match session.exist_with(&brought, &asked).await? {
            Some(there) => there,
            None if hanging.is_empty() => Vec::new(),
            None => return Ok(None),
        }
    };
    let lacking = hanging.iter().zip(there).filter(|(_, there)| !there);
    Ok(Some(lacking.map(|((item, _), _)| item.entry.dump_id).collect()))
}

/// For extensions that stay as they are in the target: the archive's entries for their members.
pub(super) async fn rows_and_grants(items: &[Item], kept: &HashSet<i64>, session: &Session) -> Result<Vec<i64>> {
    let extensions = items.iter().filter(|item| item.entry.desc == "EXTENSION");
    let extensions = extensions.filter(|item| kept.contains(&item.entry.dump_id));
    let extensions: Vec<String> = extensions.map(|item| item.entry.tag.clone()).collect();
    if extensions.is_empty() {
        return Ok(Vec::new());
    }
    let members = session.extension_members(&extensions).await?;
    let members: HashSet<(MemberKind, &str, &str)> = members
        .iter()
        .map(|one| (one.kind, one.schema.as_str(), one.name.as_str()))
        .collect();
    let theirs = hanging(items, kept).into_iter().filter(|(item, member)| {
        let schema = item.entry.namespace.as_deref().unwrap_or_default();
        let bare = member.name.split('(').next().unwrap_or_default();
        match member.kind {
            "TABLE" | "SEQUENCE" => members.contains(&(MemberKind::Relation, schema, &member.name)),
            "FUNCTION" | "PROCEDURE" => members.contains(&(MemberKind::Function, schema, bare)),
            "TYPE" => members.contains(&(MemberKind::Type, schema, &member.name)),
            "PROCEDURAL LANGUAGE" => members.contains(&(MemberKind::Language, "", &member.name)),
            "FOREIGN DATA WRAPPER" => members.contains(&(MemberKind::Wrapper, "", &member.name)),
            _ => members.contains(&(MemberKind::Server, "", &member.name)),
        }
    });
    Ok(theirs.map(|(item, _)| item.entry.dump_id).collect())
}

/// Entries that may be about members: the archive has nothing that they need.
fn hanging<'a>(items: &'a [Item], left_out: &HashSet<i64>) -> Vec<(&'a Item, Member)> {
    let known: HashSet<i64> = items.iter().map(|item| item.entry.dump_id).collect();
    let hanging = items.iter().filter(|item| {
        !left_out.contains(&item.entry.dump_id) && !item.details.dependencies.iter().any(|id| known.contains(id))
    });
    hanging
        .filter_map(|item| Member::of(item).map(|member| (item, member)))
        .collect()
}

/// An object that may belong to an extension, in the form in which the target is asked for it.
#[derive(Debug, PartialEq, Eq)]
struct Member {
    kind: &'static str,
    name: String,
}

/// Kinds of objects as grants name them, and the kinds under which the target is asked for them.
const GRANTED: [(&str, &str); 8] = [
    ("TABLE ", "TABLE"),
    ("SEQUENCE ", "SEQUENCE"),
    ("FUNCTION ", "FUNCTION"),
    ("PROCEDURE ", "PROCEDURE"),
    ("TYPE ", "TYPE"),
    ("LANGUAGE ", "PROCEDURAL LANGUAGE"),
    ("FOREIGN DATA WRAPPER ", "FOREIGN DATA WRAPPER"),
    ("FOREIGN SERVER ", "SERVER"),
];
/// Schemas in which no object belongs to an extension alone.
const SERVERS_OWN: [&str; 2] = ["pg_catalog", "information_schema"];

/// Languages that every database has.
const LANGUAGES: [&str; 4] = ["LANGUAGE plpgsql", "LANGUAGE sql", "LANGUAGE c", "LANGUAGE internal"];

impl Member {
    fn of(item: &Item) -> Option<Member> {
        let tag = item.entry.tag.as_str();
        let found = |kind, name: &str| {
            Some(Member {
                kind,
                name: name.to_owned(),
            })
        };
        match item.entry.desc.as_str() {
            "TABLE DATA" => found("TABLE", tag),
            "SEQUENCE SET" => found("SEQUENCE", tag),
            "ACL" if SERVERS_OWN.contains(&item.entry.namespace.as_deref().unwrap_or_default()) => None,
            "ACL" if LANGUAGES.contains(&tag) => None,
            "ACL" => {
                if let Some(column) = tag.strip_prefix("COLUMN ") {
                    let (table, _) = column.rsplit_once('.')?;
                    return found("TABLE", &unquoted(table));
                }
                let granted = GRANTED.iter().find(|(word, _)| tag.starts_with(word))?;
                let name = &tag[granted.0.len()..];
                // Arguments follow the name of a function.
                match name.find('(') {
                    Some(at) if name.ends_with(')') => {
                        let (name, arguments) = name.split_at(at);
                        found(granted.1, &format!("{}{arguments}", unquoted(name)))
                    }
                    _ => found(granted.1, &unquoted(name)),
                }
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(desc: &str, tag: &str) -> Item {
        Item::sample(0, desc, tag).in_schema("s")
    }

    #[test]
    fn what_may_hang_on_an_extensions_member_is_asked_for_by_its_name() {
        for (desc, tag, expected) in [
            ("TABLE DATA", "My \"t", Some(("TABLE", "My \"t"))),
            ("SEQUENCE SET", "n", Some(("SEQUENCE", "n"))),
            ("ACL", "TABLE \"My t\"", Some(("TABLE", "My t"))),
            ("ACL", "COLUMN \"My t\".a", Some(("TABLE", "My t"))),
            (
                "ACL",
                "FUNCTION \"F\"(s.x, integer)",
                Some(("FUNCTION", "F(s.x, integer)")),
            ),
            ("ACL", "FOREIGN DATA WRAPPER w", Some(("FOREIGN DATA WRAPPER", "w"))),
            ("ACL", "FOREIGN SERVER v", Some(("SERVER", "v"))),
            ("ACL", "LANGUAGE plperl", Some(("PROCEDURAL LANGUAGE", "plperl"))),
            ("ACL", "LANGUAGE plpgsql", None),
            ("ACL", "SCHEMA public", None),
            ("ACL", "LARGE OBJECT 5", None),
            ("ACL", "DATABASE d", None),
            ("TABLE", "t", None),
        ] {
            let expected = expected.map(|(kind, name)| Member {
                kind,
                name: name.to_owned(),
            });
            assert_eq!(Member::of(&item(desc, tag)), expected, "{tag}");
        }
        let mut own = item("ACL", "FUNCTION pg_stat_reset()");
        own.entry.namespace = Some("pg_catalog".into());
        assert_eq!(Member::of(&own), None);
    }
}
