//! Single tables replaced: removal, definitions, rows, indexes and constraints in one transaction of one session, so
//! that a failure at any point leaves the target as it was.

use std::collections::VecDeque;

use super::Job;
use super::loading::Loader;
use super::plan::Plan;
use super::prepared::Archive;
use super::ready::Target;
use super::renewing;
use super::rows::{self, refused};
use super::state::State;
use crate::archive::BlockContent;
use crate::command::RestoreRequest;
use crate::error::{Code, Error, Result};
use crate::postgres::{Removal, Session};

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

    job.observer.phase("loading the data");
    job.observer.estimate(plan.stored_bytes());
    load(job, archive, loader, &renewed.session).await?;

    job.observer.phase("making indexes and constraints");
    if !renewed.session.define(&following, removal.wait).await? {
        let what = "the server has not the room for the locks of all definitions in one transaction";
        return Err(
            Error::new(Code::RestoreErr, what).hint("raise max_locks_per_transaction, or restore fewer tables at once")
        );
    }
    renewed.commit(state).await?;
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

async fn load(job: &Job<'_>, archive: &Archive, loader: &Loader<'_>, session: &Session) -> Result<()> {
    let backup = archive.backup(loader.store);
    let encoding = rows::encoding(&archive.items);
    let mut filling = session.filling(&encoding);
    let mut open = VecDeque::from(rows::in_turn(rows::copies(backup)?, backup));
    let execute = async |statements: &str| {
        let done = session.say(statements).await;
        done.map_err(|refusal| refused(statements, refusal))
    };
    // How many have been refused one after the other: they wait for what the others bring.
    let mut waiting = 0;
    while let Some(copy) = open.pop_front() {
        execute("SAVEPOINT one").await?;
        match rows::load(job, backup, &mut filling, &copy).await {
            Ok(_) => {
                execute("RELEASE SAVEPOINT one").await?;
                waiting = 0;
            }
            Err(unloaded) if unloaded.may_wait() && waiting < open.len() => {
                execute("ROLLBACK TO SAVEPOINT one; RELEASE SAVEPOINT one").await?;
                open.push_back(copy);
                waiting += 1;
            }
            Err(unloaded) => return Err(unloaded.error),
        }
    }
    Ok(())
}
