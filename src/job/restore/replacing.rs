//! Single tables replaced: removal, definitions, rows, indexes and constraints in one transaction of one session, so
//! that a failure at any point leaves the target as it was.

use std::collections::VecDeque;

use tokio_postgres::error::SqlState;

use super::Job;
use super::loading::Loader;
use super::plan::Plan;
use super::prepared::Archive;
use super::ready::Target;
use super::renewing;
use super::rows::{self, execute, refused};
use super::state::{Stage, State};
use crate::error::Result;
use crate::format::archive::BlockContent;
use crate::job::restore::RestoreRequest;
use crate::postgres::quoting::literal;
use crate::postgres::{Definition, Refusal, Removal, Wire, not_locked};

/// Whether a restore replaces tables so. A whole database would hold every lock for as long as its rows take.
pub(super) fn fits(request: &RestoreRequest, archive: &Archive, target: &Target) -> bool {
    let plan = &archive.plan;
    let is_of_tables = !request.tables.is_empty() && request.clean && !request.create && !request.keep_going;
    let has_rows_alone = plan
        .blocks()
        .all(|index| matches!(archive.stored.promises[index].content, BlockContent::Table { .. }));
    let definitions = plan.ground.len() + plan.before.len() + plan.after.len() + plan.joins.len();
    is_of_tables && has_rows_alone && target.has_locks_for(definitions)
}

/// Says whether it is done. It is not where the server has not the room for it in one transaction, or where the
/// definitions are not text that can be sent: then all is as it was.
pub(super) async fn run(
    job: &Job<'_>,
    request: &RestoreRequest,
    archive: &Archive,
    target: &Target,
    loader: &Loader<'_>,
    removal: &Removal<'_>,
    state: &State,
) -> Result<bool> {
    let plan = &archive.plan;
    let numbers = numbers(archive, plan);
    // Before anything is locked.
    let lists: [(&str, &[i64]); 3] = [
        ("numbers-text", &numbers),
        ("after-text", &plan.after),
        ("joins-text", &plan.joins),
    ];
    let Some(following) = renewing::definitions(archive, target, loader, &lists).await? else {
        return Ok(false);
    };
    job.observer.phase("replacing the definitions");
    let Some(renewed) = renewing::replace(job, request, archive, target, loader, removal).await? else {
        return Ok(false);
    };

    let mut wire = renewed.session.into_wire().await?;
    let filled = fill(job, archive, target, loader, &mut wire, &following).await;
    if filled.is_err() {
        rows::roll_back(&mut wire).await;
    }
    filled?;
    state.set(Stage::Committing);
    match wire.execute(b"COMMIT").await {
        Err(refusal @ Refusal::Server { .. }) => {
            state.set(Stage::Cleaning);
            return Err(refused("the new tables could not be committed", refusal));
        }
        Err(refusal) => return Err(refusal.into_error()),
        Ok(()) => {}
    }
    wire.close().await;
    Ok(true)
}

/// Where sequences stand: what is loaded and is no rows.
fn numbers(archive: &Archive, plan: &Plan) -> Vec<i64> {
    let of_blocks: Vec<i64> = plan
        .blocks()
        .map(|index| archive.stored.head.data[index].dump_id)
        .collect();
    let listed = plan.loads.iter().flat_map(|load| load.list.iter().copied());
    listed.filter(|id| !of_blocks.contains(id)).collect()
}

/// The rows, and what follows them.
async fn fill(
    job: &Job<'_>,
    archive: &Archive,
    target: &Target,
    loader: &Loader<'_>,
    wire: &mut Wire,
    following: &[Definition],
) -> Result<()> {
    job.observer.phase("loading the data");
    job.observer.estimate(archive.plan.stored_bytes());
    let encoding = literal(&rows::encoding(&archive.items));
    execute(wire, &format!("SET client_encoding = {encoding}")).await?;
    load(job, archive, loader, wire).await?;

    job.observer.phase("making indexes and constraints");
    execute(wire, "SET client_encoding = 'UTF8'").await?;
    let wait = job.settings.postgres.lock_wait;
    for Definition { what, statements } in following {
        let Err(refusal) = wire.execute(statements.as_bytes()).await else {
            continue;
        };
        if refusal.is(&SqlState::LOCK_NOT_AVAILABLE) {
            let holders = target.session.in_its_way(&[]).await;
            return Err(not_locked(wait, &format!("what {what} needs"), &holders));
        }
        let is_of_locks = refusal.is(&SqlState::OUT_OF_MEMORY);
        let error = refused(what, refusal);
        return Err(match is_of_locks {
            true => error.hint("raise max_locks_per_transaction, or restore fewer tables at once"),
            false => error,
        });
    }
    Ok(())
}

async fn load(job: &Job<'_>, archive: &Archive, loader: &Loader<'_>, wire: &mut Wire) -> Result<()> {
    let backup = archive.backup(loader.store);
    let mut open = VecDeque::from(rows::in_turn(rows::copies(backup)?, backup));
    // How many have been refused one after the other: they wait for what the others bring.
    let mut waiting = 0;
    while let Some(copy) = open.pop_front() {
        execute(wire, "SAVEPOINT one").await?;
        match rows::load(job, backup, wire, &copy).await {
            Ok(_) => {
                execute(wire, "RELEASE SAVEPOINT one").await?;
                waiting = 0;
            }
            Err(unloaded) if unloaded.may_wait() && waiting < open.len() => {
                execute(wire, "ROLLBACK TO SAVEPOINT one; RELEASE SAVEPOINT one").await?;
                open.push_back(copy);
                waiting += 1;
            }
            Err(unloaded) => return Err(unloaded.error),
        }
    }
    Ok(())
}
