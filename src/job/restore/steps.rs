//! Carries out a restore, step by step.

mod archive;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::check::{self, ComparedRows};
use super::context::{ArchiveRun, RestoreRun};
use super::failed::Failed;
use super::plan::LeftOut;
use super::prepared::{BackupData, Prepared, PreparedArchive};
use super::ready::Target;
use super::report::{RestoreReport, RestoreStatus};
use super::state::{Milestone, State};
use super::waiting::{self, LockWatch};
use super::{Job, Loader, exclusion, globals, in_place, into, loading, making, script};
use crate::error::{Code, Result};
use crate::job::restore::RestoreRequest;
use crate::postgres::{ConnectionInfo, Passfile, Session};
use crate::repository::catalog::Located;
use crate::run::private_folder::{PrivateFolder, answering};
use archive::{Filled, define_apart, fill};

pub(super) async fn carry_out(
    job: &Job<'_>,
    request: &RestoreRequest,
    mut prepared: Prepared,
    state: &State,
) -> Result<RestoreReport> {
    match fill_target(job, request, &mut prepared, state).await {
        Ok(compared) => finish(job, request, prepared, compared).await,
        Err(error) => {
            // If it has replaced another by then, at least its name stays.
            if !prepared.target.exists && state.has_made_for_nothing() {
                let removing = making::take_back(&prepared.target, &job.settings.postgres, state);
                job.stop.in_time(removing).await;
                if state.has_made_for_nothing() {
                    job.stop.in_time(making::open_door(&prepared.target)).await;
                }
            }
            Err(error)
        }
    }
}

/// Does everything until the rows are there and compared. Returns the comparison, if there was one at the end.
async fn fill_target(
    job: &Job<'_>,
    request: &RestoreRequest,
    prepared: &mut Prepared,
    state: &State,
) -> Result<Option<ComparedRows>> {
    let own = OwnFiles::make(job, prepared).await?;
    read_before_removal(job, request, prepared).await?;
    make_roles(job, request, prepared, state).await?;
    let beside = make_database(job, request, prepared, state).await?;
    settle_members(job, prepared, beside.as_deref()).await?;
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
            let run = RestoreRun {
                job,
                request,
                target: &prepared.target,
                state,
            };
            run_script(run, &place, checked, beside.as_deref()).await?;
            Ok(None)
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
                return Ok(None);
            }
            let Some(work) = &archive.in_place else {
                return load_archive(job, request, prepared, (&own, beside.as_deref()), state).await;
            };
            let filling = in_place::run(job, backup, &prepared.target, work, state);
            let filled = while_it_answers(job, &prepared.target, filling).await?;
            prepared.failed = filled.losses.tell(&archive.items);
            prepared.compared = Some(filled.compared);
            prepared.rows_replaced = filled.replaced;
            Ok(None)
        }
    }
}

/// Sets up a new database, after its rows are loaded, and makes the report.
async fn finish(
    job: &Job<'_>,
    request: &RestoreRequest,
    mut prepared: Prepared,
    compared: Option<ComparedRows>,
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
    state.set(Milestone::Making { database: None });
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
    let source = making::Source {
        items: prepared.source.items(),
        denied: prepared.source.denied(),
    };
    let making = making::make(&prepared.target, &source, request, state);
    let new = job.stop.or_stop(making).await?;
    prepared.warnings.extend(new.notes);
    Ok(new.beside)
}

/// Leaves out what belongs to extensions that are left out, if the database had to be made before that is known.
async fn settle_members(job: &Job<'_>, prepared: &mut Prepared, beside: Option<&str>) -> Result<()> {
    let BackupData::Archive(archive) = &mut prepared.source else {
        return Ok(());
    };
    let Some(excluded) = archive.open_members.take() else {
        return Ok(());
    };
    let mut info = prepared.target.info.clone();
    if let Some(beside) = beside {
        info.dbname = Some(beside.to_owned());
    }
    let asking = async {
        // If one can only log in under the database's own name, it is not known, and stays in the plan.
        let Ok(session) = Session::connect(&info, &job.settings.postgres).await else {
            return Ok(Default::default());
        };
        let found = exclusion::open_members(&archive.items, &excluded, &session).await;
        session.close().await;
        found
    };
    let (entries, left_out) = job.stop.or_stop(asking).await?;
    archive.plan.leave_out(&entries);
    archive.plan.left_out.extend(left_out);
    Ok(())
}

