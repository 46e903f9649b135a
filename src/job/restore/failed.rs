//! What a restore that continues after failures could not make: each with the server's error, and with the failure
//! that caused it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::error::Code;
use crate::format::archive::Item;

/// An object of the backup that is missing or incomplete in the target.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Failed {
    /// The kind in the archive: `TABLE`, `TABLE DATA`, `FK CONSTRAINT`.
    pub kind: String,
    /// With its schema, if it has one.
    pub name: String,
    pub code: Code,
    /// The server's own code, if it could be found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    pub message: String,
    /// For a table: the number of rows that are missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_lost: Option<u64>,
    /// An earlier failure of something that this one needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consequence_of: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loss {
    pub code: Code,
    pub state: Option<String>,
    pub message: String,
    pub rows: Option<u64>,
}

impl Loss {
    /// As pg_restore quotes it. The server's code says what kind of failure it is, once it is known.
    pub fn quoted(message: impl Into<String>) -> Loss {
        Loss {
            code: Code::RestoreErr,
            state: None,
            message: message.into(),
            rows: None,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Losses {
    /// By dump id.
    of: BTreeMap<i64, Loss>,
    /// Objects that exist but could not be given to their owner: the server's messages by dump id.
    owners: BTreeMap<i64, String>,
    /// Messages of pg_restore whose entries are not known, each once.
    stray: BTreeSet<String>,
}

/// The kind and the name of such a message.
const STRAY: (&str, &str) = ("pg_restore", "(it names no entry)");

/// The kind of an owner that was not set.
const OWNER: &str = "OWNER";

/// Kinds that need rows, and not only the table that holds them.
const NEED_ROWS: [&str; 2] = ["FK CONSTRAINT", "MATERIALIZED VIEW DATA"];

impl Losses {
    /// The first failure of an entry is the cause; later ones follow from it.
    pub fn note(&mut self, id: i64, loss: Loss) {
        self.of.entry(id).or_insert(loss);
    }

    pub fn note_owner(&mut self, id: i64, words: &str) {
        self.owners.entry(id).or_insert_with(|| words.to_owned());
    }

    /// A complaint whose entry is not known.
    pub fn note_stray(&mut self, words: String) {
        self.stray.insert(words);
    }

    pub fn has(&self, id: i64) -> bool {
        self.of.contains_key(&id)
    }

    pub fn ids(&self) -> HashSet<i64> {
        self.of.keys().copied().collect()
    }

    /// Failures for which the server's own code is not known.
    pub fn without_state(&mut self) -> impl Iterator<Item = (i64, &mut Loss)> {
        let unknown = self.of.iter_mut().filter(|(_, loss)| loss.state.is_none());
        unknown.map(|(id, loss)| (*id, loss))
    }

    /// In the archive's order, then those that belong to no entry.
    pub fn tell(&self, items: &[Item]) -> Vec<Failed> {
        let by_id: HashMap<i64, &Item> = items.iter().map(|item| (item.entry.dump_id, item)).collect();
        let told = items.iter().filter_map(|item| {
            let loss = self.of.get(&item.entry.dump_id)?;
            let code = match loss.state.as_deref() {
                Some("42501") => Code::Permission,
                _ => loss.code,
            };
            let entry = &item.entry;
            Some(Failed {
                kind: entry.desc.clone(),
                name: entry.name(),
                code,
                sqlstate: loss.state.clone(),
                message: loss.message.clone(),
                rows_lost: loss.rows,
                consequence_of: self.cause(item, &by_id).map(|cause| cause.entry.to_string()),
            })
        });
        // An object that is missing has no owner either.
        let there = items.iter().filter(|item| !self.has(item.entry.dump_id));
        let owners = there.filter_map(|item| {
            let words = self.owners.get(&item.entry.dump_id)?;
            let name = item.entry.to_string();
            Some(Failed {
                kind: OWNER.to_owned(),
                message: format!("the owner of {name} was not set: {words}"),
                name,
                code: Code::RestoreErr,
                sqlstate: None,
                rows_lost: None,
                consequence_of: None,
            })
        });
        let (kind, name) = STRAY;
        let stray = self.stray.iter().map(|words| Failed {
            kind: kind.to_owned(),
            name: name.to_owned(),
            code: Code::RestoreErr,
            sqlstate: None,
            message: words.clone(),
            rows_lost: None,
            consequence_of: None,
        });
        told.chain(owners).chain(stray).collect()
    }

    /// The failed entry among everything that an entry needs.
    fn cause<'a>(&self, item: &Item, by_id: &HashMap<i64, &'a Item>) -> Option<&'a Item> {
        let needed = |item: &Item| -> Vec<&'a Item> {
            let needed = item.details.dependencies.iter();
            needed.filter_map(|id| by_id.get(id).copied()).collect()
        };
        let direct = needed(item);
        let failed = |item: &&&Item| self.has(item.entry.dump_id);
        if let Some(cause) = direct.iter().find(failed) {
            return Some(cause);
        }
        if !NEED_ROWS.contains(&item.entry.desc.as_str()) {
            return None;
        }
        let below = direct.iter().flat_map(|item| needed(item));
        let tables: HashSet<i64> = direct
            .iter()
            .copied()
            .chain(below)
            .map(|item| item.entry.dump_id)
            .collect();
        let mut rows = by_id.values().filter(|rows| {
            rows.entry.desc == "TABLE DATA"
                && self.has(rows.entry.dump_id)
                && rows.details.dependencies.iter().any(|id| tables.contains(id))
        });
        rows.next().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_something_that_failed_is_told_with_it() {
        let item = |id, desc: &str, tag: &str, dependencies: &[i64]| {
            Item::sample(id, desc, tag).in_schema("s").needing(dependencies)
        };
        let items = [
            item(1, "TABLE", "a", &[]),
            item(2, "TABLE", "b", &[]),
            item(3, "VIEW", "v", &[1]),
            item(4, "TABLE DATA", "a", &[1]),
            item(5, "TABLE DATA", "b", &[2]),
            item(6, "CONSTRAINT", "b b_pkey", &[2]),
            item(7, "INDEX", "b_i", &[2]),
            item(8, "FK CONSTRAINT", "c c_b_fkey", &[9, 6]),
            item(9, "TABLE", "c", &[]),
        ];
        let mut losses = Losses::default();
        for id in [1, 3, 4, 5, 7, 8] {
            losses.note(id, Loss::quoted(format!("refused {id}")));
        }
        losses.note(1, Loss::quoted("later"));
        let told = losses.tell(&items);
        let cause = |at: usize| told[at].consequence_of.as_deref();
        assert_eq!(told.len(), 6);
        assert_eq!((told[0].name.as_str(), told[0].message.as_str()), ("s.a", "refused 1"));
        assert_eq!(cause(0), None);
        assert_eq!(cause(1), Some("TABLE s.a"));
        assert_eq!(cause(2), Some("TABLE s.a"));
        assert_eq!(cause(3), None);
        // An index needs no rows.
        assert_eq!(cause(4), None);
        assert_eq!(cause(5), Some("TABLE DATA s.b"));
    }

    #[test]
    fn a_table_that_lacks_its_owner_alone_is_there() {
        let table = Item::sample(1, "TABLE", "one").in_schema("s");
        let mut losses = Losses::default();
        losses.note_owner(1, "ERROR:  permission denied");
        assert!(!losses.has(1) && losses.ids().is_empty());
        let told = losses.tell(&[table]);
        assert_eq!((told[0].kind.as_str(), told[0].name.as_str()), ("OWNER", "TABLE s.one"));
        let expected = "the owner of TABLE s.one was not set: ERROR:  permission denied";
        assert_eq!(told[0].message, expected);
    }

    #[test]
    fn a_complaint_about_no_entry_is_a_failure_too() {
        let mut losses = Losses::default();
        for words in ["and 7 more", "and 7 more", "out of memory"] {
            losses.note_stray(words.to_owned());
        }
        let told = losses.tell(&[]);
        let told: Vec<(&str, &str)> = told
            .iter()
            .map(|one| (one.kind.as_str(), one.message.as_str()))
            .collect();
        assert_eq!(told, [("pg_restore", "and 7 more"), ("pg_restore", "out of memory")]);
        assert_eq!(losses.ids().len(), 0);
    }
}
