//! What a restore leaves out on request: by kind, or by kind and name.

mod keeping;
mod members;
mod ours;

use std::collections::{BTreeMap, HashSet};

use keeping::Keeping;

use super::plan::LeftOut;
use crate::error::{Code, Error, Result};
use crate::format::archive::Item;
use crate::job::restore::RestoreRequest;
use crate::postgres::Session;
use crate::postgres::quoting::qualified;

/// Kinds of entries, as in an archive's table of contents.
const KINDS: [&str; 54] = [
    "ACCESS METHOD",
    "ACL",
    "AGGREGATE",
    "BLOBS",
    "CAST",
    "CHECK CONSTRAINT",
    "COLLATION",
    "COMMENT",
    "CONSTRAINT",
    "CONVERSION",
    "DEFAULT",
    "DEFAULT ACL",
    "DOMAIN",
    "EVENT TRIGGER",
    "EXTENSION",
    "FK CONSTRAINT",
    "FOREIGN DATA WRAPPER",
    "FOREIGN TABLE",
    "FUNCTION",
    "INDEX",
    "INDEX ATTACH",
    "MATERIALIZED VIEW",
    "MATERIALIZED VIEW DATA",
    "OPERATOR",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "POLICY",
    "PROCEDURAL LANGUAGE",
    "PROCEDURE",
    "PUBLICATION",
    "PUBLICATION TABLE",
    "PUBLICATION TABLES IN SCHEMA",
    "ROW SECURITY",
    "RULE",
    "SCHEMA",
    "SECURITY LABEL",
    "SEQUENCE",
    "SEQUENCE OWNED BY",
    "SEQUENCE SET",
    "SERVER",
    "STATISTICS",
    "STATISTICS DATA",
    "SUBSCRIPTION",
    "SUBSCRIPTION TABLE",
    "TABLE",
    "TABLE ATTACH",
    "TABLE DATA",
    "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY",
    "TRANSFORM",
    "TRIGGER",
    "TYPE",
    "USER MAPPING",
    "VIEW",
];
/// Kinds for which the target is asked, and that others can need.
const SOUGHT: [&str; 22] = [
    "AGGREGATE",
    "CAST",
    "COLLATION",
    "DOMAIN",
    "EXTENSION",
    "FOREIGN DATA WRAPPER",
    "FOREIGN TABLE",
    "FUNCTION",
    "MATERIALIZED VIEW",
    "OPERATOR",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "PROCEDURAL LANGUAGE",
    "PROCEDURE",
    "SCHEMA",
    "SEQUENCE",
    "SERVER",
    "TABLE",
    "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY",
    "TYPE",
    "VIEW",
];
const NEAREST: usize = 3;
/// Up to this many are named in the report; of more only the number is given.
const NAMED: usize = 20;

/// `KIND` or `KIND:NAME`, as the user wrote it.
#[derive(Debug, PartialEq, Eq)]
struct Rule<'a> {
    option: &'a str,
    kind: String,
    name: Option<&'a str>,
}

