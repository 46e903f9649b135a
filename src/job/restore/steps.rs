//! Carries out a restore, step by step.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::check::{self, Comparison};
use super::context::{ArchiveRun, Run};
use super::failed::{Failed, Losses};
use super::past::Past;
use super::plan::LeftOut;
use super::prepared::{Archive, BackupData, Prepared};
use super::ready::Target;
use super::report::{RestoreReport, RestoreStatus};
use super::state::{self, Stage, State};
use super::waiting::{self, Watch};
use super::{Job, Loader, globals, in_place, into, loading, making, refreshing, renewing, replacing, script, silence};
use crate::error::{Code, Result};
use crate::job::restore::RestoreRequest;
use crate::postgres::{ConnectionInfo, Passfile, Removal, Session};
use crate::run::private_folder::{PrivateFolder, answering};

pub(super) async fn carry_out(
    job: &Job<'_>,
    request: &RestoreRequest,
    mut prepared: Prepared,
    state: &State,
) -> Result<RestoreReport> {
    let own = OwnFiles::make(job, &prepared).await?;
    read_before_removal(job, request, &prepared).await?;
    make_roles(job, request, &mut prepared, state).await?;
    let beside = make_database(job, request, &mut prepared, state).await?;
    let mut compared = None;
    match &prepared.source {
        BackupData::Script(psql, checked) => {
            let place = script::ScriptTarget {
                psql,
                info: &prepared.target.info,
                passfile: own.passfile.as_ref(),
                settings: &job.settings.postgres,
                stop: job.stop,
                observer: job.observer,
            };
            let run = Run {
                job,
                request,
                target: &prepared.target,
                state,
            };
            run_script(run, &place, checked, beside.as_deref()).await?;
        }
        BackupData::Archive(archive) => {
            if !request.tables.is_empty() {
                state.lacks(archive.extensions_that_stay_away(&prepared.target));
            }
            let backup = archive.backup(&prepared.located.store);
            if let Some(work) = &archive.into {
                let making = into::run(job, backup, &prepared.target, work, state);
                let made = while_it_answers(job, &prepared.target, making).await?;
                (prepared.compared, prepared.lost) = (made.compared, made.left_out);
                return Ok(prepared.report(job, request, RestoreStatus::Restored));
            }
            match &archive.in_place {
                None => compared = load_archive(job, request, &mut prepared, (&own, beside.as_deref()), state).await?,
                Some(work) => {
                    let filling = in_place::run(job, backup, &prepared.target, work, state);
                    let filled = while_it_answers(job, &prepared.target, filling).await?;
                    prepared.compared = Some(filled.compared);
                    prepared.rows_replaced = filled.replaced;
                    prepared.failed = filled.losses.tell(&archive.items);
                }
            }
        }
    }
    finish(job, request, prepared, compared).await
}

/// Sets up a new database, after its rows are loaded, and makes the report.
async fn finish(
    job: &Job<'_>,
    request: &RestoreRequest,
    mut prepared: Prepared,
    compared: Option<Comparison>,
) -> Result<RestoreReport> {
    if request.create {
        let setting = making::set_up(&prepared.target, prepared.source.items(), request);
        let notes = job.stop.or_stop(setting).await?;
        prepared.warnings.extend(notes);
    }
    if let Some(compared) = compared {
        settle(&mut prepared, compared, request)?;
    }
    let status = if prepared.failed.is_empty() {
        RestoreStatus::Restored
    } else {
        RestoreStatus::Partial
    };
    Ok(prepared.report(job, request, status))
}

/// What the run needs on this machine.
struct OwnFiles {
    folder: PrivateFolder,
    passfile: Option<Passfile>,
}

impl OwnFiles {
    /// Makes everything before the target is changed.
    async fn make(job: &Job<'_>, prepared: &Prepared) -> Result<Self> {
        let (info, room) = (prepared.target.info.clone(), prepared.source.written_here());
        let needed = answering(&job.settings.postgres.temp, move |temp| {
            let folder = PrivateFolder::watched(temp)?;
            let passfile = Passfile::within(&folder, &info)?;
            folder.make_room(room)?;
            Ok(Self { folder, passfile })
        });
        job.stop.or_stop(needed).await
    }
}

