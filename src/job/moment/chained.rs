//! A full backup brought forward to the snapshot of a later one, without a server.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bases::{choose_for, horizon};
use super::composed::{Sources, baselines};
use super::folding::{Until, fold};
use super::proved::{Replays, close_gaps};
use super::replayed::{Replayed, columns};
use crate::error::Result;
use crate::format::Lsn;
use crate::format::fold::Memory;
use crate::repository::catalog::Located;
use crate::repository::manifest::Manifest;
use crate::repository::stored_archive::{Origin, StoredArchive};
use crate::repository::stored_changes::StoredChanges;

/// Reads all changes of the increments that the later backup's snapshot sees.
pub(crate) async fn replay(
    base: &Located,
    increments: &[Manifest],
    later: &Manifest,
    position: Lsn,
    memory: &Arc<Memory>,
) -> Result<Replayed> {
    let store = Arc::clone(&base.store);
    let mut changes = Vec::with_capacity(increments.len());
    for manifest in increments {
        changes.push(StoredChanges::open(&store, manifest).await?);
    }
    let seen = horizon(&later.snapshot);
    let mut choice = choose_for(&base.manifest, increments, position, &seen);
    let full = Arc::new(StoredArchive::open(&*store, &base.manifest).await?);
    let replays = Replays {
        store: &store,
        full: &full,
        increments,
        changes: &changes,
        memory,
    };
    close_gaps(&mut choice, &replays, None).await?;
    let sources = Arc::new(Sources {
        full,
        baselines: baselines(&store, increments, &choice).await?,
    });
    let mut bases = BTreeMap::new();
    for (oid, table) in choice
        .tables
        .iter()
        .filter(|(_, table)| table.follows && table.not_exact.is_none())
    {
        let columns = match sources.block(*oid, table.rows) {
            Some(Origin::Block(archive, index)) => columns(&archive, index)?,
            _ => None,
        };
        bases.insert(*oid, table.base(columns));
    }
    let folded = fold(&changes, bases, &Until::SeenBy(&seen), memory).await?;
    Ok(Replayed::of(&store, choice, &sources, folded))
}
