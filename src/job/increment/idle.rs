//! Whether a round has nothing to store.

use jiff::SignedDuration;

use super::coverage::{Looked, Sighting};
use super::run::Run;
use super::start::Start;
use crate::error::Result;
use crate::format::Lsn;
use crate::job::backup::answered;
use crate::postgres::{LogEnd, PublicationChanges, PublicationKind, TableKind};
use crate::repository::seen_catalog::SeenCatalog;

/// An idle stream is confirmed so often: an increment without transactions shows in the store that nothing happened,
/// and lets the server remove its log.
const IDLE: SignedDuration = SignedDuration::from_hours(1);
/// An idle stream is confirmed earlier if the server has kept so much of its log for it: other databases write it too.
const IDLE_LOG: u64 = 64 << 20;

/// Whether no table was changed as far as the stream and the server's counts tell, no definition either, and the last
/// increment is recent. `goal` is where the stream was read to.
pub(super) async fn is_idle(
    run: &Run<'_>,
    start: &Start,
    (log_end, goal): (&LogEnd, Lsn),
    sighting: &Sighting,
) -> Result<bool> {
    let (Some(seen), Some(_), Some(before)) = (start.seen_to, &start.predecessor, &start.catalog) else {
        return Ok(false);
    };
    if log_end.seen.duration_since(seen) >= IDLE || goal.0.saturating_sub(start.from.0) >= IDLE_LOG {
        return Ok(false);
    }
    if !same_tables(before, &sighting.looked) || !same_publications(before, &sighting.publications) {
        return Ok(false);
    }
    if let Some(objects) = &before.large_objects {
        let now = answered(run.job, run.source.session.large_objects_fingerprint()).await?;
        if now.as_ref() != Some(objects) {
            return Ok(false);
        }
    }
    same_counts(run, before, &sighting.publications).await
}

fn same_tables(before: &SeenCatalog, looked: &Looked) -> bool {
    let files = |oid: u32| looked.catalog.table(oid).map(|table| table.filenode);
    let is_same_file = |oid, filenode| files(oid) == Some(filenode);
    before.is_settled()
        && before.definitions.fingerprint == looked.fingerprint
        && before
            .tables
            .iter()
            .all(|seen| is_same_file(seen.table.oid, seen.table.filenode))
}

fn same_publications(before: &SeenCatalog, publications: &PublicationChanges) -> bool {
    publications.before == publications.after
        && publications.interrupted.is_empty()
        && before.tables.iter().all(|seen| {
            let by = seen.membership.as_ref();
            by.is_none_or(|by| publications.memberships.1.get(&seen.table.oid) == Some(by))
        })
}

/// Whether no row was updated or deleted in the tables of which only inserts arrive.
async fn same_counts(run: &Run<'_>, before: &SeenCatalog, publications: &PublicationChanges) -> Result<bool> {
    let keyless = publications.after.iter();
    let keyless = keyless.filter(|(_, kind)| **kind == PublicationKind::Inserts);
    let keyless: Vec<u32> = keyless.map(|(oid, _)| *oid).collect();
    let counted = answered(run.job, run.source.session.rows_changed(&keyless)).await?;
    Ok(counted.iter().all(|(oid, count)| {
        let seen = before.table(*oid);
        seen.is_some_and(|seen| seen.counted == Some(*count) || seen.table.kind != TableKind::Ordinary)
    }))
}
