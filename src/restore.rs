//! `restore`: a backup, or some of its tables, from the store into a database, without a disk in
//! between. Read [`run`] as its table of contents: everything that can be known is found out
//! before anything is changed.

mod choice;
mod grants;
mod loading;
mod plan;
mod ready;
mod report;
mod script;
mod state;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::archive::{self, BlockContent, Item};
use crate::catalog::{self, Located};
use crate::command::RestoreRequest;
use crate::error::{Code, Error, Result};
use crate::manifest::role;
use crate::postgres::{Passfile, Psql, RestoreProgram};
use crate::private_folder::{PrivateFolder, sweep_stale};
use crate::progress::Observer;
use crate::secrets::Credentials;
use crate::settings::{Clock, Settings};
use crate::stop::Stop;
use crate::store::Store;
use crate::stored_archive::StoredArchive;
use loading::Loader;
use plan::{Plan, Without};
use ready::Target;
use state::{Stage, State};

pub use plan::LeftOut;
pub use report::RestoreReport;

/// What a restore works with.
pub struct Job<'a> {
    pub settings: &'a Settings,
    /// Into the database that is to be filled.
    pub target: &'a Credentials,
    pub stores: &'a [Arc<dyn Store>],
    /// Whose `latest` is meant, where something names it.
    pub database: Option<&'a str>,
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
        Err(error) => Err(state.tell(error)),
    }
}

/// Everything that is known before the first change.
struct Prepared {
    located: Located,
    source: Source,
    target: Target,
    warnings: Vec<String>,
}

enum Source {
    Archive(Box<Archive>),
    /// A plain dump, for psql.
    Script(Psql),
}

struct Archive {
    stored: Arc<StoredArchive>,
    items: Vec<Item>,
    plan: Plan,
    pg_restore: RestoreProgram,
}

async fn prepare(job: &Job<'_>, request: &RestoreRequest) -> Result<Prepared> {
    let postgres = &job.settings.postgres;
    sweep_stale(&postgres.temp, (job.clock)().into())?;
    job.observer.phase("looking at the backup");
    let located = job
        .stop
        .or_stop(catalog::find(job.stores, &request.backup, job.database))
        .await?;
    let mut warnings = located.warnings.clone();
    job.observer.phase("looking at the target");
    let target = job.stop.or_stop(ready::reach(job, request)).await?;
    let major = target.session.server().major;
    let manifest = &located.manifest;
    if manifest.files.contains_key(role::SQL) {
        let psql = Psql::find(major, postgres).await?;
        return Ok(Prepared {
            source: Source::Script(psql),
            located,
            target,
            warnings,
        });
    }
    let stored = job.stop.or_stop(StoredArchive::open(&*located.store, manifest)).await?;
    let items = archive::contents(&stored.head).map_err(|error| Error::new(Code::Integrity, error.to_string()))?;
    let version = stored.head.version;
    let pg_restore = RestoreProgram::find((version.major, version.minor), major, postgres).await?;
    let without = Without {
        owners: request.no_owner,
        grants: request.no_privileges,
        definitions: request.data_only,
    };
    let plan = plan::plan(&stored, &items, &plan::everything(&items), without);
    warnings.sort();
    Ok(Prepared {
        source: Source::Archive(Box::new(Archive {
            stored: Arc::new(stored),
            items,
            plan,
            pg_restore,
        })),
        located,
        target,
        warnings,
    })
}

async fn carry_out(
    job: &Job<'_>,
    request: &RestoreRequest,
    prepared: Prepared,
    state: &State,
) -> Result<RestoreReport> {
    let settings = &job.settings.postgres;
    let info = &prepared.target.info;
    let folder = PrivateFolder::create(&settings.temp)?;
    let passfile = Passfile::create(&settings.temp, info)?;
    match &prepared.source {
        Source::Script(psql) => {
            state.set(Stage::Running);
            let place = script::Place {
                psql,
                info,
                passfile: passfile.as_ref(),
                settings,
                stop: job.stop,
                observer: job.observer,
            };
            script::run(&place, &prepared.located.store, &prepared.located.manifest).await?;
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
            fill(job, archive, &loader, state).await?;
        }
    }
    Ok(prepared.report(job, request, "restored"))
}

/// The three steps of the plan.
async fn fill(job: &Job<'_>, archive: &Archive, loader: &Loader<'_>, state: &State) -> Result<()> {
    let plan = &archive.plan;
    let atomic = !archive.pg_restore.tolerates_transaction_timeout;
    state.set(Stage::Defining { atomic, cleaned: 0 });
    job.observer.phase("making the definitions");
    loader.definitions(&plan.before, atomic).await?;

    job.observer.phase("loading the data");
    job.observer.estimate(plan.stored_bytes());
    let loaded = Mutex::new(Vec::new());
    let result = loader.data(plan, job.settings.jobs, &loaded).await;
    let loaded = loaded.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.set(Stage::loading(&archive.stored, plan, &loaded));
    result?;

    state.set(Stage::Finishing);
    job.observer.phase("making indexes and constraints");
    loader.finish(&plan.after, job.settings.jobs).await
}

impl Prepared {
    fn report(&self, job: &Job<'_>, request: &RestoreRequest, status: &'static str) -> RestoreReport {
        let mut report = RestoreReport {
            status,
            id: self.located.manifest.id.clone(),
            target: self.target.info.target(),
            store: self.located.store.url().to_owned(),
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
        report
    }

    fn planned(&self, job: &Job<'_>, request: &RestoreRequest) -> RestoreReport {
        self.report(job, request, "planned")
    }
}
