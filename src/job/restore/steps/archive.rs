//! The steps of an archive's restore, in order: remove, make, load.

use std::sync::{Mutex, PoisonError};

use super::while_it_answers;
use crate::error::Result;
use crate::job::restore::context::{ArchiveRun, RestoreRun};
use crate::job::restore::failed::Losses;
use crate::job::restore::past::Past;
use crate::job::restore::plan::LeftOut;
use crate::job::restore::prepared::PreparedArchive;
use crate::job::restore::ready::Target;
use crate::job::restore::state::{self, Milestone, State};
use crate::job::restore::{Job, Loader, RestoreRequest, making, refreshing, renewing, replacing, silence, waiting};
use crate::postgres::{Removal, Session};

/// Makes the definitions in the new database while the old one still exists. If the server refuses a definition, the
/// old database stays. Returns whether they were made.
pub(super) async fn define_apart(steps: ArchiveRun<'_>, beside: &str) -> Result<bool> {
    let ArchiveRun { run, archive, loader } = steps;
    let RestoreRun {
        job,
        request,
        target,
        state,
    } = run;
    // With `--keep-going` a refused definition does not stop the restore, so this is not tried.
    if request.keep_going {
        return Ok(false);
    }
    let Some(apart) = making::apart(loader.info, beside, &job.settings.postgres).await else {
        return Ok(false);
    };
    job.observer.phase(DEFINING);
    let loader = Loader {
        info: &apart,
        ..*loader
    };
    let defined = define(archive, target, &loader).await;
    let Err(error) = defined else { return Ok(true) };
    job.stop.in_time(making::discard(target, beside, state)).await;
    Err(making::explained(error, target))
}

/// In one transaction, if the server has room for its locks.
async fn define(archive: &PreparedArchive, target: &Target, loader: &Loader<'_>) -> Result<()> {
    let plan = &archive.plan;
    if !plan.ground.is_empty() {
        loader.finish("ground", &plan.ground, 1).await?;
    }
    loader.definitions(&plan.before, is_atomic(archive, target)).await
}

fn is_atomic(archive: &PreparedArchive, target: &Target) -> bool {
    !archive.pg_restore.tolerates_transaction_timeout && target.fits_one_transaction(&archive.plan)
}

/// What the steps have to report.
#[derive(Default)]
pub(super) struct Filled {
    pub left_out: Vec<LeftOut>,
    pub losses: Losses,
}

/// Runs the steps of the plan, in order.
pub(super) async fn fill(steps: ArchiveRun<'_>, defined: bool) -> Result<Filled> {
    let ArchiveRun { run, archive, loader } = steps;
    let RestoreRun {
        job,
        request,
        target,
        state,
    } = run;
    if request.keep_going {
        let cleaned = clean(job, archive, target, state).await?;
        return fill_past(steps, cleaned).await;
    }
    let plan = &archive.plan;
    if let Some(left_out) = replace(steps).await? {
        return Ok(Filled {
            left_out,
            ..Filled::default()
        });
    }
    if defined {
        state.set(Milestone::Defining {
            atomic: false,
            cleaned: 0,
        });
    } else if !renew(steps).await? {
        clean_and_define(steps).await?;
    }

    let silent = job.stop.or_stop(silence::of(archive, target, loader)).await?;
    let loader = &Loader {
        silent: Some(&silent),
        ..*loader
    };
    job.observer.phase(LOADING);
    job.observer.estimate(plan.stored_bytes());
    let done = Mutex::new(Vec::new());
    let result = loader.data(plan, job.settings.jobs, &done).await;
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    if result.is_err() {
        let survey = state::survey(&archive.stored, plan, &done, &target.info, &job.settings.postgres);
        state.set(survey.await);
    }
    result?;

    state.set(Milestone::Finishing);
    take_back_of_objects(job, request, archive, target).await?;
    job.observer.phase(FINISHING);
    let (after, refreshes) = refreshing::divide(archive);
    loader.finish("after", &after, job.settings.jobs).await?;
    refreshing::finish(loader, &refreshes, job.settings.jobs).await?;
    loader.finish("joins", &plan.joins, 1).await?;
    let left_out = tie(job, archive, target).await?;
    // Event triggers fire at every change of a definition, in any session: nothing is made after them.
    loader.finish("events", &plan.events, 1).await?;
    state.whole();
    Ok(Filled {
        left_out,
        ..Filled::default()
    })
}

