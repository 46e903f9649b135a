//! `restore`: a backup, or some of its tables, from the store into a database, without a disk in
//! between. Read [`run`] as its table of contents: everything that can be known is found out
//! before anything is changed.

mod around;
mod choice;
pub(crate) mod database;
pub(crate) mod globals;
mod grants;
mod in_place;
mod loading;
mod parts;
mod plan;
mod ready;
mod report;
pub(crate) mod script;
mod state;
mod tables;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::archive::{self, BlockContent, Item};
use crate::catalog::{self, Demand, Located};
use crate::command::RestoreRequest;
use crate::error::{Code, Error, Result};
use crate::manifest::role;
use crate::postgres::{self, GlobalsPlan, Passfile, Powers, Psql, RestoreProgram};
use crate::private_folder::{PrivateFolder, answering, sweep_stale};
use crate::progress::Observer;
use crate::report::human_bytes;
use crate::secrets::Credentials;
use crate::settings::{Clock, Settings};
use crate::signature::Trust;
use crate::stop::Stop;
use crate::store::Store;
use crate::stored_archive::StoredArchive;
use around::Surroundings;
use in_place::InPlace;
use ready::Target;
use state::{Stage, State};

pub(crate) use loading::Loader;
pub use plan::LeftOut;
pub(crate) use plan::{Load, Plan, Without, everything, plan};
pub use report::RestoreReport;

/// Said before, not after: then it has happened.
const SUPERUSER: &str = "the target's role is a superuser, and so is every function of the backup that the restore \
                         evaluates (checks, defaults, index expressions, materialized views): whoever owned one in the \
                         source may do anything to this server; restore as a role that is none where you can";

/// What a restore works with.
pub struct Job<'a> {
    pub settings: &'a Settings,
    /// Into the database that is to be filled.
    pub target: &'a Credentials,
    pub stores: &'a [Arc<dyn Store>],
    /// Whose `latest` is meant, where something names it.
    pub database: Option<&'a str>,
    pub trust: &'a Trust,
    pub clock: Clock,
    pub stop: &'a Stop,
    pub observer: &'a Arc<dyn Observer>,
}

/// Restores what was asked for. An error says in what state the target was left.
pub async fn run(job: &Job<'_>, request: &RestoreRequest) -> Result<RestoreReport> {
    let begun = Instant::now();
    let state = State::default();
    let done = match prepare(job, request).await {
        Ok(prepared) if request.dry_run => Ok(prepared.planned(job, request)),
        Ok(prepared) => carry_out(job, request, prepared, &state).await,
        Err(error) => Err(error),
    };
    match done {
        Ok(mut report) => {
            report.duration_seconds = begun.elapsed().as_secs_f64();
            Ok(report)
        }
        Err(error) => Err(state.tell(&error)),
    }
}

/// Everything that is known before the first change.
struct Prepared {
    located: Located,
    source: Source,
    target: Target,
    globals: Option<GlobalsPlan>,
    warnings: Vec<String>,
    /// What pointed at replaced tables, and could not be put back.
    lost: Vec<LeftOut>,
    /// How many tables were compared with the backup.
    compared: Option<usize>,
}

enum Source {
    Archive(Box<Archive>),
    /// A plain dump, for psql.
    Script(Psql, Arc<script::Checked>),
}

struct Archive {
    stored: Arc<StoredArchive>,
    items: Vec<Item>,
    plan: Plan,
    pg_restore: RestoreProgram,
    /// What points at tables that are replaced.
    around: Surroundings,
    /// For rows that are put back into tables that are there.
    in_place: Option<InPlace>,
}

