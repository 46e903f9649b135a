//! A restore that is one transaction of one session: removal, definitions, rows, indexes and constraints, and
//! everything that is made again around them. A failure at any point leaves the target as it was.

mod large_objects;
mod room;

use std::collections::{HashSet, VecDeque};

use tokio_postgres::error::SqlState;

use super::Job;
use super::context::{ArchiveRun, RestoreRun};
use super::loading::Loader;
use super::plan::{LeftOut, Plan};
use super::prepared::PreparedArchive;
use super::ready::Target;
use super::rows::{self, execute, refused};
use super::state::Milestone;
use super::{refreshing, renewing, silence};
use crate::error::{Code, Error, Result};
use crate::format::archive::BlockContent;
use crate::job::restore::RestoreRequest;
use crate::postgres::quoting::literal;
use crate::postgres::{Definition, Refusal, Removal, Wire, not_locked};

pub(super) use room::decide;

/// Returns what could not be made again around the new tables, after the commit. Returns `None`, with the target as
/// it was, if the server has no room for one transaction, or if the definitions are not text that this session can
/// send. If the user asked for one transaction, that is an error.
pub(super) async fn run(steps: ArchiveRun<'_>, removal: &Removal<'_>) -> Result<Option<Vec<LeftOut>>> {
    let ArchiveRun { run, archive, loader } = steps;
    let RestoreRun {
        job,
        request,
        target,
        state,
    } = run;
    // Before anything is locked.
    let (Some(first), Some(following)) = (
        renewing::first(archive, target, loader).await?,
        Following::of(archive, target, loader).await?,
    ) else {
        return not_done(request, NO_TEXT);
    };
    job.observer.phase("replacing the definitions");
    let Some(renewed) = renewing::replace(steps, &first, removal).await? else {
        return not_done(request, NO_ROOM);
    };

    let mut wire = renewed.session.into_wire().await?;
    let objects = renewing::made_objects(request, &archive.items, &archive.plan);
    let filled = fill(steps, &mut wire, (&following, &objects)).await;
    if filled.is_err() {
        rows::roll_back(&mut wire).await;
    }
    let left_out = filled?;
    state.set(Milestone::Committing);
    match wire.execute(b"COMMIT").await {
        Err(refusal @ Refusal::Server { .. }) => {
            state.set(Milestone::Together);
            return Err(refused("the restored objects could not be committed", refusal));
        }
        Err(refusal) => return Err(refusal.into_error()),
        Ok(()) => {}
    }
    wire.close().await;
    Ok(Some(left_out))
}

/// Why it is not one transaction, and the hint for a user who asked for one.
type Reason = (&'static str, &'static str);

const NO_TEXT: Reason = (
    "some definitions in the backup are not text of the database's encoding, so one session cannot send them",
    "leave --single-transaction out: pg_restore sends them as they are",
);
const NO_ROOM: Reason = (
    "the server's lock table has no room for the definitions in one transaction",
    room::HINT,
);

fn not_done(request: &RestoreRequest, (why, hint): Reason) -> Result<Option<Vec<LeftOut>>> {
    if request.single_transaction {
        let what = format!("--single-transaction: {why}");
        return Err(Error::new(Code::RestoreErr, what).hint(hint));
    }
    room::tell(why);
    Ok(None)
}

/// What follows the first definitions, as it is sent.
struct Following {
    /// Large objects, empty.
    objects: Vec<Definition>,
    /// Sequence values, indexes, constraints, refreshes, grants.
    after: Vec<Definition>,
    /// Event triggers. Nothing is made after them.
    events: Vec<Definition>,
}

impl Following {
    async fn of(archive: &PreparedArchive, target: &Target, loader: &Loader<'_>) -> Result<Option<Following>> {
        let plan = &archive.plan;
        let (objects, numbers) = loose(archive, plan);
        let objects: &[(&str, &[i64])] = &[("objects-text", &objects)];
        let after: &[(&str, &[i64])] = &[
            ("numbers-text", &numbers),
            ("after-text", &plan.after),
            ("joins-text", &plan.joins),
        ];
        let events: &[(&str, &[i64])] = &[("events-text", &plan.events)];
        let mut parts = Vec::new();
        for lists in [objects, after, events] {
            let Some(part) = renewing::definitions(archive, target, loader, lists).await? else {
                return Ok(None);
            };
            parts.push(part);
        }
        let mut parts = parts.into_iter();
        let mut next = || parts.next().unwrap_or_default();
        Ok(Some(Following {
            objects: next(),
            after: next(),
            events: next(),
        }))
    }
}

/// Entries of the data that are not rows: large objects are made, and sequences are set.
fn loose(archive: &PreparedArchive, plan: &Plan) -> (Vec<i64>, Vec<i64>) {
    let of_blocks: HashSet<i64> = plan
        .blocks()
        .map(|index| archive.stored.head.data[index].dump_id)
        .collect();
    let objects = archive.items.iter().filter(|item| item.entry.desc == "BLOB METADATA");
    let objects: HashSet<i64> = objects.map(|item| item.entry.dump_id).collect();
    let listed = plan.loads.iter().flat_map(|load| load.list.iter().copied());
    listed
        .filter(|id| !of_blocks.contains(id))
        .partition(|id| objects.contains(id))
}