/// Removes conflicting objects, and then makes the definitions.
async fn clean_and_define(steps: ArchiveRun<'_>) -> Result<()> {
    let ArchiveRun { run, archive, loader } = steps;
    let RestoreRun {
        job,
        request,
        target,
        state,
    } = run;
    let plan = &archive.plan;
    let cleaned = clean(job, archive, target, state).await?;
    let atomic = is_atomic(archive, target);
    state.set(Milestone::Defining { atomic, cleaned });
    job.observer.phase(DEFINING);
    if !plan.ground.is_empty() {
        state.set(Milestone::Defining { atomic: false, cleaned });
        loader.finish("ground", &plan.ground, 1).await?;
    }
    loader.definitions(&plan.before, atomic).await?;
    take_back_defaults(job, request, archive, target).await
}

const DEFINING: &str = "making the definitions";
const LOADING: &str = "loading the data";
const FINISHING: &str = "making indexes and constraints";

/// Like [`fill`], but continues after failures.
async fn fill_past(steps: ArchiveRun<'_>, cleaned: usize) -> Result<Filled> {
    let ArchiveRun { run, archive, loader } = steps;
    let RestoreRun {
        job,
        request,
        target,
        state,
    } = run;
    let plan = &archive.plan;
    let (silent, silenced);
    let mut past = Past::new(job, archive, target, loader);
    state.set(Milestone::Defining { atomic: false, cleaned });
    job.observer.phase(DEFINING);
    past.step("ground", &plan.ground).await?;
    past.step("before", &plan.before).await?;
    take_back_defaults(job, request, archive, target).await?;

    silent = job.stop.or_stop(silence::of(archive, target, loader)).await?;
    silenced = Loader {
        silent: Some(&silent),
        ..*loader
    };
    past.load_by(&silenced);
    job.observer.phase(LOADING);
    job.observer.estimate(plan.stored_bytes());
    let loading = past.data();
    let loaded = waiting::while_it_answers(&target.session, job.settings.postgres.stall, loading).await;
    if loaded.is_err() {
        state.set(past.survey().await);
    }
    loaded?;

    state.set(Milestone::Finishing);
    take_back_of_objects(job, request, archive, target).await?;
    job.observer.phase(FINISHING);
    let (after, refreshes) = refreshing::divide(archive);
    past.finish(&after, job.settings.jobs).await?;
    past.refresh(&refreshes).await?;
    past.step("joins", &plan.joins).await?;
    let left_out = tie(job, archive, target).await?;
    past.step("events", &plan.events).await?;
    state.whole();
    past.ask_for_codes().await;
    let losses = past.losses;
    Ok(Filled { left_out, losses })
}

/// Removes conflicting objects and makes the definitions in one transaction. Returns false if the server has no room
/// for it: then nothing was changed.
async fn renew(steps: ArchiveRun<'_>) -> Result<bool> {
    let ArchiveRun { run, archive, loader } = steps;
    let RestoreRun { job, target, state, .. } = run;
    if !removes(archive) || !target.fits_one_transaction(&archive.plan) {
        return Ok(false);
    }
    state.set(Milestone::Cleaning);
    job.observer.phase("replacing the definitions");
    let removal = removal(job, archive);
    let replacing = async {
        let Some(first) = renewing::first(archive, target, loader).await? else {
            return Ok(None);
        };
        let Some(renewed) = renewing::replace(steps, &first, &removal).await? else {
            return Ok(None);
        };
        let cleaned = renewed.cleaned;
        renewed.commit(&archive.around, state).await?;
        Ok(Some(cleaned))
    };
    let replacing = waiting::while_it_answers(&target.session, job.settings.postgres.stall, replacing);
    let cleaned = job.stop.or_stop(replacing).await?;
    if let Some(cleaned) = cleaned {
        state.set(Milestone::Defining { atomic: false, cleaned });
    }
    Ok(cleaned.is_some())
}