impl<'a> Rule<'a> {
    fn parse(option: &'a str) -> Result<Rule<'a>> {
        let (kind, name) = match option.split_once(':') {
            Some((kind, name)) => (kind, Some(name.trim())),
            None => (option, None),
        };
        let kind = kind.trim().replace(['-', '_'], " ").to_uppercase();
        if name.is_some_and(str::is_empty) {
            return Err(Error::config(format!("--exclude {option:?}: the name is empty"))
                .hint("write KIND, for all of a kind, or KIND:NAME"));
        }
        if !KINDS.contains(&kind.as_str()) {
            let near = nearest(
                &kind.to_lowercase(),
                KINDS.iter().map(|kind| kind.to_lowercase()).collect(),
            );
            let all: Vec<String> = KINDS.iter().map(|kind| kind.to_lowercase().replace(' ', "-")).collect();
            return Err(
                Error::config(format!("--exclude {option:?}: no kind of object has this name")).hint(format!(
                    "write KIND or KIND:NAME; the nearest kinds: {near}; all of them: {}",
                    all.join(", ")
                )),
            );
        }
        Ok(Rule { option, kind, name })
    }

    fn matches(&self, item: &Item) -> bool {
        item.entry.desc == self.kind && self.name.is_none_or(|name| names(item).iter().any(|one| one == name))
    }
}

/// How a user may write an entry's name.
fn names(item: &Item) -> Vec<String> {
    let tag = &item.entry.tag;
    let mut names = vec![tag.clone()];
    // A function also without its arguments.
    let bare = tag.split('(').next().unwrap_or_default();
    names.push(bare.to_owned());
    // The kind is said already.
    names.extend(tag.strip_prefix("USER MAPPING ").map(str::to_owned));
    if let Some(schema) = item.entry.namespace.as_deref().filter(|schema| !schema.is_empty()) {
        names.extend([
            format!("{schema}.{tag}"),
            format!("{schema}.{bare}"),
            qualified(schema, tag),
        ]);
    }
    names
}

fn nearest(wanted: &str, mut names: Vec<String>) -> String {
    names.sort_by_key(|name| strsim::damerau_levenshtein(wanted, name));
    names.dedup();
    names.truncate(NEAREST);
    names.join(", ")
}

/// What is left out, and why: the named entries, and those that need them.
#[derive(Debug, Default)]
pub struct Exclusion {
    pub entries: HashSet<i64>,
    pub left_out: Vec<LeftOut>,
    /// The session's database does not show which entries are about members of extensions that are left out.
    pub has_open_members: bool,
}

/// The entries for members of extensions that are left out, as a session in the restore's own new database shows them.
/// `excluded`: what is left out already.
pub(super) async fn open_members(
    items: &[Item],
    excluded: &HashSet<i64>,
    session: &Session,
) -> Result<(HashSet<i64>, Vec<LeftOut>)> {
    let orphans = members::orphans(items, excluded, session).await?.unwrap_or_default();
    let told = items.iter().filter(|item| orphans.contains(&item.entry.dump_id));
    let told = told.map(|item| LeftOut {
        what: item.entry.to_string(),
        why: NEEDS.into(),
    });
    let told = told.collect();
    Ok((orphans, told))
}

const NEEDS: &str = "it needs an object that is left out";

/// Compares the options with the archive. An entry that needs one that is left out is left out too, unless the target
/// has that object already. With `--clean` the target keeps what is left out, with everything that belongs to it.
///
/// The publications of pgstow's streams are always left out: a database with them, and without their slot, would only
/// make updates fail when a key is dropped.
pub async fn exclusion(request: &RestoreRequest, items: &[Item], session: &Session) -> Result<Exclusion> {
    let mut exclusion = requested(request, items, session).await?;
    ours::leave_out(request, items, &mut exclusion);
    Ok(exclusion)
}

async fn requested(request: &RestoreRequest, items: &[Item], session: &Session) -> Result<Exclusion> {
    let asked = named(request, items)?;
    if asked.is_empty() {
        return Ok(Exclusion::default());
    }
    if request.clean && !request.create && request.into.is_none() {
        return kept(request, items, session, &asked).await;
    }
    let excluded: Vec<&Item> = items
        .iter()
        .filter(|item| asked.contains(&item.entry.dump_id))
        .collect();
    let named: Vec<_> = excluded.iter().map(|item| super::tables::named(item)).collect();
    // A database that does not exist yet contains nothing.
    let there = match request.create {
        true => vec![false; named.len()],
        false => session.exist(&named).await?,
    };
    let kinds = |item: &Item| SOUGHT.contains(&item.entry.desc.as_str());
    let there = excluded.iter().zip(there).filter(|(item, there)| *there && kinds(item));
    let there: HashSet<i64> = there.map(|(item, _)| item.entry.dump_id).collect();
    let leaving = Leaving {
        request,
        items,
        asked: &asked,
        kept: &BTreeMap::new(),
    };
    leaving.with_orphans(&there, session).await
}

async fn kept(request: &RestoreRequest, items: &[Item], session: &Session, asked: &HashSet<i64>) -> Result<Exclusion> {
    let named: Vec<_> = items.iter().map(super::tables::named).collect();
    let exist = items.iter().zip(session.exist(&named).await?);
    let exist: HashSet<i64> = exist
        .filter_map(|(item, is_there)| is_there.then_some(item.entry.dump_id))
        .collect();
    let mut keeping = Keeping::of(items, asked, &exist);
    // With single tables, only these are removed; with rows alone, nothing is removed.
    if request.tables.is_empty() && !request.data_only {
        keeping.need(items, &exist)?;
    }
    for id in members::rows_and_grants(items, &keeping.entries, session).await? {
        keeping.keep(id);
    }
    let there = keeping.standing(items, &exist);
    let leaving = Leaving {
        request,
        items,
        asked,
        kept: &keeping.why,
    };
    leaving.with_orphans(&there, session).await
}

fn named(request: &RestoreRequest, items: &[Item]) -> Result<HashSet<i64>> {
    let mut entries = HashSet::new();
    for option in &request.exclude {
        let rule = Rule::parse(option)?;
        let found: Vec<i64> = items
            .iter()
            .filter(|item| rule.matches(item))
            .map(|item| item.entry.dump_id)
            .collect();
        if let (Some(name), true) = (rule.name, found.is_empty()) {
            let others = items.iter().filter(|item| item.entry.desc == rule.kind);
            let others: Vec<String> = others.filter_map(|item| names(item).into_iter().rev().nth(1)).collect();
            let error = Error::new(
                Code::NotFound,
                format!("--exclude {:?}: the backup has none", rule.option),
            );
            return Err(match others.is_empty() {
                true => error.hint(format!("it has no {} at all", rule.kind.to_lowercase())),
                false => error.hint(format!("the nearest in the backup: {}", nearest(name, others))),
            });
        }
        entries.extend(found);
    }
    for (asked, kind) in [
        (request.no_comments, "COMMENT"),
        (request.no_publications, "PUBLICATION"),
        (request.no_subscriptions, "SUBSCRIPTION"),
    ] {
        let of_kind = items.iter().filter(|item| asked && item.entry.desc == kind);
        entries.extend(of_kind.map(|item| item.entry.dump_id));
    }
    Ok(entries)
}

/// Whether an entry belongs to another one without a dependency in the archive.
fn names_it(item: &Item, other: &Item) -> bool {
    let (tag, name) = (&item.entry.tag, &other.entry.tag);
    match (item.entry.desc.as_str(), other.entry.desc.as_str()) {
        ("PUBLICATION TABLE" | "PUBLICATION TABLES IN SCHEMA", "PUBLICATION") => tag.starts_with(&format!("{name} ")),
        ("USER MAPPING", "SERVER") => tag.ends_with(&format!(" SERVER {name}")),
        _ => false,
    }
}

/// The entries that the user left out, and those that stay with them.
struct Leaving<'a> {
    request: &'a RestoreRequest,
    items: &'a [Item],
    asked: &'a HashSet<i64>,
    /// With the reasons.
    kept: &'a BTreeMap<i64, String>,
}