/// If the restore removes something, a damaged backup must be found before that.
async fn read_before_removal(job: &Job<'_>, request: &RestoreRequest, prepared: &Prepared) -> Result<()> {
    if let BackupData::Archive(archive) = &prepared.source
        && archive.in_place.is_none()
        && prepared.removes(request)
        && !request.no_verify
    {
        job.observer
            .phase("reading the backup once, before anything is removed");
        let store = &prepared.located.store;
        let reading = loading::check(store, &archive.stored, &archive.plan, job.settings.jobs, job.observer);
        job.stop.or_stop(reading).await?;
    }
    Ok(())
}

async fn make_roles(job: &Job<'_>, request: &RestoreRequest, prepared: &mut Prepared, state: &State) -> Result<()> {
    let Some(globals) = &prepared.globals else {
        return Ok(());
    };
    state.set(Stage::Making { database: None });
    job.observer.phase("making roles");
    let owners = match &prepared.source {
        BackupData::Archive(archive) => Some(archive.owners(request)),
        BackupData::Script(..) => None,
    };
    let notes = globals::apply(&prepared.target, globals, owners.as_ref(), state);
    let notes = job.stop.or_stop(notes).await?;
    prepared.warnings.extend(notes);
    Ok(())
}

/// Returns the name of the new database, if it is made beside the one that it replaces.
async fn make_database(
    job: &Job<'_>,
    request: &RestoreRequest,
    prepared: &mut Prepared,
    state: &State,
) -> Result<Option<String>> {
    if !request.create {
        return Ok(None);
    }
    job.observer.phase("making the database");
    let making = making::make(&prepared.target, prepared.source.items(), request, state);
    let new = job.stop.or_stop(making).await?;
    prepared.warnings.extend(new.notes);
    if new.beside.is_none() {
        state.made();
    }
    Ok(new.beside)
}

/// Restores the archive by pg_restore. Returns the comparison of the rows, if the request asks for one and it was
/// done.
async fn load_archive(
    job: &Job<'_>,
    request: &RestoreRequest,
    prepared: &mut Prepared,
    (own, beside): (&OwnFiles, Option<&str>),
    state: &State,
) -> Result<Option<Comparison>> {
    let BackupData::Archive(archive) = &prepared.source else {
        return Ok(None);
    };
    let (settings, target) = (&job.settings.postgres, &prepared.target);
    let (info, name) = named(&target.info);
    let loader = Loader {
        store: &prepared.located.store,
        archive: &archive.stored,
        program: &archive.pg_restore,
        info: &info,
        passfile: own.passfile.as_ref(),
        settings,
        folder: &own.folder,
        no_owner: request.no_owner,
        no_privileges: request.no_privileges,
        no_tablespaces: request.no_tablespaces,
        stop: job.stop,
        observer: job.observer,
        reads_again: true,
        watch: Some(Watch {
            session: &target.session,
            name: &name,
            wait: settings.lock_wait,
            stall: settings.stall,
        }),
        silent: None,
    };
    let run = Run {
        job,
        request,
        target,
        state,
    };
    let steps = ArchiveRun {
        run,
        archive,
        loader: &loader,
    };
    let mut defined = false;
    if let Some(beside) = beside {
        defined = define_apart(steps, beside).await?;
        put_in_place(run, beside).await?;
    }
    let Filled { left_out, losses } = fill(steps, defined).await?;
    prepared.lost = left_out;
    prepared.failed = losses.tell(&archive.items);
    if !request.compares() {
        return Ok(None);
    }
    job.observer.phase("comparing the rows");
    let (manifest, lost) = (&prepared.located.manifest, losses.ids());
    let comparing = check::run(steps, manifest, &lost);
    let compared = job.stop.or_stop(comparing).await;
    finished_or_told(prepared, compared)
}

/// If objects failed, they must be reported even if the comparison did not finish.
fn finished_or_told(prepared: &mut Prepared, compared: Result<Comparison>) -> Result<Option<Comparison>> {
    match compared {
        Err(error) if !prepared.failed.is_empty() && !matches!(error.code(), Code::Interrupted(_)) => {
            prepared.not_proved.push(LeftOut {
                what: "the rows".into(),
                why: format!("the comparison did not finish: {}", error.message()),
            });
            Ok(None)
        }
        compared => compared.map(Some),
    }
}