async fn prepare(job: &Job<'_>, request: &RestoreRequest) -> Result<Prepared> {
    check_request(request)?;
    let postgres = &job.settings.postgres;
    job.stop.or_stop(answering(&postgres.temp, sweep_stale)).await?;
    job.observer.phase("looking at the backup");
    let demand = Demand {
        trust: job.trust,
        manifest: request.expect_manifest,
        now: (job.clock)(),
        altered: false,
    };
    let located = job
        .stop
        .or_stop(catalog::find(job.stores, &request.backup, job.database, &demand))
        .await?;
    let manifest = &located.manifest;
    job.observer.phase("looking at the target");
    let target = job.stop.or_stop(ready::reach(job, request)).await?;
    target.check(manifest, request)?;
    let source = if manifest.files.contains_key(role::SQL) {
        let psql = script::psql(&target, request, postgres).await?;
        job.observer.phase("checking the script");
        let checked = script::check(&located.store, manifest, job.observer, ());
        let (checked, ()) = job.stop.or_stop(checked).await?;
        Source::Script(psql, Arc::new(checked))
    } else {
        Source::Archive(Box::new(archive(job, request, &located, &target).await?))
    };
    let globals = if request.globals {
        let sql = job.stop.or_stop(globals::read(&*located.store, manifest)).await?;
        let trust = if request.globals_privileged {
            Powers::Privileged
        } else {
            Powers::Roles
        };
        let plan = globals::plan(&target.session, &sql, trust);
        Some(job.stop.or_stop(plan).await?)
    } else {
        None
    };
    let mut warnings = located.warnings.clone();
    if target.found.is_superuser {
        tracing::warn!("{SUPERUSER}");
        warnings.push(SUPERUSER.to_owned());
    }
    Ok(Prepared {
        warnings,
        located,
        source,
        target,
        globals,
        lost: Vec::new(),
        compared: None,
    })
}

fn check_request(request: &RestoreRequest) -> Result<()> {
    if request.data_only && request.tables.is_empty() {
        return Err(
            Error::config("--data-only loads rows into tables that are there: it needs --table")
                .hint("name each table with --table SCHEMA.TABLE, or leave --data-only out"),
        );
    }
    if request.globals_privileged && !request.globals {
        return Err(
            Error::config("--globals-privileged says how roles are made, and without --globals none are")
                .hint("give --globals too, or leave --globals-privileged out"),
        );
    }
    if request.create && (!request.tables.is_empty() || request.data_only) {
        return Err(
            Error::config("--create makes a whole database, --table restores single tables")
                .hint("make the database first, or restore everything into it"),
        );
    }
    Ok(())
}

/// The archive, held against its manifest, and the plan for it, held against the target.
async fn archive(job: &Job<'_>, request: &RestoreRequest, located: &Located, target: &Target) -> Result<Archive> {
    let stored = StoredArchive::open(&*located.store, &located.manifest);
    let mut stored = job.stop.or_stop(stored).await?;
    job.stop.or_stop(check_object(&*located.store, &stored)).await?;
    let items = archive::contents(&stored.head).map_err(|error| Error::new(Code::Integrity, error.to_string()))?;
    let version = (stored.head.version.major, stored.head.version.minor);
    let major = target.session.server().major;
    let pg_restore = RestoreProgram::find(version, major, &job.settings.postgres).await?;
    let mut plan = if request.tables.is_empty() {
        whole(&stored, &items, request, job.settings.jobs)
    } else {
        let tables = tables::plan(job, target, &stored, &items, request);
        job.stop.or_stop(tables).await?
    };
    target.check_plan(&plan, request)?;
    let around = if request.clean && !request.create && !request.data_only {
        let replaced: Vec<&Item> = items.iter().filter(|item| replaces(&plan, request, item)).collect();
        let survey = around::survey(target, &replaced, !request.tables.is_empty());
        job.stop.or_stop(survey).await?
    } else {
        Surroundings::default()
    };
    plan.drops.splice(0..0, around.loosen.iter().cloned());
    plan.left_out.extend(around.left_out.iter().cloned());
    if !plan.copies.is_empty() {
        stored.head = stored.head.with_copy_statements(&plan.copies)?;
    }
    let in_place = if request.data_only {
        let preparing = in_place::prepare(target, &stored, &plan, request);
        Some(job.stop.or_stop(preparing).await?)
    } else {
        None
    };
    Ok(Archive {
        stored: Arc::new(stored),
        items,
        plan,
        pg_restore,
        around,
        in_place,
    })
}

