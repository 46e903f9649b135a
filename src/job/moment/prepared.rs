//! A moment that is ready to be restored, verified or drilled.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::bases::{Choice, choose};
use super::composed::{Parts, compose};
use super::folding::{self, Until, fold};
use super::proved::{Replays, close_gaps};
use super::report::{MomentReport, NotExact};
use super::sequences::SetBack;
use super::spelling::statement;
use super::unchecked::with_unchecked_keys;
use super::{Stopped, Way};
use crate::error::{Code, Error, Result};
use crate::format::archive::BlockContent;
use crate::format::fold::Memory;
use crate::repository::backup_id::BackupId;
use crate::repository::catalog::Located;
use crate::repository::stored_archive::{Origin, StoredArchive};
use crate::repository::stored_changes::StoredChanges;
use crate::store::Store;

pub(crate) struct Prepared {
    base: BackupId,
    way: Way,
    changes: Vec<StoredChanges>,
    stopped: Stopped,
    choice: Choice,
    definitions_of: BackupId,
    lacking: Vec<NotExact>,
    set_back: Vec<SetBack>,
}

/// Finds where the way stops, and composes the archive of the moment from the full's. Changes are read only of tables in
/// a gap that a replay may close.
pub(crate) async fn prepare(
    base: &Located,
    way: Way,
    full: StoredArchive,
    memory: &Arc<Memory>,
) -> Result<(Prepared, StoredArchive)> {
    let store = Arc::clone(&base.store);
    let changes = open(&store, &way).await?;
    let stopped = Stopped::find(&way, &changes).await?;
    if stopped.place.latest < way.base_end.lsn {
        let what = format!(
            "{}: {} is not after the full backup {}, whose first moment is {}",
            base.manifest.database, way.target, base.manifest.id, way.base_end
        );
        return Err(
            Error::new(Code::NotCovered, what).hint("name a moment after it, or a full backup before the moment")
        );
    }
    let mut choice = choose(&base.manifest, &way.increments, stopped.place);
    let full = Arc::new(full);
    let replays = Replays {
        store: &store,
        full: &full,
        increments: &way.increments,
        changes: &changes,
        memory,
    };
    close_gaps(&mut choice, &replays, stopped.cut).await?;
    let full = Arc::into_inner(full).ok_or_else(|| Error::internal("the full's archive is still being read"))?;
    let parts = Parts {
        store: &store,
        full: &base.manifest,
        increments: &way.increments,
        changes: &changes,
        place: stopped.place,
    };
    let composed = compose(&parts, full, &mut choice).await?;
    let mut archive = composed.archive;
    without_ranges_of_changed(&mut archive, &changes);
    let prepared = Prepared {
        base: base.manifest.id.clone(),
        definitions_of: composed.definitions_of,
        lacking: composed.lacking,
        set_back: composed.set_back,
        way,
        changes,
        stopped,
        choice,
    };
    Ok((prepared, archive))
}

/// The rows of a part cannot be rewritten alone: whether every changed row was met is known at the end.
fn without_ranges_of_changed(archive: &mut StoredArchive, changes: &[StoredChanges]) {
    let frames = changes.iter().flat_map(|changes| &changes.index.frames);
    let changed: HashSet<u32> = frames.flat_map(|frame| &frame.relids).copied().collect();
    for (entry, ranges) in archive.head.data.iter().zip(&mut archive.ranges) {
        if changed.contains(&entry.oid) {
            ranges.clear();
        }
    }
}

async fn open(store: &Arc<dyn Store>, way: &Way) -> Result<Vec<StoredChanges>> {
    let mut opened = Vec::with_capacity(way.increments.len());
    for manifest in &way.increments {
        opened.push(StoredChanges::open(store, manifest).await?);
    }
    Ok(opened)
}

impl Prepared {
    /// What of these blocks, or of the whole database, is not as it was at the moment.
    pub fn not_exact(&self, archive: &StoredArchive, blocks: &[usize], whole: bool) -> Vec<NotExact> {
        let mut found: Vec<NotExact> = if whole { self.lacking.clone() } else { Vec::new() };
        if whole {
            found.extend(self.set_back.iter().map(|one| one.not_exact.clone()));
        }
        for &index in blocks {
            let oid = archive.head.data[index].oid;
            match (&archive.promises[index].content, self.choice.tables.get(&oid)) {
                (BlockContent::Table { .. }, Some(table)) => found.extend(table.not_exact.clone()),
                (BlockContent::Table { .. }, None) => found.push(NotExact {
                    what: archive.name(index),
                    why: "the increments do not say anything of it: its rows are those of the full backup".into(),
                    before: None,
                    after: None,
                }),
                (BlockContent::LargeObjects { .. }, _) => found.extend(self.choice.large_objects.clone()),
            }
        }
        let is_objects = |index: &usize| matches!(archive.promises[*index].content, BlockContent::LargeObjects { .. });
        if whole && !blocks.iter().any(is_objects) {
            found.extend(self.choice.large_objects.clone());
        }
        found.dedup();
        found
    }