/// Like [`renew`], with the rows and all later steps, if the restore is one transaction. Returns what could not be
/// made again, if the transaction was committed.
async fn replace(steps: ArchiveRun<'_>) -> Result<Option<Vec<LeftOut>>> {
    let ArchiveRun { run, archive, .. } = steps;
    let RestoreRun { job, target, state, .. } = run;
    if !archive.together {
        return Ok(None);
    }
    state.set(Milestone::Together);
    let removal = removal(job, archive);
    let replacing = replacing::run(steps, &removal);
    let replacing = waiting::while_it_answers(&target.session, job.settings.postgres.stall, replacing);
    let left_out = job.stop.or_stop(replacing).await?;
    if left_out.is_some() {
        state.whole();
    }
    Ok(left_out)
}

fn removes(archive: &PreparedArchive) -> bool {
    !archive.plan.drops.is_empty() || !archive.plan.large_objects.is_empty()
}

fn removal<'a>(job: &Job<'_>, archive: &'a PreparedArchive) -> Removal<'a> {
    for tie in &archive.around.ties {
        tracing::info!("to be made again: {}", tie.statement);
    }
    Removal {
        loosen: &archive.around.loosen,
        statements: &archive.plan.drops,
        parting: &archive.plan.partings,
        large_objects: &archive.plan.large_objects,
        tables: &archive.around.tables,
        beside: &archive.around.beside,
        wait: job.settings.postgres.lock_wait,
    }
}

/// Removes conflicting objects, and returns their number.
async fn clean(job: &Job<'_>, archive: &PreparedArchive, target: &Target, state: &State) -> Result<usize> {
    if !removes(archive) {
        return Ok(0);
    }
    state.set(Milestone::Cleaning);
    job.observer.phase("removing conflicting objects");
    let removal = removal(job, archive);
    let removing = async {
        let cleaned = target.session.remove(&removal).await?;
        renewing::commit(&target.session, &archive.around, state).await?;
        Ok(cleaned)
    };
    job.stop.or_stop(removing).await
}

/// Takes back what the target's default privileges give on the objects that are made again.
async fn take_back_defaults(
    job: &Job<'_>,
    request: &RestoreRequest,
    archive: &PreparedArchive,
    target: &Target,
) -> Result<()> {
    if !renewing::has_the_backups_grants(request) {
        return Ok(());
    }
    let made = renewing::made(&archive.items, &archive.plan);
    if made.is_empty() {
        return Ok(());
    }
    in_a_session(job, target, async |session| session.take_back_defaults(&made).await).await
}

/// The same for large objects, which come with the rows.
async fn take_back_of_objects(
    job: &Job<'_>,
    request: &RestoreRequest,
    archive: &PreparedArchive,
    target: &Target,
) -> Result<()> {
    let objects = renewing::made_objects(request, &archive.items, &archive.plan);
    if objects.is_empty() {
        return Ok(());
    }
    in_a_session(job, target, async |session| {
        session.take_back_of_objects(&objects).await
    })
    .await
}

/// Works in a session of its own, as long as the server answers the target's session.
async fn in_a_session(job: &Job<'_>, target: &Target, work: impl AsyncFnOnce(&Session) -> Result<()>) -> Result<()> {
    let working = async {
        let session = Session::connect(&target.info, &job.settings.postgres).await?;
        work(&session).await?;
        session.close().await;
        Ok(())
    };
    while_it_answers(job, target, working).await
}

async fn tie(job: &Job<'_>, archive: &PreparedArchive, target: &Target) -> Result<Vec<LeftOut>> {
    let wait = job.settings.postgres.lock_wait;
    let tying = async { Ok(archive.around.tie(target, wait).await) };
    job.stop.or_stop(tying).await
}
