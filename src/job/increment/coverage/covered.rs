//! What the decisions and the baselines of an increment make of each table: pure functions.

use std::collections::{BTreeMap, BTreeSet};

use super::{Looked, Settled, StoredBaselines, UNDEFINED};
use crate::error::{Code, Error};
use crate::format::Lsn;
use crate::format::fold::Horizon;
use crate::format::script::Sum;
use crate::job::increment::difference::{Action, Decision, Reading, SMALL, is_altered, is_changed, is_named_as};
use crate::job::increment::facts::StreamFacts;
use crate::postgres::{CatalogTable, Memberships, PublicationKind, TableCatalog, TableKind};
use crate::repository::manifest::{Baseline, ColumnRecord, CoverageState, SnapshotRecord, TableCoverage, TableRecord};
use crate::repository::seen_catalog::{SeenCatalog, SeenDefinitions, SeenRows, SeenTable};
use crate::repository::stored_archive::is_named;

pub(super) fn unflushed() -> Error {
    Error::new(
        Code::Stalled,
        "the server has not flushed its log up to the position at which the catalog was read",
    )
    .hint("look whether its disk is full or slow")
}

/// Tables that changed after the catalog was read. A TRUNCATE that the stream has not shown yet looks like a rewrite.
pub(super) fn late(looked: &Looked, again: &TableCatalog, facts: &StreamFacts) -> BTreeSet<u32> {
    let since = looked.since.unwrap_or(looked.at);
    let changed = looked
        .catalog
        .tables
        .iter()
        .filter(|table| match again.table(table.oid) {
            Some(now) => {
                let facts = facts.table(table.oid);
                let is_truncated = facts.is_some_and(|facts| facts.is_truncated(since, table, now));
                is_changed(table, now, is_truncated || has_values_as_before(table, now))
            }
            None => true,
        });
    changed.map(|table| table.oid).collect()
}

/// Whether rows have the same values in another file, unless the stream has their change: TRUNCATE and VACUUM FULL leave
/// columns as they are. A partition may have been UNLOGGED in between.
fn has_values_as_before(before: &CatalogTable, now: &CatalogTable) -> bool {
    now.parent.is_none() && now.traces.columns_changed_by.is_some() && !is_altered(before, now)
}

/// Tables whose changes may not have been published for a while since the catalog was read: a partition was detached, and
/// perhaps attached again, or somebody changed a publication.
pub(super) fn unpublished(settled: &Settled, now: &Memberships) -> BTreeSet<u32> {
    let published = settled.publications.memberships.1.iter();
    let changed = published.filter(|(oid, by)| now.get(oid) != Some(by));
    changed.map(|(oid, _)| *oid).collect()
}

/// One entry for each table that has rows, or had, in the order of the OIDs. The increment is `from` … `to`. `defined`:
/// from where on the changed definitions are known, if any changed.
pub(super) fn tables(
    ((from, to), defined): ((Lsn, Lsn), Option<Lsn>),
    settled: &Settled,
    late: &BTreeSet<u32>,
    again: &TableCatalog,
) -> Vec<TableCoverage> {
    // Up to here it is surely as the catalog has it.
    let since = settled.looked.since.map_or(from, |since| since.max(from));
    // Its rows can be read all the same.
    let is_renamed = |oid: u32| {
        let names = settled.looked.catalog.table(oid).zip(again.table(oid));
        names.is_some_and(|(before, now)| !is_named_as(before, now))
    };
    let of_decision = |decision: &Decision| {
        let covering = Covering { from, defined, settled };
        let mut covered = covering.named(decision, covering.of(decision));
        let is_open = covered.state != CoverageState::FullOnly
            && (late.contains(&covered.oid) || is_renamed(covered.oid))
            && !settled.postponed.contains_key(&covered.oid);
        if is_open && since < to {
            // Nothing is lost yet: the next increment finds out what happened, and reads the table if it has to.
            covered.to = Some(covered.to.map_or(since, |before| before.min(since)));
            // Its new definition may be needed for it.
            covered.from = Some(defined.unwrap_or_default().max(Lsn(to.0 + 1)));
            covered.why = Some("its definition changed before the increment's end; the next one finds out how".into());
        }
        covered
    };
    let mut tables: Vec<TableCoverage> = settled.decisions.iter().map(of_decision).collect();
    let known: BTreeSet<u32> = tables.iter().map(|table| table.oid).collect();
    let new = again
        .saved()
        .filter(|table| table.kind == TableKind::Ordinary && !known.contains(&table.oid));
    tables.extend(new.map(|table| TableCoverage {
        schema: table.schema.clone(),
        name: table.name.clone(),
        oid: table.oid,
        state: CoverageState::Exact,
        from: None,
        // It was not there when the catalog was read.
        to: Some(since),
        renamed: false,
        why: Some("it was made while the increment was made; the next one reads it whole".into()),
        is_gone: false,
    }));
    tables.sort_by_key(|table| table.oid);
    tables
}

struct Covering<'a> {
    /// Where the increment begins.
    from: Lsn,
    /// From where on the changed definitions are known, if any changed.
    defined: Option<Lsn>,
    settled: &'a Settled,
}

