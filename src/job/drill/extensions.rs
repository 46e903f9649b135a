//! Extensions that have another version here than in the source. Their tables, columns, rows and functions may differ,
//! and everything made with them. Such a difference comes from this machine, not from the backup.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::outline::{Token, name, tokens};
use crate::error::Result;
use crate::format::archive::Item;
use crate::postgres::{Member, MemberKind, Session};
use crate::repository::catalog::Located;
use crate::repository::manifest::role;
use crate::repository::stored_archive::read_file;

/// Why nothing of an extension can be proved here, by the extension's name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Others(BTreeMap<String, String>);

impl Others {
    /// Only for extensions that exist here.
    pub fn between(source: Option<&BTreeMap<String, String>>, here: &BTreeMap<String, String>) -> Others {
        let other = |(name, here): (&String, &String)| {
            let why = match source.map(|source| source.get(name)) {
                Some(Some(there)) if there == here => return None,
                Some(Some(there)) => {
                    format!("the source has version {there} of extension {name}, but this machine has {here}")
                }
                // The source lacks that one.
                Some(None) => return None,
                None => format!("the source's version of extension {name} is not known; this machine has {here}"),
            };
            Some((name.clone(), why))
        };
        Others(here.iter().filter_map(other).collect())
    }

    pub fn why(&self, extension: &str) -> Option<&str> {
        self.0.get(extension).map(String::as_str)
    }

    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Drops the extensions that the backup does not make.
    pub fn of(mut self, made: impl Fn(&str) -> bool) -> Others {
        self.0.retain(|name, _| made(name));
        self
    }

    /// A reason for any object that is missing or exists already: it may belong to such an extension.
    pub fn any(&self) -> Option<String> {
        let whys: Vec<&str> = self.0.values().map(String::as_str).collect();
        (!whys.is_empty()).then(|| whys.join("; "))
    }
}

/// The source's extensions: from the manifest, or else from the file beside it, which older backups have too.
pub(super) async fn of_source(located: &Located) -> Result<Option<BTreeMap<String, String>>> {
    let manifest = &located.manifest;
    if let Some(extensions) = &manifest.extensions {
        let pairs = extensions.iter().map(|one| (one.name.clone(), one.version.clone()));
        return Ok(Some(pairs.collect()));
    }
    let Some(file) = manifest.files.get(role::SYSTEM_INFO) else {
        return Ok(None);
    };
    let bytes = read_file(&*located.store, &manifest.id, file).await?;
    let info: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let pairs = |extensions: &Vec<Value>| {
        let pair = |one: &Value| Some((text(&one["name"])?, text(&one["version"])?));
        extensions.iter().map(pair).collect::<Option<BTreeMap<_, _>>>()
    };
    Ok(info["extensions"].as_array().and_then(pairs))
}

/// Objects that such extensions made in the throwaway server.
#[derive(Debug, Clone, Default)]
pub(super) struct ExtensionMembers {
    whys: HashMap<(MemberKind, String, String), String>,
}

impl ExtensionMembers {
    pub async fn of(session: &Session, others: &Others) -> Result<ExtensionMembers> {
        let names = others.names();
        if names.is_empty() {
            return Ok(ExtensionMembers::default());
        }
        let members = session.extension_members(&names).await?;
        let why = |member: Member| {
            let why = others.why(&member.extension)?.to_owned();
            Some(((member.kind, member.schema, member.name), why))
        };
        Ok(ExtensionMembers {
            whys: members.into_iter().filter_map(why).collect(),
        })
    }

    pub fn relation(&self, schema: &str, name: &str) -> Option<&str> {
        self.find(MemberKind::Relation, schema, name)
    }

    /// The reason, if an entry is such an object or is about one.
    pub fn why(&self, item: &Item) -> Option<&str> {
        let schema = item.entry.namespace.as_deref().unwrap_or_default();
        self.of_tag(&item.entry.desc, schema, &item.entry.tag)
    }

    /// The same, for kind, schema and name in a table of contents or a script's header.
    pub fn of_tag(&self, desc: &str, schema: &str, tag: &str) -> Option<&str> {
        let named = |kind: &str, rest: &str| self.named(kind, schema, rest);
        match desc {
            "ACL" | "COMMENT" | "SECURITY LABEL" => {
                let (kind, rest) = split_kind(tag)?;
                named(kind, rest)
            }
            "DEFAULT" | "CONSTRAINT" | "CHECK CONSTRAINT" | "FK CONSTRAINT" | "TRIGGER" | "RULE" | "POLICY" => {
                // The table's name comes first.
                let mut ends = tag.match_indices(' ').map(|(at, _)| &tag[..at]);
                ends.find_map(|table| self.relation(schema, table))
            }
            _ => named(desc, tag),
        }
    }

