//! Decides whether the whole restore is one transaction, and whether the server has room for it.

use super::super::plan::Plan;
use super::super::ready::Target;
use crate::error::{Code, Error, Result};
use crate::format::archive::BlockContent;
use crate::job::restore::RestoreRequest;
use crate::repository::manifest::Manifest;
use crate::repository::stored_archive::StoredArchive;
use crate::units::{count, human_bytes};

/// A definition takes a lock for its object, and some for objects that come with it (toast, row type); its removal
/// takes as many.
const LOCKS_PER_DEFINITION: u64 = 3;

pub(super) const HINT: &str = "raise max_locks_per_transaction on the target, which takes a restart; or restore fewer \
                               tables at once; or restore without one transaction: leave --single-transaction out, and \
                               give --jobs 2 if --clean replaces a whole database";
pub(super) const DISK: &str = "until the commit the old rows and the new ones take space at the same time: free some \
                               on the server; or, if --clean replaces a whole database, give --jobs 2, which removes \
                               the old tables before the rows come";

/// The whole restore is one transaction if the user asked for it, if single tables are replaced, or if one job
/// replaces everything that the backup has. The last two need room on the server; without it they are not one
/// transaction. The first is then an error.
pub(in super::super) fn decide(
    request: &RestoreRequest,
    (plan, stored): (&Plan, &StoredArchive),
    target: &Target,
    manifest: &Manifest,
    jobs: usize,
) -> Result<bool> {
    // These have their own transaction, or must not be one.
    if request.data_only || request.into.is_some() || request.create || request.keep_going {
        return Ok(false);
    }
    let lacking = || lacking_locks(plan, stored, target).or_else(|| lacking_disk(plan, target, manifest, request));
    let removes = !plan.drops.is_empty() || !plan.large_objects.is_empty();
    if request.single_transaction {
        let Some(lacking) = lacking() else { return Ok(true) };
        return Err(lacking.context("--single-transaction"));
    }
    if !request.clean || !removes {
        return Ok(false);
    }
    if request.tables.is_empty() && jobs > 1 {
        return Ok(false);
    }
    let lacking = lacking();
    if let Some(lacking) = &lacking {
        tell(&lacking.message());
    }
    Ok(lacking.is_none())
}

/// Says why a restore that could be one transaction is not.
pub(super) fn tell(why: &str) {
    tracing::info!("the rows are loaded after the removal is committed: {why}");
}

fn definitions(plan: &Plan) -> usize {
    plan.ground.len() + plan.before.len() + plan.after.len() + plan.joins.len() + plan.events.len()
}

/// An upper bound of the locks that the transaction takes.
fn locks(plan: &Plan, stored: &StoredArchive) -> u64 {
    let made = (definitions(plan) as u64).saturating_mul(LOCKS_PER_DEFINITION);
    let removed = if plan.drops.is_empty() { 0 } else { made };
    let objects = plan.blocks().map(|index| match stored.promises[index].content {
        BlockContent::LargeObjects { count } => count,
        BlockContent::Table { .. } => 0,
    });
    let objects: u64 = objects.sum();
    made.saturating_add(removed)
        .saturating_add(objects.max(plan.large_objects.len() as u64))
}

fn lacking_locks(plan: &Plan, stored: &StoredArchive, target: &Target) -> Option<Error> {
    let (needed, room) = (locks(plan, stored), target.found.locks);
    if needed < room {
        return None;
    }
    let what = format!(
        "the transaction may hold up to {}, but the server's lock table has room for {room}",
        count(needed, "lock")
    );
    let times = needed / room.max(1) + 1;
    Some(Error::new(Code::RestoreErr, what).hint(format!(
        "make max_locks_per_transaction {times} times as large on the target, which takes a restart; or leave \
         --single-transaction out; or restore fewer tables at once with --table"
    )))
}

/// If pgstow can see the server's disk, it must have room for as much as the source took, beside the data that is
/// there.
fn lacking_disk(plan: &Plan, target: &Target, manifest: &Manifest, request: &RestoreRequest) -> Option<Error> {
    let needed = manifest.metadata.database_bytes?;
    let free = target.found.free_bytes?;
    if plan.drops.is_empty() || !request.tables.is_empty() || needed <= free {
        return None;
    }
    let what = format!(
        "the target's disk has {} free, and the database took {}: until the commit the old rows and \
         the new ones take room at the same time",
        human_bytes(free),
        human_bytes(needed)
    );
    Some(Error::new(Code::RestoreErr, what).hint(
        "free space on the server, or leave --single-transaction out and give --jobs 2: the old tables are then \
         removed before the rows come",
    ))
}