impl Covering<'_> {
    fn of(&self, decision: &Decision) -> TableCoverage {
        let settled = self.settled;
        let published = settled.publications.after.get(&decision.oid);
        let by_publication = match published {
            Some(PublicationKind::All) => CoverageState::Exact,
            Some(PublicationKind::Inserts) => CoverageState::Inserts,
            None => CoverageState::FullOnly,
        };
        let postponed = settled.postponed.get(&decision.oid);
        let (state, to, from, why) = match &decision.action {
            Action::Keep => (by_publication, None, None, None),
            Action::CountInserts { why } => (CoverageState::Inserts, None, None, Some(why.clone())),
            Action::Define { last_exact, why } => (
                by_publication,
                Some(*last_exact),
                self.defined.max(Some(settled.looked.at)),
                Some(why.clone()),
            ),
            Action::Leave { last_exact, why } => (CoverageState::FullOnly, *last_exact, None, Some(why.clone())),
            Action::Begin => {
                let why = "nothing is recorded about it before this increment, the first of its stream";
                (by_publication, Some(self.from), None, Some(why.into()))
            }
            Action::End { last_exact, why } => {
                let was_covered = last_exact.is_some();
                let state = if was_covered {
                    CoverageState::Exact
                } else {
                    CoverageState::FullOnly
                };
                return TableCoverage {
                    is_gone: true,
                    ..entry(decision, state, *last_exact, Some(settled.looked.at), Some(why.clone()))
                };
            }
            Action::Probe => return self.probed(decision, postponed),
            Action::Read(reading) => return self.read(decision, reading, postponed),
        };
        entry(decision, state, to, from, why)
    }

    /// If names changed: the definitions before have the earlier names, and those that are known now have the new ones.
    fn named(&self, decision: &Decision, covered: TableCoverage) -> TableCoverage {
        let Some(last) = decision.renamed.filter(|_| !covered.is_gone) else {
            return covered;
        };
        let mut covered = TableCoverage {
            renamed: true,
            ..covered
        };
        if covered.state == CoverageState::FullOnly {
            return covered;
        }
        let at = self.settled.looked.at;
        let known = self.defined.map_or(at, |defined| defined.max(at));
        (covered.to, covered.from) = match (covered.to, covered.from) {
            (None, None) => (Some(last), Some(known)),
            (to, from) => (to.map(|to| to.min(last)), from.map(|from| from.max(known))),
        };
        let why = "its name or the name of a column changed; the stream does not say when";
        covered.why = Some(match covered.why {
            Some(earlier) => format!("{earlier}; {why}"),
            None => why.to_owned(),
        });
        covered
    }

    /// A small table whose updates do not arrive.
    fn probed(&self, decision: &Decision, postponed: Option<&String>) -> TableCoverage {
        let keeps = self
            .settled
            .probed
            .get(&decision.oid)
            .is_some_and(|probed| probed.keeps_earlier);
        let updates = "its updates do not arrive";
        match (keeps, postponed) {
            (true, None) => {
                let why = format!("{updates}; the stream has all by which its rows differ from before");
                entry(decision, CoverageState::Inserts, None, None, Some(why))
            }
            (_, Some(why)) => {
                let why = format!("{updates}, and {why}");
                entry(decision, CoverageState::Baseline, Some(self.from), None, Some(why))
            }
            (false, None) => {
                let why = format!("{updates}; the increment has it whole");
                let to = Some(self.from);
                entry(decision, CoverageState::Baseline, to, self.settled.at, Some(why))
            }
        }
    }

    fn read(&self, decision: &Decision, reading: &Reading, postponed: Option<&String>) -> TableCoverage {
        let is_keyless = self.settled.publications.after.get(&decision.oid) == Some(&PublicationKind::Inserts);
        let state = match is_keyless {
            true if decision.bytes <= SMALL => CoverageState::Baseline,
            true => CoverageState::Inserts,
            false => CoverageState::Exact,
        };
        if let Some(why) = postponed {
            let to = reading.last_exact.unwrap_or(self.from);
            let why = format!("{}, and {why}", reading.why);
            return entry(decision, state, Some(to), None, Some(why));
        }
        // The rows before the baseline have the older definitions, and those in it the new ones.
        let to = reading.last_exact.into_iter().chain(self.defined).min();
        let from = self
            .settled
            .at
            .map(|at| self.defined.map_or(at, |defined| defined.max(at)));
        match (to, from) {
            (Some(to), Some(from)) => entry(decision, state, Some(to), Some(from), Some(reading.why.clone())),
            _ => entry(
                decision,
                state,
                None,
                None,
                Some(reading.why.clone()).filter(|_| is_keyless),
            ),
        }
    }
}

fn entry(
    decision: &Decision,
    state: CoverageState,
    to: Option<Lsn>,
    from: Option<Lsn>,
    why: Option<String>,
) -> TableCoverage {
    TableCoverage {
        schema: decision.schema.clone(),
        name: decision.name.clone(),
        oid: decision.oid,
        state,
        from,
        to,
        why,
        is_gone: false,
        renamed: false,
    }
}