/// Whether an entry's object is made anew: of a whole restore all, else those of the plan.
fn replaces(plan: &Plan, request: &RestoreRequest, item: &Item) -> bool {
    let id = &item.entry.dump_id;
    request.tables.is_empty() || plan.before.contains(id) || plan.after.contains(id) || plan.joins.contains(id)
}

/// That the object has its length costs one request, and is worth it before a table is dropped.
async fn check_object(store: &dyn Store, stored: &StoredArchive) -> Result<()> {
    let differs = |what: String| Error::new(Code::Integrity, format!("{} {what}", stored.key));
    match store.head(&stored.key).await? {
        None => Err(differs("is missing".into())),
        Some(head) if head.bytes != stored.file.bytes => Err(differs(format!(
            "has {} bytes, the manifest says {}",
            head.bytes, stored.file.bytes
        ))),
        Some(_) => Ok(()),
    }
}

fn whole(stored: &StoredArchive, items: &[Item], request: &RestoreRequest, jobs: usize) -> Plan {
    let everything = plan::everything(items);
    let mut plan = plan::plan(stored, items, &everything, without(request), jobs);
    if request.clean && !request.create {
        plan.drops = plan::drops(items, &everything);
        plan.large_objects = plan::large_objects(items, &everything);
    }
    plan
}

fn without(request: &RestoreRequest) -> Without {
    Without {
        owners: request.no_owner,
        grants: request.no_privileges,
        definitions: request.data_only,
    }
}

async fn carry_out(
    job: &Job<'_>,
    request: &RestoreRequest,
    mut prepared: Prepared,
    state: &State,
) -> Result<RestoreReport> {
    let settings = &job.settings.postgres;
    // All that the run needs here, before anything is changed there.
    let (info, room) = (prepared.target.info.clone(), prepared.source.written_here());
    let needed = answering(&settings.temp, move |temp| {
        let folder = PrivateFolder::watched(temp)?;
        let passfile = Passfile::within(&folder, &info)?;
        folder.make_room(room)?;
        Ok((folder, passfile))
    });
    let (folder, passfile) = job.stop.or_stop(needed).await?;
    if let Source::Archive(archive) = &prepared.source
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
    if let Some(globals) = &prepared.globals {
        state.set(Stage::Making { database: None });
        job.observer.phase("making roles");
        let notes = job
            .stop
            .or_stop(globals::apply(&prepared.target.session, globals))
            .await?;
        prepared.warnings.extend(notes);
    }
    if request.create {
        job.observer.phase("making the database");
        let making = make(&prepared.target, prepared.source.items(), request, state);
        job.stop.or_stop(making).await?;
    }
    let info = &prepared.target.info;
    match &prepared.source {
        Source::Script(psql, checked) => {
            job.observer.phase("running the script");
            let place = script::Place {
                psql,
                info,
                passfile: passfile.as_ref(),
                settings,
                stop: job.stop,
                observer: job.observer,
            };
            if let Err(failed) = script::run(&place, checked).await {
                state.set(Stage::Running { end: failed.end });
                return Err(failed.error);
            }
        }
        Source::Archive(archive) => {
            let loader = Loader {
                store: &prepared.located.store,
                archive: &archive.stored,
                program: &archive.pg_restore,
                info,
                passfile: passfile.as_ref(),
                settings,
                folder: &folder,
                no_owner: request.no_owner,
                no_privileges: request.no_privileges,
                no_tablespaces: request.no_tablespaces,
                stop: job.stop,
                observer: job.observer,
            };
            match &archive.in_place {
                None => prepared.lost = fill(job, archive, &prepared.target, &loader, state).await?,
                Some(work) => {
                    let store = &prepared.located.store;
                    let filling = in_place::run(job, archive, store, &prepared.target, work);
                    prepared.compared = Some(job.stop.or_stop(filling).await?);
                }
            }
        }
    }
    if request.create {
        let setting = set_up(&prepared.target, prepared.source.items(), request);
        let notes = job.stop.or_stop(setting).await?;
        prepared.warnings.extend(notes);
    }
    Ok(prepared.report(job, request, "restored"))
}