/// Gives the sessions a name by which the server shows them, unless the user has given one.
fn named(info: &ConnectionInfo) -> (ConnectionInfo, String) {
    let mut info = info.clone();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let own = format!("pgstow restore {:x}-{:x}", std::process::id(), now.as_micros());
    let name = info.params.entry("application_name".into()).or_insert(own).clone();
    (info, name)
}

/// Puts the comparison's result into the report, or returns it as an error.
fn settle(prepared: &mut Prepared, compared: Comparison, request: &RestoreRequest) -> Result<()> {
    let BackupData::Archive(archive) = &prepared.source else {
        return Ok(());
    };
    if let Some(error) = compared.error(|index| archive.stored.name(index)) {
        if !request.keep_going {
            return Err(error);
        }
        let failed = compared.different.iter().map(|(index, how)| Failed {
            kind: archive.stored.head.data[*index].desc.clone(),
            name: archive.stored.name(*index),
            code: error.code(),
            sqlstate: None,
            message: format!("it {how}"),
            rows_lost: None,
            consequence_of: None,
        });
        prepared.failed.extend(failed);
    }
    let any = compared.equal + compared.different.len() + compared.not_proved.len() > 0;
    prepared.compared = any.then_some(compared.equal);
    prepared.not_proved = compared.not_proved;
    Ok(())
}

/// Runs the script. If it replaces a database, it runs in the new one beside the old one, which is removed after the
/// script.
async fn run_script(
    run: Run<'_>,
    place: &script::ScriptTarget<'_>,
    checked: &Arc<script::Checked>,
    beside: Option<&str>,
) -> Result<()> {
    let Run { job, target, state, .. } = run;
    let mut apart = None;
    if let Some(beside) = beside {
        apart = making::apart(place.info, beside, place.settings).await;
        if apart.is_none() {
            put_in_place(run, beside).await?;
        }
    }
    let beside = beside.filter(|_| apart.is_some());
    job.observer.phase("running the script");
    let place = script::ScriptTarget {
        info: apart.as_ref().unwrap_or(place.info),
        ..*place
    };
    if let Err(failed) = script::run(&place, checked).await {
        state.set(Stage::Running { end: failed.end });
        let Some(beside) = beside else {
            return Err(failed.error);
        };
        job.stop.in_time(making::discard(target, beside, state)).await;
        return Err(making::explained(failed.error, target));
    }
    if let Some(beside) = beside {
        put_in_place(run, beside).await?;
    }
    state.whole();
    Ok(())
}

