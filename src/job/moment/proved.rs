//! Gaps that a replay closes. An increment that reads a table whole may say what leads to these rows: the rows that the
//! table had before, or none. If the changes up to the snapshot of that reading lead to the same rows, nothing happened
//! to the table that the stream does not have, so every moment in the gap is exact.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Choice;
use super::bases::{Rows, horizon};
use super::composed::{Sources, baselines};
use super::folding::{Until, fold};
use super::replayed::{Replayed, columns, stored_sum};
use crate::error::{Code, Result};
use crate::format::Lsn;
use crate::format::fold::{Base, Memory};
use crate::repository::manifest::{Manifest, ReplayProof};
use crate::repository::stored_archive::{Origin, StoredArchive};
use crate::repository::stored_changes::StoredChanges;
use crate::store::Store;

/// What a replay reads.
pub(super) struct Replays<'a> {
    pub store: &'a Arc<dyn Store>,
    pub full: &'a Arc<StoredArchive>,
    pub increments: &'a [Manifest],
    pub changes: &'a [StoredChanges],
    pub memory: &'a Arc<Memory>,
}

/// Tries every gap that a replay may close. `cut`: transactions whose commit begins here or later do not belong to the
/// moment.
pub(super) async fn close_gaps(choice: &mut Choice, replays: &Replays<'_>, cut: Option<Lsn>) -> Result<()> {
    let mut by_increment: BTreeMap<usize, BTreeMap<u32, ReplayProof>> = BTreeMap::new();
    for (oid, table) in &choice.tables {
        if let Some((number, proof)) = table.provable {
            by_increment.entry(number).or_default().insert(*oid, proof);
        }
    }
    for (number, tables) in by_increment {
        let proved = replays.proved(choice, number, &tables).await?;
        let from_nothing = |oid: &u32| tables.get(oid) == Some(&ReplayProof::FromNothing);
        let made: BTreeSet<u32> = proved.iter().copied().filter(from_nothing).collect();
        let there = replays.changed_before(&made, cut).await?;
        for oid in tables.keys() {
            let Some(table) = choice.tables.get_mut(oid) else {
                continue;
            };
            // What happened to its rows after the first one does not arrive.
            let is_unknown = table.appends == Some(true) && there.contains(oid);
            if is_unknown {
                continue;
            }
            if !proved.contains(oid) {
                if let Some(not_exact) = &mut table.not_exact {
                    not_exact
                        .why
                        .push_str("; its changes do not lead to the rows that were read then");
                }
                continue;
            }
            table.closed = table.not_exact.take();
            (table.follows, table.until, table.later) = (true, None, None);
            // A new table is there since its first change at the latest. Before it there is nothing to restore.
            if made.contains(oid) && !there.contains(oid) {
                choice.tables.remove(oid);
            }
        }
    }
    Ok(())
}

impl Replays<'_> {
    /// The tables whose changes lead to the rows of their baselines in the increment of this number.
    async fn proved(
        &self,
        choice: &Choice,
        number: usize,
        tables: &BTreeMap<u32, ReplayProof>,
    ) -> Result<BTreeSet<u32>> {
        let mut of_tables = Choice::default();
        for (oid, proof) in tables {
            let table = choice.tables.get(oid).filter(|table| match proof {
                ReplayProof::FromBase => table.rows != Rows::Nothing,
                ReplayProof::FromNothing => table.rows == Rows::Nothing,
            });
            of_tables.tables.extend(table.map(|table| (*oid, table.clone())));
        }
        let baseline = Arc::new(StoredArchive::open(&**self.store, &self.increments[number]).await?);
        let sources = Arc::new(Sources {
            full: Arc::clone(self.full),
            baselines: baselines(self.store, self.increments, &of_tables).await?,
        });
        let all: BTreeSet<u32> = of_tables.tables.keys().copied().collect();
        let replayed = match self.replay(&of_tables, &sources, number, &all).await {
            // Changes of one of them contradict each other.
            Err(error) if error.code() == Code::Integrity && all.len() > 1 => None,
            Err(error) if error.code() == Code::Integrity => return Ok(BTreeSet::new()),
            replayed => Some(replayed?),
        };
        let mut proved = BTreeSet::new();
        for oid in all {
            let alone;
            let replayed = match &replayed {
                Some(replayed) => replayed,
                None => match self.replay(&of_tables, &sources, number, &BTreeSet::from([oid])).await {
                    Err(error) if error.code() == Code::Integrity => continue,
                    replayed => {
                        alone = replayed?;
                        &alone
                    }
                },
            };
            if self.leads_to(replayed, &baseline, oid).await? {
                proved.insert(oid);
            }
        }
        Ok(proved)
    }

    async fn replay(
        &self,
        choice: &Choice,
        sources: &Arc<Sources>,
        number: usize,
        tables: &BTreeSet<u32>,
    ) -> Result<Replayed> {
        let mut bases = BTreeMap::new();
        for (oid, table) in choice.tables.iter().filter(|(oid, _)| tables.contains(oid)) {
            let columns = match sources.block(*oid, table.rows) {
                Some(Origin::Block(archive, index)) => columns(&archive, index)?,
                _ => None,
            };
            // Up to the baseline, beyond the last position that is known to be exact.
            let base = table.base(columns);
            bases.insert(*oid, Base { until: None, ..base });
        }
        let increment = self.increments[number].increment.as_ref();
        let baselines = increment.map_or(&[][..], |increment| &increment.baselines);
        let snapshot = baselines.iter().find(|one| tables.contains(&one.oid));
        let snapshot = snapshot.map(|one| horizon(&one.snapshot)).unwrap_or_default();
        let changes = &self.changes[..=number];
        let folded = fold(changes, bases, &Until::SeenBy(&snapshot), self.memory).await?;
        Ok(Replayed::of(self.store, choice.clone(), sources, folded))
    }

    async fn leads_to(&self, replayed: &Replayed, baseline: &Arc<StoredArchive>, oid: u32) -> Result<bool> {
        // Of rows that a TRUNCATE has removed, the rows after it prove nothing.
        if replayed.is_broken(oid) || replayed.is_emptied(oid) {
            return Ok(false);
        }
        let is_of_table = |entry: &crate::format::archive::TocEntry| entry.desc == "TABLE DATA" && entry.oid == oid;
        let Some(index) = baseline.head.data.iter().position(is_of_table) else {
            return Ok(false);
        };
        let (rows, sum) = stored_sum(self.store, baseline, index, |_| ()).await?;
        match replayed.sum(oid, |_| ()).await {
            Ok(Some((rows_here, sum_here))) => Ok(rows == rows_here && sum == sum_here),
            Ok(None) => Ok(false),
            // The changes do not fit the rows.
            Err(error) if error.code() == Code::Integrity => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Those of the tables that a transaction of the moment has changed.
    async fn changed_before(&self, tables: &BTreeSet<u32>, cut: Option<Lsn>) -> Result<BTreeSet<u32>> {
        let bases = tables.iter().map(|oid| (*oid, Base::default())).collect();
        Ok(fold(self.changes, bases, &Until::Cut(cut), self.memory)
            .await?
            .described)
    }
}