async fn make(target: &Target, items: &[Item], request: &RestoreRequest, state: &State) -> Result<()> {
    let name = target.name();
    if target.exists && request.clean {
        let (quoted, force) = (
            postgres::quoting::identifier(name),
            if request.force { " WITH (FORCE)" } else { "" },
        );
        if target.is_template {
            let ordinary = format!("ALTER DATABASE {quoted} WITH IS_TEMPLATE false");
            target.session.execute(&ordinary).await?;
        }
        let statement = format!("DROP DATABASE {quoted}{force}");
        state.set(Stage::Removing {
            database: name.to_owned(),
        });
        let removed = target.session.execute(&statement).await;
        if removed.as_ref().is_err_and(|error| error.code() != Code::ConnErr) {
            // The server's own refusal.
            state.set(Stage::Untouched);
        }
        removed?;
    }
    state.set(Stage::Making {
        database: Some(name.to_owned()),
    });
    target.session.execute(&database::creation(items, name)).await?;
    state.made();
    Ok(())
}

/// What belongs to the database itself. The data is there: what fails now is told, and no more.
async fn set_up(target: &Target, items: &[Item], request: &RestoreRequest) -> Result<Vec<String>> {
    let name = target.name();
    let owner = database::owner(items).filter(|_| !request.no_owner);
    let owner = owner.map(|owner| {
        let (name, owner) = (
            postgres::quoting::identifier(name),
            postgres::quoting::identifier(owner),
        );
        format!("ALTER DATABASE {name} OWNER TO {owner}")
    });
    let properties = database::properties(items, name, !request.no_privileges);
    let mut notes = Vec::new();
    for statement in owner.into_iter().chain(properties) {
        if let Err(error) = target.session.execute(&statement).await {
            notes.push(format!("{statement} {}", error.message()));
        }
    }
    Ok(notes)
}

/// The steps of the plan, in their order.
async fn fill(
    job: &Job<'_>,
    archive: &Archive,
    target: &Target,
    loader: &Loader<'_>,
    state: &State,
) -> Result<Vec<LeftOut>> {
    let plan = &archive.plan;
    let mut cleaned = 0;
    if !plan.drops.is_empty() || !plan.large_objects.is_empty() {
        state.set(Stage::Cleaning);
        job.observer.phase("removing what stands in the way");
        let wait = job.settings.postgres.lock_wait;
        let removing = target
            .session
            .remove(&plan.drops, &plan.large_objects, wait, &archive.around.tables);
        cleaned = job.stop.or_stop(removing).await?;
    }
    let atomic = !archive.pg_restore.tolerates_transaction_timeout && target.fits_one_transaction(plan);
    state.set(Stage::Defining { atomic, cleaned });
    job.observer.phase("making the definitions");
    loader.definitions(&plan.before, atomic).await?;

    job.observer.phase("loading the data");
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
    job.observer.phase("making indexes and constraints");
    loader.finish("after", &plan.after, job.settings.jobs).await?;
    loader.finish("joins", &plan.joins, 1).await?;
    job.stop.or_stop(async { Ok(archive.around.tie(target).await) }).await
}

impl Source {
    /// About what pg_restore's small files will take in TMPDIR: lists of entries, and the archive's head
    /// for the steps that do several things at once.
    fn written_here(&self) -> u64 {
        const LINE: u64 = 64;
        match self {
            Source::Archive(archive) => 3 * archive.stored.head.length() + LINE * archive.items.len() as u64,
            Source::Script(..) => 0,
        }
    }