/// Makes the definitions in the new database while the old one still exists. If the server refuses a definition, the
/// old database stays. Returns whether they were made.
async fn define_apart(steps: ArchiveRun<'_>, beside: &str) -> Result<bool> {
    let ArchiveRun { run, archive, loader } = steps;
    let Run {
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

async fn put_in_place(run: Run<'_>, beside: &str) -> Result<()> {
    let Run {
        job,
        request,
        target,
        state,
    } = run;
    if let Some(reason) = job.stop.reason() {
        job.stop.in_time(making::discard(target, beside, state)).await;
        return Err(reason.into());
    }
    job.observer.phase("replacing the database");
    let replacing = making::replace(target, beside, request, state);
    job.stop.or_stop(replacing).await?;
    state.made();
    Ok(())
}

/// In one transaction, if the server has room for its locks.
async fn define(archive: &Archive, target: &Target, loader: &Loader<'_>) -> Result<()> {
    let plan = &archive.plan;
    if !plan.ground.is_empty() {
        loader.finish("ground", &plan.ground, 1).await?;
    }
    loader.definitions(&plan.before, is_atomic(archive, target)).await
}

fn is_atomic(archive: &Archive, target: &Target) -> bool {
    !archive.pg_restore.tolerates_transaction_timeout && target.fits_one_transaction(&archive.plan)
}

/// What the steps have to report.
#[derive(Default)]
struct Filled {
    left_out: Vec<LeftOut>,
    losses: Losses,
}

/// Runs the steps of the plan, in order.
async fn fill(steps: ArchiveRun<'_>, defined: bool) -> Result<Filled> {
    let ArchiveRun { run, archive, loader } = steps;
    let Run {
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
        state.set(Stage::Defining {
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

    state.set(Stage::Finishing);
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
    let Run {
        job,
        request,
        target,
        state,
    } = run;
    let plan = &archive.plan;
    let cleaned = clean(job, archive, target, state).await?;
    let atomic = is_atomic(archive, target);
    state.set(Stage::Defining { atomic, cleaned });
    job.observer.phase(DEFINING);
    if !plan.ground.is_empty() {
        state.set(Stage::Defining { atomic: false, cleaned });
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
    let Run {
        job,
        request,
        target,
        state,
    } = run;
    let plan = &archive.plan;
    let (silent, silenced);
    let mut past = Past::new(job, archive, target, loader);
    state.set(Stage::Defining { atomic: false, cleaned });
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

    state.set(Stage::Finishing);
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
    let Run { job, target, state, .. } = run;
    if !removes(archive) || !target.fits_one_transaction(&archive.plan) {
        return Ok(false);
    }
    state.set(Stage::Cleaning);
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
        state.set(Stage::Defining { atomic: false, cleaned });
    }
    Ok(cleaned.is_some())
}

/// Like [`renew`], with the rows and all later steps, if the restore is one transaction. Returns what could not be
/// made again, if the transaction was committed.
async fn replace(steps: ArchiveRun<'_>) -> Result<Option<Vec<LeftOut>>> {
    let ArchiveRun { run, archive, .. } = steps;
    let Run { job, target, state, .. } = run;
    if !archive.together {
        return Ok(None);
    }
    state.set(Stage::Together);
    let removal = removal(job, archive);
    let replacing = replacing::run(steps, &removal);
    let replacing = waiting::while_it_answers(&target.session, job.settings.postgres.stall, replacing);
    let left_out = job.stop.or_stop(replacing).await?;
    if left_out.is_some() {
        state.whole();
    }
    Ok(left_out)
}

fn removes(archive: &Archive) -> bool {
    !archive.plan.drops.is_empty() || !archive.plan.large_objects.is_empty()
}

fn removal<'a>(job: &Job<'_>, archive: &'a Archive) -> Removal<'a> {
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
async fn clean(job: &Job<'_>, archive: &Archive, target: &Target, state: &State) -> Result<usize> {
    if !removes(archive) {
        return Ok(0);
    }
    state.set(Stage::Cleaning);
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
async fn take_back_defaults(job: &Job<'_>, request: &RestoreRequest, archive: &Archive, target: &Target) -> Result<()> {
    if !renewing::has_the_backups_grants(request) {
        return Ok(());
    }
    let made = renewing::made(&archive.items, &archive.plan);
    if made.is_empty() {
        return Ok(());
    }
    let taking = async {
        let session = Session::connect(&target.info, &job.settings.postgres).await?;
        session.take_back_defaults(&made).await?;
        session.close().await;
        Ok(())
    };
    while_it_answers(job, target, taking).await
}

/// The same for large objects, which come with the rows.
async fn take_back_of_objects(
    job: &Job<'_>,
    request: &RestoreRequest,
    archive: &Archive,
    target: &Target,
) -> Result<()> {
    let objects = renewing::made_objects(request, &archive.items, &archive.plan);
    if objects.is_empty() {
        return Ok(());
    }
    let taking = async {
        let session = Session::connect(&target.info, &job.settings.postgres).await?;
        session.take_back_of_objects(&objects).await?;
        session.close().await;
        Ok(())
    };
    while_it_answers(job, target, taking).await
}

/// Does work in a session of its own until a stop is requested, or until the server no longer answers the target's
/// session.
async fn while_it_answers<T>(job: &Job<'_>, target: &Target, work: impl Future<Output = Result<T>>) -> Result<T> {
    let work = waiting::while_it_answers(&target.session, job.settings.postgres.stall, work);
    job.stop.or_stop(work).await
}

async fn tie(job: &Job<'_>, archive: &Archive, target: &Target) -> Result<Vec<LeftOut>> {
    let wait = job.settings.postgres.lock_wait;
    let tying = async { Ok(archive.around.tie(target, wait).await) };
    job.stop.or_stop(tying).await
}
