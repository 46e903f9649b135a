//! A rule of `--exclude`, `KIND` or `KIND:NAME`, and the entries of an archive that it names.

use std::collections::HashSet;

use crate::error::{Code, Error, Result};
use crate::format::archive::Item;
use crate::job::restore::RestoreRequest;
use crate::postgres::quoting::qualified;

/// Kinds of entries, as in an archive's table of contents.
pub(super) const KINDS: [&str; 54] = [
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
const NEAREST: usize = 3;

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
    // Those of several roles have one name.
    if item.entry.desc == "DEFAULT ACL" {
        names.push(item.details.owner.clone());
    }
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

/// The entries that the options name.
pub(super) fn named(request: &RestoreRequest, items: &[Item]) -> Result<HashSet<i64>> {
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