    fn items(&self) -> &[Item] {
        match self {
            Source::Archive(archive) => &archive.items,
            Source::Script(..) => &[],
        }
    }
}

impl Prepared {
    /// Whether anything of the target is removed before the backup's data is there.
    fn removes(&self, request: &RestoreRequest) -> bool {
        let replaces = |archive: &Archive| !archive.plan.drops.is_empty() || !archive.plan.large_objects.is_empty();
        match &self.source {
            Source::Archive(archive) if request.clean => self.target.exists && (request.create || replaces(archive)),
            _ => false,
        }
    }

    fn report(&self, job: &Job<'_>, request: &RestoreRequest, status: &'static str) -> RestoreReport {
        let mut report = RestoreReport {
            status,
            id: self.located.manifest.id.clone(),
            target: self.target.info.target(),
            store: self.located.store.url().to_owned(),
            manifest_sha256: hex::encode(self.located.manifest_sha256),
            signed_by: self.located.signed_by,
            created_database: request.create,
            jobs: job.settings.jobs,
            pg_restore: String::new(),
            tables: 0,
            rows: 0,
            large_objects: 0,
            bytes_read: 0,
            definitions: 0,
            finishing: 0,
            duration_seconds: 0.0,
            left_out: Vec::new(),
            steps: Vec::new(),
            warnings: self.warnings.clone(),
            compared: None,
        };
        if let Source::Archive(archive) = &self.source {
            report.pg_restore.clone_from(&archive.pg_restore.version);
            for index in archive.plan.blocks() {
                match archive.stored.promises[index].content {
                    BlockContent::Table { rows } => {
                        report.tables += 1;
                        report.rows += rows;
                    }
                    BlockContent::LargeObjects { count } => report.large_objects += count,
                }
            }
            report.bytes_read = archive.plan.stored_bytes();
            report.definitions = archive.plan.before.len();
            report.finishing = archive.plan.after.len();
            report.left_out.clone_from(&archive.plan.left_out);
        }
        report.left_out.extend(self.globals.iter().flat_map(globals::left_out));
        report.left_out.extend(self.lost.iter().cloned());
        report.compared = self.compared;
        report
    }

    /// What would be done, in words.
    fn planned(&self, job: &Job<'_>, request: &RestoreRequest) -> RestoreReport {
        let mut report = self.report(job, request, "planned");
        let name = self.target.name();
        let mut step = |text: String| report.steps.push(text);
        for statement in self.globals.iter().flat_map(GlobalsPlan::steps) {
            step(statement);
        }
        if request.create {
            if self.target.exists {
                step(format!("remove the database {name}"));
            }
            step(format!("make the database {name}"));
        }
        match &self.source {
            Source::Script(psql, _) => step(format!("run the script with psql {} in one transaction", psql.version)),
            Source::Archive(archive) => {
                let plan = &archive.plan;
                if let Some(work) = &archive.in_place {
                    report.steps.extend(work.steps(plan));
                    return report;
                }
                if self.removes(request) && !request.no_verify {
                    step("read the backup once and check it, before anything is removed".to_owned());
                }
                for statement in &plan.drops {
                    step(statement.clone());
                }
                if !plan.large_objects.is_empty() {
                    step(format!(
                        "remove those of {} large objects that are there",
                        plan.large_objects.len()
                    ));
                }
                if !plan.before.is_empty() {
                    step(format!("make {} definitions", plan.before.len()));
                }
                let processes = plan.loads.len();
                step(format!(
                    "load {} blocks of data, {} stored, in {processes} pg_restores, {} at once",
                    plan.blocks().count(),
                    human_bytes(plan.stored_bytes()),
                    job.settings.jobs.min(processes.max(1))
                ));
                if !plan.after.is_empty() {
                    step(format!(
                        "make {} indexes, constraints, triggers and grants",
                        plan.after.len()
                    ));
                }
                for tie in &archive.around.ties {
                    step(format!("put back {}", tie.what));
                }
            }
        }
        report
    }
}