/// The baselines that a restore may use. The archive may have more: tables that changed while they were read.
pub(super) fn baselines(settled: &Settled) -> Vec<Baseline> {
    let Some(stored) = &settled.baselines else {
        return Vec::new();
    };
    let in_archive: BTreeSet<u32> = stored.tables.iter().filter_map(|table| table.oid).collect();
    let usable =
        |decision: &&Decision| in_archive.contains(&decision.oid) && !settled.postponed.contains_key(&decision.oid);
    let baseline = |decision: &Decision| {
        let (proof, why) = match &decision.action {
            Action::Read(reading) => (reading.proof, reading.why.clone()),
            _ => (None, "its updates do not arrive, and its rows changed".into()),
        };
        Baseline {
            oid: decision.oid,
            schema: decision.schema.clone(),
            name: decision.name.clone(),
            snapshot: SnapshotRecord::from(&stored.snapshot),
            proof,
            why,
        }
    };
    settled.decisions.iter().filter(usable).map(baseline).collect()
}

/// Records the columns of the tables in the archive, and their names as the catalog has them: the archive has them in
/// the database's encoding. A table that was renamed after the catalog was read keeps the name that the archive has.
pub(super) fn describe(tables: &mut [TableRecord], catalog: &TableCatalog, encoding: &str) {
    let utf8 = encoding == "UTF8";
    for record in tables {
        let Some(table) = record.oid.and_then(|oid| catalog.table(oid)) else {
            continue;
        };
        if is_named(&table.schema, &record.schema, utf8) {
            record.schema.clone_from(&table.schema);
        }
        if is_named(&table.name, &record.name, utf8) {
            record.name.clone_from(&table.name);
        }
        record.columns = table
            .columns
            .iter()
            .map(|column| ColumnRecord {
                name: column.name.clone(),
                type_name: column.type_name.clone(),
                is_generated: column.generated.is_some(),
            })
            .collect();
    }
}

/// What the next increment compares with. `defined` are the tables as the definitions describe them that this increment
/// stored. `is_undefined`: it could not store those that changed, so a moment of the next increment may lack them. That
/// one reads the tables that they concern.
pub(super) fn seen(
    settled: &Settled,
    (definitions, defined): (SeenDefinitions, Option<&TableCatalog>),
    is_undefined: bool,
    facts: &StreamFacts,
) -> SeenCatalog {
    // What the changes have and the text has not.
    let ahead = |oid: u32, view: &Horizon| facts.inserted(oid, |xid| !view.sees(xid));
    let read: BTreeMap<u32, SeenRows> = settled
        .baselines
        .iter()
        .flat_map(|stored| rows(stored, &ahead))
        .collect();
    let looked = &settled.looked;
    let is_other = |decision: &&Decision| {
        is_undefined && (decision.renamed.is_some() || matches!(decision.action, Action::Define { .. }))
    };
    let others: BTreeSet<u32> = settled.decisions.iter().filter(is_other).map(|one| one.oid).collect();
    let undefined = |oid: u32| others.contains(&oid).then(|| UNDEFINED.to_owned());
    let tables = looked.catalog.saved().map(|table| {
        let probed = settled.probed.get(&table.oid).zip(settled.probed_in.as_ref());
        let probed = probed.map(|(probed, view)| SeenRows {
            ahead: ahead(table.oid, view),
            ..probed.rows.clone()
        });
        SeenTable {
            published: settled.publications.after.get(&table.oid).copied(),
            membership: settled.publications.memberships.1.get(&table.oid).cloned(),
            defined: defined.and_then(|defined| anew(table, defined.table(table.oid)?)),
            lacking: settled
                .postponed
                .get(&table.oid)
                .cloned()
                .or_else(|| undefined(table.oid)),
            proof: settled
                .postponed
                .contains_key(&table.oid)
                .then(|| settled.proof_of(table.oid))
                .flatten(),
            rows: read.get(&table.oid).cloned().or(probed),
            counted: settled.counted.get(&table.oid).copied(),
            table: table.clone(),
        }
    });
    SeenCatalog::new(looked.catalog.major, looked.at, definitions, tables.collect())
        .with_large_objects(settled.large_objects.fingerprint.clone())
}

/// The table as these definitions have it, if rows are others there.
fn anew(seen: &CatalogTable, defined: &CatalogTable) -> Option<Box<CatalogTable>> {
    let is_same = seen.columns == defined.columns && defined.has_values_of(seen);
    (!is_same).then(|| Box::new(defined.clone()))
}

fn rows(
    stored: &StoredBaselines,
    ahead: impl Fn(u32, &Horizon) -> Option<Sum>,
) -> impl Iterator<Item = (u32, SeenRows)> {
    let view = &stored.snapshot;
    let view = Horizon::new(view.xmin, view.xmax, view.xip.clone());
    stored.tables.iter().filter_map(move |table| {
        let oid = table.oid?;
        let rows = SeenRows {
            bytes: table.bytes,
            sha256: table.sha256.clone(),
            ahead: ahead(oid, &view),
        };
        Some((oid, rows))
    })
}

#[cfg(test)]
mod tests;