impl Leaving<'_> {
    /// `there` is what the target has of it.
    async fn with_orphans(&self, there: &HashSet<i64>, session: &Session) -> Result<Exclusion> {
        let left = self.with_dependents(there, &HashSet::new());
        let lacks = |item: &Item| {
            let id = &item.entry.dump_id;
            item.entry.desc == "EXTENSION" && self.asked.contains(id) && !there.contains(id)
        };
        if !self.items.iter().any(lacks) {
            return Ok(left);
        }
        match members::orphans(self.items, &left.entries, session).await? {
            Some(orphans) => Ok(self.with_dependents(there, &orphans)),
            None => Ok(Exclusion {
                has_open_members: true,
                ..left
            }),
        }
    }

    /// `orphans` are left out with the requested entries, although the archive records no dependency for them.
    fn with_dependents(&self, there: &HashSet<i64>, orphans: &HashSet<i64>) -> Exclusion {
        let items = self.items;
        let mut entries: HashSet<i64> = self.asked.union(orphans).copied().collect();
        entries.extend(self.kept.keys());
        loop {
            let before = entries.len();
            for item in items {
                let of_it = matches!(item.entry.desc.as_str(), "COMMENT" | "ACL" | "SECURITY LABEL");
                let needs = |id: &i64| entries.contains(id) && (of_it || !there.contains(id));
                let is_named =
                    matches!(item.entry.desc.as_str(), "USER MAPPING") || item.entry.desc.starts_with("PUBLICATION ");
                let in_name = is_named
                    && items
                        .iter()
                        .any(|other| needs(&other.entry.dump_id) && names_it(item, other));
                if item.details.dependencies.iter().any(needs) || in_name {
                    entries.insert(item.entry.dump_id);
                }
            }
            if entries.len() == before {
                break;
            }
        }
        let left_out = self.told(&entries);
        Exclusion {
            entries,
            left_out,
            has_open_members: false,
        }
    }

    fn why(&self, item: &Item) -> &str {
        let (request, id) = (self.request, &item.entry.dump_id);
        match (self.asked.contains(id), item.entry.desc.as_str()) {
            (true, "COMMENT") if request.no_comments => "--no-comments leaves it out",
            (true, "PUBLICATION") if request.no_publications => "--no-publications leaves it out",
            (true, "SUBSCRIPTION") if request.no_subscriptions => "--no-subscriptions leaves it out",
            (true, _) => "--exclude leaves it out",
            (false, _) => self.kept.get(id).map_or(NEEDS, String::as_str),
        }
    }

    fn told(&self, entries: &HashSet<i64>) -> Vec<LeftOut> {
        let mut left_out: Vec<LeftOut> = Vec::new();
        let left: Vec<&Item> = self
            .items
            .iter()
            .filter(|item| entries.contains(&item.entry.dump_id))
            .collect();
        let mut alike: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for item in &left {
            *alike.entry((&item.entry.desc, self.why(item))).or_default() += 1;
        }
        for item in &left {
            let (kind, why) = (item.entry.desc.as_str(), self.why(item));
            let what = match alike[&(kind, why)] {
                alike if alike > NAMED => format!("{alike} entries of the kind {kind}"),
                _ => item.entry.to_string(),
            };
            if left_out.iter().all(|other| other.what != what) {
                left_out.push(LeftOut { what, why: why.into() });
            }
        }
        left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::archive::{Details, Section, TocEntry};

    pub(super) fn item(id: i64, desc: &str, tag: &str, dependencies: &[i64]) -> Item {
        Item {
            entry: TocEntry {
                dump_id: id,
                desc: desc.into(),
                tag: tag.into(),
                namespace: Some("s".into()),
                ..TocEntry::default()
            },
            section: Section::PreData,
            details: Details {
                dependencies: dependencies.into(),
                ..Details::default()
            },
        }
    }

    fn items() -> [Item; 7] {
        [
            item(1, "EXTENSION", "citext", &[]),
            item(2, "COMMENT", "EXTENSION citext", &[1]),
            item(3, "TABLE", "t", &[1]),
            item(4, "FUNCTION", "f(integer)", &[]),
            item(5, "TRIGGER", "t changed", &[3, 4]),
            item(6, "EVENT TRIGGER", "e", &[4]),
            item(7, "PUBLICATION TABLE", "few t", &[3]),
        ]
    }

    fn asking(options: &[&str]) -> RestoreRequest {
        RestoreRequest {
            exclude: options.iter().map(|&option| option.to_owned()).collect(),
            ..RestoreRequest::default()
        }
    }

    #[test]
    fn entries_are_found_by_kind_and_name_however_they_are_written() {
        for (option, found) in [
            ("event-trigger", vec![6]),
            ("EVENT TRIGGER:e", vec![6]),
            ("function:s.f", vec![4]),
            ("function:f(integer)", vec![4]),
            ("Function:s.f(integer)", vec![4]),
            ("table:\"s\".\"t\"", vec![3]),
            ("trigger:t changed", vec![5]),
            ("publication", vec![]),
        ] {
            let found: HashSet<i64> = found.into_iter().collect();
            assert_eq!(named(&asking(&[option]), &items()).unwrap(), found, "{option}");
        }
        assert_eq!(
            named(&asking(&["function:g"]), &items()).unwrap_err().code(),
            Code::NotFound
        );
        let hint = named(&asking(&["foo"]), &items()).unwrap_err().hint_text().to_owned();
        for kind in KINDS.map(|kind| kind.to_lowercase().replace(' ', "-")) {
            assert!(hint.contains(&kind), "{kind}: {hint}");
        }
        for wrong in ["tabel", "table:", ":t"] {
            assert_eq!(
                named(&asking(&[wrong]), &items()).unwrap_err().code(),
                Code::Config,
                "{wrong}"
            );
        }
    }

    #[test]
    fn what_needs_it_stays_away_unless_the_target_has_it() {
        let (items, request) = (items(), asking(&["extension"]));
        let asked = HashSet::from([1]);
        let none = HashSet::new();
        let left_by = |items: &[Item], asked: &HashSet<i64>, there: &HashSet<i64>, orphans: &HashSet<i64>| {
            let leaving = Leaving {
                request: &request,
                items,
                asked,
                kept: &BTreeMap::new(),
            };
            leaving.with_dependents(there, orphans)
        };
        let left = left_by(&items, &asked, &none, &none);
        assert_eq!(left.entries, HashSet::from([1, 2, 3, 5, 7]));
        assert_eq!(left.left_out.len(), 5);
        let left = left_by(&items, &asked, &HashSet::from([1]), &none);
        assert_eq!(left.entries, HashSet::from([1, 2]));
        let mut items = items.to_vec();
        items.push(item(8, "PUBLICATION", "few", &[]));
        let left = left_by(&items, &HashSet::from([8]), &none, &none);
        assert_eq!(left.entries, HashSet::from([7, 8]));
        items.push(item(9, "ACL", "FUNCTION f(s.citext)", &[99]));
        let left = left_by(&items, &asked, &none, &HashSet::from([9]));
        assert!(left.entries.contains(&9), "{left:?}");
        let told = left
            .left_out
            .iter()
            .find(|one| one.what.contains("f(s.citext)"))
            .unwrap();
        assert_eq!(told.why, "it needs an object that is left out");
    }
}
