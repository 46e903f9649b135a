//! Which tables are meant: by their names in the newest increment, and by those that they had when they were changed.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Code, Error, Result};
use crate::format::changes::{Described, Index};
use crate::postgres::TableKind;
use crate::postgres::quoting::{identifier, qualified};
use crate::repository::manifest::{CoverageState, Manifest, TableCoverage};
use crate::repository::seen_catalog::{SeenCatalog, SeenTable};

/// How many names an error offers.
const NEAREST: usize = 3;

pub(super) struct Wanted {
    /// As they were written, and whether a table with that name was seen. Empty: all tables are meant.
    patterns: Vec<(String, bool)>,
    relids: BTreeSet<u32>,
    /// Those of them that are partitioned.
    parents: BTreeSet<u32>,
    /// The names that were seen, for a user who wrote another one. Schema and name.
    seen: BTreeSet<(String, String)>,
}

impl Wanted {
    pub fn new(patterns: &[String]) -> Self {
        Self {
            patterns: patterns.iter().map(|pattern| (pattern.clone(), false)).collect(),
            relids: BTreeSet::new(),
            parents: BTreeSet::new(),
            seen: BTreeSet::new(),
        }
    }

    /// Takes the names in an increment's manifest. Returns warnings about tables whose changes are not recorded.
    pub fn take_manifest(&mut self, manifest: &Manifest) -> Vec<String> {
        let mut warnings = Vec::new();
        let increment = manifest.increment.as_ref();
        for table in increment.into_iter().flat_map(|increment| &increment.coverage) {
            if self.takes(table.oid, &table.schema, &table.name) {
                warnings.extend(unrecorded(table));
            }
        }
        warnings
    }

    /// Whether a name was written that no table with rows has: it may be that of a partitioned table.
    pub fn lacks_tables(&self) -> bool {
        self.patterns.iter().any(|(_, found)| !found) || !self.parents.is_empty()
    }

    /// Takes the names of partitioned tables: all of their partitions are meant. `catalog` is that of an increment.
    pub fn take_catalog(&mut self, catalog: &SeenCatalog) {
        let is_partitioned = |seen: &&SeenTable| seen.table.kind == TableKind::Partitioned;
        for seen in catalog.tables.iter().filter(is_partitioned) {
            if self.takes(seen.table.oid, &seen.table.schema, &seen.table.name) {
                self.parents.insert(seen.table.oid);
            }
        }
        // A partition may be partitioned itself, and may be older than its parent.
        loop {
            let below = catalog.tables.iter().filter(|seen| {
                let parent = seen.table.parent;
                parent.is_some_and(|parent| self.relids.contains(&parent)) && !self.relids.contains(&seen.table.oid)
            });
            let below: Vec<u32> = below.map(|seen| seen.table.oid).collect();
            if below.is_empty() {
                return;
            }
            self.relids.extend(below);
        }
    }

    /// Takes the names in an index. Returns the tables that are meant; `None`: all.
    pub fn take_index(&mut self, index: &Index) -> Option<BTreeSet<u32>> {
        if self.patterns.is_empty() {
            return None;
        }
        for relation in index.described.iter().filter_map(Described::relation) {
            let (schema, name) = relation.names();
            self.takes(relation.oid, &schema, &name);
        }
        Some(self.relids.clone())
    }

    fn takes(&mut self, oid: u32, schema: &str, name: &str) -> bool {
        let mut taken = false;
        for (pattern, found) in &mut self.patterns {
            if means(pattern, schema, name) {
                *found = true;
                taken = true;
            }
        }
        if taken {
            self.relids.insert(oid);
        } else if !self.patterns.is_empty() {
            self.seen.insert((schema.to_owned(), name.to_owned()));
        }
        taken
    }

    /// `NOT_FOUND` if a name was written that no table has.
    pub fn all_known(&self) -> Result<()> {
        match self.patterns.iter().find(|(_, found)| !found) {
            None => Ok(()),
            Some((pattern, _)) => Err(self.unknown(pattern)),
        }
    }

    fn unknown(&self, wanted: &str) -> Error {
        let mut near: BTreeMap<(usize, String), ()> = BTreeMap::new();
        for (schema, name) in &self.seen {
            let whole = format!("{schema}.{name}");
            let distance = strsim::damerau_levenshtein(wanted, &whole).min(strsim::damerau_levenshtein(wanted, name));
            near.insert((distance, whole), ());
            if near.len() > NEAREST {
                near.pop_last();
            }
        }
        let names: Vec<String> = near.into_keys().map(|(_, name)| name).collect();
        let what = format!("the increments that were read have no table {wanted:?}");
        let error = Error::new(Code::NotFound, what);
        match names.is_empty() {
            true => error.hint("they have no tables at all; --since and --until choose others"),
            false => error.hint(format!(
                "name it as SCHEMA.TABLE; the nearest: {}; a table that was dropped or renamed is in the increments of \
                 its time (--since, --until)",
                names.join(", ")
            )),
        }
    }
}

/// Whether the text means the table: plain, or quoted as in SQL, or with `*` for any text.
fn means(pattern: &str, schema: &str, name: &str) -> bool {
    let plain = format!("{schema}.{name}");
    pattern == plain
        || pattern == qualified(schema, name)
        || pattern == format!("{schema}.{}", identifier(name))
        || pattern == format!("{}.{name}", identifier(schema))
        || (pattern.contains('*') && fits(pattern, &plain))
}

/// Whether the text has the pattern's parts in order, with anything between them.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Why changes of a table are not, or not all, in the stream.
fn unrecorded(table: &TableCoverage) -> Option<String> {
    let name = format!("{}.{}", table.schema, table.name);
    let why = table.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    match table.state {
        CoverageState::Exact => None,
        CoverageState::Inserts => Some(format!("of {name} only inserts and truncates are recorded{why}")),
        CoverageState::Baseline => Some(format!(
            "of {name} single updates and deletes are not recorded: each increment reads it whole{why}"
        )),
        CoverageState::FullOnly => Some(format!("changes of {name} are not recorded{why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_meant_plain_quoted_or_by_a_pattern() {
        for pattern in [
            "public.orders",
            "\"public\".\"orders\"",
            "public.\"orders\"",
            "\"public\".orders",
            "public.*",
            "*.orders",
            "pub*.ord*s",
            "*",
            "public.orders*",
        ] {
            assert!(means(pattern, "public", "orders"), "{pattern}");
        }
        for pattern in [
            "orders",
            "public.order",
            "public.ordersx",
            "public.o*x",
            "*.items",
            "",
            "public.orders*s",
        ] {
            assert!(!means(pattern, "public", "orders"), "{pattern}");
        }
        // Of a table's own star.
        assert!(means("public.a*b", "public", "a*b"));
    }
}
