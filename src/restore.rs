//! `restore`: a backup, or some of its tables, from the store into a database, without a disk in
//! between. Read [`run`] as its table of contents: everything that can be known is found out
//! before anything is changed.

mod allowed;
mod around;
mod choice;
pub(crate) mod database;
mod exclusion;
pub(crate) mod globals;
mod grants;
mod in_place;
mod loading;
mod order;
mod parts;
mod plan;
mod queue;
mod ready;
mod report;
pub(crate) mod script;
mod state;
mod tables;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::archive::{self, BlockContent, Item};
use crate::catalog::{self, Demand, Located};
use crate::command::RestoreRequest;
use crate::error::{Code, Error, Result};
use crate::manifest::role;
use crate::postgres::{self, GlobalsPlan, Passfile, Powers, Psql, Removal, RestoreProgram};
use crate::private_folder::{PrivateFolder, answering, sweep_stale};
use crate::progress::Observer;
use crate::quantity::{count, human_bytes};
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
    warnings: Vec<String>,
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
    if let Source::Archive(archive) = &source {
        warnings.extend(archive.warnings.iter().cloned());
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
    let left = exclusion::exclusion(request, &items, &target.session);
    let left = job.stop.or_stop(left).await?;
    let mut plan = if request.tables.is_empty() {
        let mut plan = whole(&stored, &items, &left.entries, request, job.settings.jobs);
        if !request.create {
            plan.left_out = target.settings_that_stay_away(&items);
        }
        plan
    } else {
        let tables = tables::plan(job, target, &located.manifest, &stored, &items, &left.entries, request);
        job.stop.or_stop(tables).await?
    };
    plan.left_out.extend(left.left_out);
    let settled = allowed::settle(target, &items, &mut plan, request);
    let warnings = job.stop.or_stop(settled).await?;
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
        warnings,
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

fn whole(
    stored: &StoredArchive,
    items: &[Item],
    excluded: &HashSet<i64>,
    request: &RestoreRequest,
    jobs: usize,
) -> Plan {
    let mut everything = plan::everything(items);
    everything.retain(|id| !excluded.contains(id));
    let mut plan = plan::plan(stored, items, &everything, without(request), jobs);
    if request.clean && !request.create {
        plan.drops = plan::drops(items, &everything);
        plan.large_objects = plan::large_objects(items, &everything);
    }
    plan.part_events(items);
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
        let owners = match &prepared.source {
            Source::Archive(archive) => Some(archive.plan.owners.clone()),
            Source::Script(..) => None,
        };
        let notes = globals::apply(&prepared.target, globals, owners.as_ref());
        let notes = job.stop.or_stop(notes).await?;
        prepared.warnings.extend(notes);
    }
    if request.create {
        job.observer.phase("making the database");
        let making = make(&prepared.target, prepared.source.items(), request, state);
        let notes = job.stop.or_stop(making).await?;
        prepared.warnings.extend(notes);
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
                    let filling = in_place::run(job, archive, store, &prepared.target, work, state);
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

/// The database with the settings under which its data was written: what cannot be set is told.
async fn make(target: &Target, items: &[Item], request: &RestoreRequest, state: &State) -> Result<Vec<String>> {
    let name = target.name();
    let creation = |name: &str| match database::creation(items, name) {
        creation if request.no_tablespaces => database::without_tablespace(&creation),
        creation => creation,
    };
    if target.exists && request.clean {
        let beside = database::beside(name);
        // A server that cannot make it, for want of a locale or a tablespace, keeps the one that it has.
        state.set(Stage::Making {
            database: Some(beside.clone()),
        });
        let created = target.session.execute(&creation(&beside)).await;
        if created.as_ref().is_err_and(|error| error.code() != Code::ConnErr) {
            state.set(Stage::Untouched);
        }
        created?;
        let replaced = replace(target, &beside, request, state).await;
        if replaced.is_err() {
            let unused = format!("DROP DATABASE {}", postgres::quoting::identifier(&beside));
            drop(target.session.execute(&unused).await);
        }
        replaced?;
    } else {
        state.set(Stage::Making {
            database: Some(name.to_owned()),
        });
        target.session.execute(&creation(name)).await?;
    }
    state.made();
    if !target.found.is_superuser && !request.no_privileges {
        for grant in database::grants(items, name) {
            // They are made once more at the end, and what fails then is told.
            drop(target.session.execute(&grant).await);
        }
    }
    let mut notes = Vec::new();
    for statement in database::properties(items, name, false).settings {
        match target.session.execute(&statement).await {
            Err(error) if error.code() == Code::ConnErr => return Err(error),
            done => notes.extend(note(statement, done)),
        }
    }
    Ok(notes)
}

/// Puts the new database into the place of the old one.
async fn replace(target: &Target, beside: &str, request: &RestoreRequest, state: &State) -> Result<()> {
    let (session, name) = (&target.session, target.name());
    let quoted = postgres::quoting::identifier(name);
    let template = |is: bool| format!("ALTER DATABASE {quoted} WITH IS_TEMPLATE {is}");
    if target.is_template {
        session.execute(&template(false)).await?;
    }
    state.set(Stage::Removing {
        database: name.to_owned(),
    });
    let force = if request.force { " WITH (FORCE)" } else { "" };
    let removed = session.execute(&format!("DROP DATABASE {quoted}{force}")).await;
    if removed.as_ref().is_err_and(|error| error.code() != Code::ConnErr) {
        // The server's own refusal.
        state.set(Stage::Untouched);
        if target.is_template {
            session.execute(&template(true)).await?;
        }
    }
    removed?;
    let renaming = format!(
        "ALTER DATABASE {} RENAME TO {quoted}",
        postgres::quoting::identifier(beside)
    );
    session.execute(&renaming).await
}

/// What is told of a statement that was refused: not the value of a setting.
fn note(statement: String, done: Result<()>) -> Option<String> {
    let error = done.err()?;
    let told = match database::setting(&statement) {
        Some(setting) => format!("the database's setting {setting} could not be made"),
        None => statement,
    };
    Some(format!("{told}: {}", error.message()))
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
    let properties = database::properties(items, name, !request.no_privileges).others;
    let mut notes = Vec::new();
    for statement in owner.into_iter().chain(properties) {
        let done = target.session.execute(&statement).await;
        notes.extend(note(statement, done));
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
        for tie in &archive.around.ties {
            tracing::info!("to be put back: {}", tie.statement);
        }
        let removal = Removal {
            statements: &plan.drops,
            large_objects: &plan.large_objects,
            tables: &archive.around.tables,
            beside: &archive.around.beside,
            wait: job.settings.postgres.lock_wait,
        };
        let removing = target.session.remove(&removal);
        cleaned = job.stop.or_stop(removing).await?;
        state.remind(archive.around.reminder());
    }
    let atomic = !archive.pg_restore.tolerates_transaction_timeout && target.fits_one_transaction(plan);
    state.set(Stage::Defining { atomic, cleaned });
    job.observer.phase("making the definitions");
    if !plan.ground.is_empty() {
        state.set(Stage::Defining { atomic: false, cleaned });
        loader.finish("ground", &plan.ground, 1).await?;
    }
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
    let wait = job.settings.postgres.lock_wait;
    let tying = async { Ok(archive.around.tie(target, wait).await) };
    let lost = job.stop.or_stop(tying).await?;
    // They run at every change of a definition, whoever makes it: nothing is made after them.
    loader.finish("events", &plan.events, 1).await?;
    Ok(lost)
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
            already_there: Vec::new(),
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
            report.definitions = archive.plan.ground.len() + archive.plan.before.len();
            report.finishing = archive.plan.after.len();
            report.left_out.clone_from(&archive.plan.left_out);
            report.already_there.clone_from(&archive.plan.already_there);
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
                        "remove those of {} that are there",
                        count(plan.large_objects.len(), "large object")
                    ));
                }
                if plan.ground.len() + plan.before.len() > 0 {
                    step(format!(
                        "make {}",
                        count(plan.ground.len() + plan.before.len(), "definition")
                    ));
                }
                let processes = plan.loads.len();
                step(format!(
                    "load {} of data, {} stored, in {}, {} at once",
                    count(plan.blocks().count(), "block"),
                    human_bytes(plan.stored_bytes()),
                    count(processes, "pg_restore"),
                    job.settings.jobs.min(processes.max(1))
                ));
                if !plan.after.is_empty() {
                    step(format!(
                        "make {} that come last: indexes, constraints, triggers, grants",
                        count(plan.after.len(), "definition")
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
