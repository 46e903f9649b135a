//! Whether two archives define the same things: every entry of one, but for numbers that differ
//! from server to server, must be in the other.

use std::collections::{BTreeMap, HashSet};

use crate::archive::Item;

/// Kinds that have an owner of their own. Where an extension has made one, no dump holds it.
pub(super) const OWNED: [&str; 27] = [
    "ACCESS METHOD",
    "AGGREGATE",
    "COLLATION",
    "CONVERSION",
    "DOMAIN",
    "EVENT TRIGGER",
    "FOREIGN DATA WRAPPER",
    "FOREIGN TABLE",
    "FUNCTION",
    "MATERIALIZED VIEW",
    "OPERATOR",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "PROCEDURAL LANGUAGE",
    "PROCEDURE",
    "PUBLICATION",
    "SCHEMA",
    "SEQUENCE",
    "SERVER",
    "STATISTICS",
    "SUBSCRIPTION",
    "TABLE",
    "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY",
    "TYPE",
    "VIEW",
    "DEFAULT ACL",
];

/// What identifies an entry: kind, schema, name.
type Key<'a> = (&'a str, &'a str, &'a str);

#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Entries that are the same in both.
    pub equal: usize,
    /// Of them, where sequences stand.
    pub sequences: usize,
    /// What differs, in words, by the entry's name.
    pub differences: Vec<(String, &'static str)>,
}

/// `left` is the backup, without the entries that were left out; `right` what was dumped again. What
/// is said of things that belong to an extension is `superuser`'s in the throwaway server, whoever had it in the source: a
/// backup does not say who made an extension.
pub(super) fn compare(left: &[Item], left_out: &HashSet<i64>, right: &[Item], superuser: &str) -> Comparison {
    let of_extensions: HashSet<Key<'_>> = right
        .iter()
        .filter(|item| item.details.owner == superuser && !OWNED.contains(&item.entry.desc.as_str()))
        .map(key)
        .collect();
    let text = |item: &Item| text(item, !of_extensions.contains(&key(item)));
    let mut entries: BTreeMap<Key<'_>, (Vec<String>, Vec<String>)> = BTreeMap::new();
    for item in left
        .iter()
        .filter(|item| counts(item) && !left_out.contains(&item.entry.dump_id))
    {
        entries.entry(key(item)).or_default().0.push(text(item));
    }
    for item in right.iter().filter(|item| counts(item)) {
        entries.entry(key(item)).or_default().1.push(text(item));
    }
    let mut comparison = Comparison::default();
    for ((kind, schema, name), (mut ours, mut theirs)) in entries {
        ours.sort();
        theirs.sort();
        if ours == theirs {
            comparison.equal += ours.len();
            if kind == "SEQUENCE SET" {
                comparison.sequences += ours.len();
            }
            continue;
        }
        let what = match (ours.len(), theirs.len()) {
            (0, _) => "is there and not in the backup",
            (_, 0) => "is not there",
            _ => "is defined otherwise",
        };
        let name = match schema {
            "" => format!("{kind} {name}"),
            _ => format!("{kind} {schema}.{name}"),
        };
        comparison.differences.push((name, what));
    }
    comparison
}

/// The database's own entries depend on its name and on where it was made; data are compared by
/// their digests, large objects by theirs.
fn counts(item: &Item) -> bool {
    !item.is_of_database()
        && !item.entry.has_data
        && !item.entry.desc.starts_with("BLOB")
        // The drill's server has one tablespace and no publisher to ask.
        && !matches!(item.entry.desc.as_str(), "STATISTICS DATA")
}

fn key(item: &Item) -> Key<'_> {
    (
        &item.entry.desc,
        item.entry.namespace.as_deref().unwrap_or_default(),
        &item.entry.tag,
    )
}

fn text(item: &Item, with_owner: bool) -> String {
    [
        item.details.definition.as_str(),
        &String::from_utf8_lossy(&item.details.copy_statement),
        if with_owner { &item.details.owner } else { "" },
        item.details.access_method.as_deref().unwrap_or_default(),
    ]
    .join("\u{0}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{Details, Entry, Section};

    fn item(desc: &str, owner: &str) -> Item {
        Item {
            entry: Entry {
                desc: desc.into(),
                tag: "x".into(),
                ..Entry::default()
            },
            section: Section::PreData,
            details: Details {
                owner: owner.into(),
                ..Details::default()
            },
        }
    }

    #[test]
    fn only_what_is_said_of_an_extensions_things_may_have_another_owner() {
        let differences = |desc: &str, owner: &str| {
            let (left, right) = ([item(desc, "postgres")], [item(desc, owner)]);
            compare(&left, &HashSet::new(), &right, "pgstow_1").differences.len()
        };
        assert_eq!(differences("ACL", "pgstow_1"), 0);
        assert_eq!(differences("ACL", "another"), 1);
        assert_eq!(differences("TABLE", "pgstow_1"), 1);
        assert_eq!(differences("TABLE", "postgres"), 0);
    }
}