/// Loads the rows and makes what follows them. Returns what could not be made again.
async fn fill(
    steps: ArchiveRun<'_>,
    wire: &mut Wire,
    (following, objects): (&Following, &[u32]),
) -> Result<Vec<LeftOut>> {
    let ArchiveRun { run, archive, loader } = steps;
    let RestoreRun { job, target, .. } = run;
    job.observer.phase("loading the data");
    job.observer.estimate(archive.plan.stored_bytes());
    define(job, target, wire, &following.objects).await?;
    let taken = wire.take_back_of_objects(objects).await;
    taken.map_err(|refusal| {
        refused(
            "what default privileges give of large objects could not be taken back",
            refusal,
        )
    })?;
    let silent = silence::in_transaction(archive, target, wire).await?;
    let encoding = literal(&rows::encoding(&archive.items));
    // A check or a trigger may warn of each row, and nothing reads these warnings.
    execute(
        wire,
        &format!("SET client_encoding = {encoding}; SET client_min_messages = error"),
    )
    .await?;
    load(job, archive, loader, wire, &silent).await?;

    job.observer.phase("making indexes and constraints");
    execute(wire, "SET client_encoding = 'UTF8'").await?;
    define(job, target, wire, &following.after).await?;
    // The archive's settings for its own definitions do not hold for those of the target; and functions may have set
    // a path.
    let own = "SELECT pg_catalog.set_config('search_path', '', false); RESET default_tablespace; \
               RESET default_table_access_method";
    execute(wire, own).await?;
    let left_out = archive.around.tie_within(wire).await?;
    define(job, target, wire, &following.events).await?;
    Ok(left_out)
}

async fn define(job: &Job<'_>, target: &Target, wire: &mut Wire, definitions: &[Definition]) -> Result<()> {
    let wait = job.settings.postgres.lock_wait;
    let mut open: VecDeque<&Definition> = definitions.iter().collect();
    // How many in a row were refused: they wait for others to be made.
    let mut waiting = 0;
    while let Some(definition) = open.pop_front() {
        let Definition { what, statements } = definition;
        let may_wait = refreshing::is_refresh(what);
        if may_wait {
            execute(wire, "SAVEPOINT one").await?;
        }
        let Err(refusal) = wire.execute(statements.as_bytes()).await else {
            if may_wait {
                execute(wire, "RELEASE SAVEPOINT one").await?;
            }
            waiting = 0;
            continue;
        };
        if refusal.is(&SqlState::LOCK_NOT_AVAILABLE) {
            let holders = target.session.in_its_way(&[]).await;
            return Err(not_locked(wait, &format!("what {what} needs"), &holders));
        }
        if !may_wait || waiting >= open.len() || !matches!(refusal, Refusal::Server { .. }) {
            return Err(with_hint(what, refusal));
        }
        execute(wire, "ROLLBACK TO SAVEPOINT one; RELEASE SAVEPOINT one").await?;
        open.push_back(definition);
        waiting += 1;
    }
    Ok(())
}

/// SQLSTATEs of constraints that rows break.
const VIOLATED: &str = "23";
pub(super) const UNSATISFIED: &str = "the rows do not satisfy it: if it refers to rows that the target lacks, restore \
                                      these first, or name their table with --table too; if the backup's own rows \
                                      break it, leave it out with --exclude KIND:NAME";

/// Adds the hint if the server has no room for everything at once, or if rows break a constraint.
fn with_hint(what: &str, refusal: Refusal) -> Error {
    let hint = match &refusal {
        refusal if refusal.is(&SqlState::OUT_OF_MEMORY) => Some(room::HINT),
        refusal if refusal.is(&SqlState::DISK_FULL) => Some(room::DISK),
        Refusal::Server { state, .. } if state.code().starts_with(VIOLATED) => Some(UNSATISFIED),
        _ => None,
    };
    let error = refused(what, refusal);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// `silent`: rows, by dump ids, for which ordinary triggers must not fire.
async fn load(
    job: &Job<'_>,
    archive: &PreparedArchive,
    loader: &Loader<'_>,
    wire: &mut Wire,
    silent: &HashSet<i64>,
) -> Result<()> {
    let backup = archive.backup(loader.store);
    let mut open = VecDeque::from(rows::in_turn(rows::copies(backup)?, backup));
    // How many in a row were refused: they wait for others to be loaded.
    let mut waiting = 0;
    while let Some(copy) = open.pop_front() {
        execute(wire, "SAVEPOINT one").await?;
        let is_silent = silent.contains(&archive.stored.head.data[copy.index].dump_id);
        if is_silent {
            execute(wire, silence::REPLICA).await?;
        }
        match rows::load(job, backup, wire, &copy).await {
            Ok(_) => {
                if is_silent {
                    execute(wire, silence::ORIGIN).await?;
                }
                execute(wire, "RELEASE SAVEPOINT one").await?;
                waiting = 0;
            }
            Err(unloaded) if unloaded.may_wait() && waiting < open.len() => {
                execute(wire, "ROLLBACK TO SAVEPOINT one; RELEASE SAVEPOINT one").await?;
                open.push_back(copy);
                waiting += 1;
            }
            Err(unloaded) if unloaded.state == Some(SqlState::DISK_FULL) => {
                return Err(unloaded.error.hint(room::DISK));
            }
            Err(unloaded) => return Err(unloaded.error),
        }
    }
    for index in archive.plan.blocks() {
        if matches!(
            archive.stored.promises[index].content,
            BlockContent::LargeObjects { .. }
        ) {
            large_objects::load(job, backup, wire, index).await?;
        }
    }
    Ok(())
}