    fn named(&self, kind: &str, schema: &str, name: &str) -> Option<&str> {
        match kind {
            "FUNCTION" | "PROCEDURE" | "AGGREGATE" => {
                let function = name.split_once('(').map_or(name, |(function, _)| function);
                self.find(MemberKind::Function, schema, &plain(function))
            }
            "COLUMN" => {
                let mut ends = name.match_indices('.').map(|(at, _)| &name[..at]);
                ends.find_map(|table| self.relation(schema, &plain(table)))
            }
            "SCHEMA" => self.find(MemberKind::Schema, "", &plain(name)),
            "LANGUAGE" | "PROCEDURAL LANGUAGE" => self.find(MemberKind::Language, "", &plain(name)),
            "FOREIGN DATA WRAPPER" => self.find(MemberKind::Wrapper, "", &plain(name)),
            "FOREIGN SERVER" | "SERVER" => self.find(MemberKind::Server, "", &plain(name)),
            "TYPE" | "DOMAIN" => self.find(MemberKind::Type, schema, &plain(name)),
            "TABLE"
            | "TABLE DATA"
            | "ROW SECURITY"
            | "STATISTICS DATA"
            | "SEQUENCE"
            | "SEQUENCE SET"
            | "SEQUENCE OWNED BY"
            | "VIEW"
            | "MATERIALIZED VIEW"
            | "MATERIALIZED VIEW DATA"
            | "FOREIGN TABLE"
            | "INDEX" => self.relation(schema, &plain(name)),
            _ => None,
        }
    }

    fn find(&self, kind: MemberKind, schema: &str, name: &str) -> Option<&str> {
        let key = (kind, schema.to_owned(), name.to_owned());
        self.whys.get(&key).map(String::as_str)
    }
}

/// Some tags have names in quotes if necessary, others never.
fn plain(text: &str) -> String {
    match tokens(text)[..] {
        [(_, only)] if only.starts_with('"') => name(only),
        _ => text.to_owned(),
    }
}

/// The kind and name of the object that a tag is about.
fn split_kind(tag: &str) -> Option<(&str, &str)> {
    const OF_WORDS: [&str; 5] = [
        "FOREIGN DATA WRAPPER",
        "FOREIGN SERVER",
        "FOREIGN TABLE",
        "MATERIALIZED VIEW",
        "PROCEDURAL LANGUAGE",
    ];
    let of_words = OF_WORDS
        .iter()
        .find_map(|kind| tag.strip_prefix(kind).map(|rest| (*kind, rest)));
    let (kind, rest) = of_words.or_else(|| tag.find(' ').map(|at| tag.split_at(at)))?;
    Some((kind, rest.trim_start()))
}

/// Schema and name, as `%I.%I` writes them.
pub(super) fn qualified_name(text: &str) -> Option<(String, String)> {
    let parts: Vec<Token<'_>> = tokens(text);
    match parts[..] {
        [(_, schema), (_, "."), (_, table), ..] => Some((name(schema), name(table))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(name, version): &(&str, &str)| ((*name).to_owned(), (*version).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn another_version_is_told_with_both_and_one_that_is_not_known_may_be_another() {
        let here = versions(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let others = Others::between(Some(&versions(&[("a", "1"), ("b", "1.9"), ("d", "1")])), &here);
        assert_eq!(others.names(), ["b"]);
        assert!(others.why("b").unwrap().contains("1.9") && others.why("b").unwrap().ends_with('2'));
        assert_eq!(Others::between(None, &here).of(|name| name != "c").names(), ["a", "b"]);
        assert_eq!(Others::between(Some(&here), &here).any(), None);
    }

    #[test]
    fn what_is_said_of_an_extensions_things_is_known_by_what_it_is_said_of() {
        let member = |kind, schema: &str, name: &str| ((kind, schema.to_owned(), name.to_owned()), "so".to_owned());
        let members = ExtensionMembers {
            whys: HashMap::from([
                member(MemberKind::Relation, "s", "job s"),
                member(MemberKind::Relation, "s", "plain"),
                member(MemberKind::Function, "s", "f"),
                member(MemberKind::Schema, "", "s"),
                member(MemberKind::Wrapper, "", "w"),
            ]),
        };
        for (desc, tag, is) in [
            ("TABLE DATA", "job s", true),
            ("TABLE DATA", "job", false),
            ("ACL", "TABLE \"job s\"", true),
            ("ACL", "COLUMN plain.a", true),
            ("ACL", "FUNCTION f(a integer)", true),
            ("ACL", "FUNCTION g(a integer)", false),
            ("ACL", "SCHEMA s", true),
            ("COMMENT", "FOREIGN DATA WRAPPER w", true),
            ("TRIGGER", "job s after", true),
            ("TRIGGER", "other after", false),
            ("SEQUENCE SET", "plain", true),
        ] {
            assert_eq!(members.of_tag(desc, "s", tag).is_some(), is, "{desc} {tag}");
        }
    }

    #[test]
    fn names_are_read_as_the_server_writes_them() {
        let pair = |schema: &str, name: &str| Some((schema.to_owned(), name.to_owned()));
        assert_eq!(qualified_name("s.t of x"), pair("s", "t"));
        assert_eq!(qualified_name("\"S s\".\"t\"\"u\""), pair("S s", "t\"u"));
        assert_eq!(qualified_name("7 more"), None);
    }
}