/// Restores the archive by pg_restore. Returns the comparison of the rows, if the request asks for one and it was
/// done.
async fn load_archive(
    job: &Job<'_>,
    request: &RestoreRequest,
    prepared: &mut Prepared,
    (own, beside): (&OwnFiles, Option<&str>),
    state: &State,
) -> Result<Option<ComparedRows>> {
    let BackupData::Archive(archive) = &prepared.source else {
        return Ok(None);
    };
    let target = &prepared.target;
    let (info, name) = named(&target.info);
    let loader = loader(job, request, (&prepared.located, archive, target), own, (&info, &name));
    let steps = ArchiveRun {
        run: RestoreRun {
            job,
            request,
            target,
            state,
        },
        archive,
        loader: &loader,
    };
    let mut defined = false;
    if let Some(beside) = beside {
        defined = define_apart(steps, beside).await?;
        put_in_place(steps.run, beside).await?;
    }
    let Filled { left_out, losses } = fill(steps, defined).await?;
    prepared.lost = left_out;
    prepared.failed = losses.tell(&archive.items);
    if !request.compares() {
        return Ok(None);
    }
    job.observer.phase("comparing the rows");
    let lost = losses.ids();
    let compared = job
        .stop
        .or_stop(check::run(steps, &prepared.located.manifest, &lost))
        .await;
    finished_or_told(prepared, compared)
}

/// What all pg_restores of the archive have in common. `info` and `name`: how they log in, and the name of their
/// sessions.
fn loader<'a>(
    job: &'a Job<'_>,
    request: &RestoreRequest,
    (located, archive, target): (&'a Located, &'a PreparedArchive, &'a Target),
    own: &'a OwnFiles,
    (info, name): (&'a ConnectionInfo, &'a str),
) -> Loader<'a> {
    let settings = &job.settings.postgres;
    Loader {
        store: &located.store,
        archive: &archive.stored,
        program: &archive.pg_restore,
        info,
        passfile: own.passfile.as_ref(),
        settings,
        folder: &own.folder,
        no_owner: request.no_owner,
        no_privileges: request.no_privileges,
        no_tablespaces: request.no_tablespaces,
        stop: job.stop,
        observer: job.observer,
        reads_again: true,
        watch: Some(LockWatch {
            session: &target.session,
            name,
            wait: settings.lock_wait,
            stall: settings.stall,
        }),
        silent: None,
    }
}

/// If objects failed, they must be reported even if the comparison did not finish.
fn finished_or_told(prepared: &mut Prepared, compared: Result<ComparedRows>) -> Result<Option<ComparedRows>> {
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
fn settle(prepared: &mut Prepared, compared: ComparedRows, request: &RestoreRequest) -> Result<()> {
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
    run: RestoreRun<'_>,
    place: &script::ScriptTarget<'_>,
    checked: &Arc<script::Checked>,
    beside: Option<&str>,
) -> Result<()> {
    let RestoreRun { job, target, state, .. } = run;
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
        state.set(Milestone::Running { end: failed.end });
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

async fn put_in_place(run: RestoreRun<'_>, beside: &str) -> Result<()> {
    let RestoreRun {
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

/// Does work in a session of its own until a stop is requested, or until the server no longer answers the target's
/// session.
async fn while_it_answers<T>(job: &Job<'_>, target: &Target, work: impl Future<Output = Result<T>>) -> Result<T> {
    let work = waiting::while_it_answers(&target.session, job.settings.postgres.stall, work);
    job.stop.or_stop(work).await
}