    /// These sequences of tables, schema and name, are not where they were. That is no reason to refuse the tables.
    pub fn warnings(&self, sequences: &HashSet<(String, String)>) -> Vec<String> {
        let is_restored = |one: &&SetBack| sequences.contains(&(one.schema.clone(), one.name.clone()));
        let set_back = self.set_back.iter().filter(is_restored);
        set_back.map(|one| one.not_exact.to_string()).collect()
    }

    /// For a restore that may have tables that are not exact: foreign keys need not hold between them and the others. Call
    /// it when the changes have been read, which may show that a table is not exact.
    pub fn without_checks(&self, archive: &mut StoredArchive) -> Result<()> {
        if let Some(head) = with_unchecked_keys(&archive.head, &self.choice)? {
            archive.head = head;
        }
        Ok(())
    }

    /// Reads the changes of the tables of these blocks, and joins them with the archive.
    pub async fn bring_forward(
        &mut self,
        archive: &mut StoredArchive,
        blocks: &[usize],
        memory: &Arc<Memory>,
        report: &mut MomentReport,
    ) -> Result<()> {
        let bases = folding::bases(archive, &self.choice, blocks)?;
        let folded = fold(&self.changes, bases, &Until::Cut(self.stopped.cut), memory).await?;
        for (index, broken) in folding::apply(archive, &folded, blocks)? {
            let not_exact = NotExact {
                what: archive.name(index),
                why: broken.why,
                before: Some(broken.until),
                after: None,
            };
            report.not_exact.push(not_exact.clone());
            if let Some(table) = self.choice.tables.get_mut(&archive.head.data[index].oid) {
                table.not_exact.get_or_insert(not_exact);
            }
        }
        // The rows of a table that was made since have the columns of its last changes.
        let mut statements = HashMap::new();
        for &index in blocks {
            let entry = &archive.head.data[index];
            // Unless they have other names since: then the archive has them.
            let is_renamed = self.choice.tables.get(&entry.oid).is_some_and(|table| table.renamed);
            if let (Some(Origin::Nothing), Some(changed), false) =
                (archive.origins.get(index), folded.tables.get(&entry.oid), is_renamed)
            {
                statements.insert(entry.dump_id, statement(&entry.path(), &changed.columns));
            }
        }
        if !statements.is_empty() {
            archive.head = archive.head.with_copy_statements(&statements)?;
        }
        report.changes = Some(folded.changes);
        report.tables_changed = Some(archive.changes.len());
        Ok(())
    }

    pub fn report(&self, not_exact: Vec<NotExact>) -> MomentReport {
        MomentReport {
            target: self.way.target.to_string(),
            base: self.base.clone(),
            increments: self.way.increments.len(),
            last_increment: self.way.increments.last().map(|manifest| manifest.id.clone()),
            position: self.stopped.place.earliest,
            stops_after: self.stopped.last.as_ref().map(Into::into),
            stops_before: self.stopped.next.as_ref().map(Into::into),
            definitions_of: self.definitions_of.clone(),
            changes: None,
            tables_changed: None,
            not_exact,
        }
    }
}

/// The error for a moment that cannot be had exactly.
pub(crate) fn not_covered(report: &MomentReport, whole: bool) -> Error {
    const NAMED: usize = 5;
    let named: Vec<String> = report.not_exact.iter().take(NAMED).map(ToString::to_string).collect();
    let more = report.not_exact.len().saturating_sub(NAMED);
    let mut what = format!("{} cannot be had exactly: {}", report.target, named.join("; "));
    if more > 0 {
        what = format!("{what}; and {more} more");
    }
    let hint = match whole {
        true => {
            "give --allow-partial to restore it nevertheless: these then have other rows than at the moment; or take a \
                 moment at which they are exact"
        }
        false => {
            "take a moment at which it is exact, with --to-lsn; or give --allow-partial for the rows that there are"
        }
    };
    Error::new(Code::NotCovered, what).hint(hint)
}
