//! Everything about a restore that is known before the first change.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::around::{self, Surroundings};
use super::failed::Failed;
use super::in_place::{self, InPlace};
use super::into::{self, Copies};
use super::plan::{self, LeftOut, Plan, Without};
use super::ready::{self, Target};
use super::report::RestoreReport;
use super::rows::{self, Backup};
use super::{Job, allowed, asked, database, exclusion, globals, inhabited, renewing, replacing, script, tables};
use crate::error::{Code, Error, Result};
use crate::format::archive::{self, BlockContent, Entry, Item, Texts};
use crate::job::restore::RestoreRequest;
use crate::postgres::{GlobalsPlan, Powers, Psql, RestoreProgram};
use crate::repository::catalog::{self, Demand, Located};
use crate::repository::manifest::role;
use crate::repository::stored_archive::StoredArchive;
use crate::run::private_folder::{answering, sweep_stale};
use crate::store::Store;
use crate::units::{count, human_bytes};

/// Said before, not after: then it has happened.
const SUPERUSER: &str = "the target's role is a superuser, and so is every function that the restore evaluates \
                         (checks, defaults, index expressions, materialized views): whoever owned one in the source may do \
                         anything to this server; restore as a role that is none where you can";

/// Everything that is known before the first change.
pub(super) struct Prepared {
    pub located: Located,
    pub source: Source,
    pub target: Target,
    pub globals: Option<GlobalsPlan>,
    pub warnings: Vec<String>,
    /// That one of them which has been said already.
    pub said: Option<String>,
    /// What pointed at replaced tables, and could not be put back.
    pub lost: Vec<LeftOut>,
    /// How many tables hold what the backup holds.
    pub compared: Option<usize>,
    /// How many rows went with what was emptied.
    pub rows_replaced: Option<u64>,
    /// What was to be compared, and could not be.
    pub not_proved: Vec<LeftOut>,
    /// What could not be made or loaded.
    pub failed: Vec<Failed>,
}

pub(super) enum Source {
    Archive(Box<Archive>),
    /// A plain dump, for psql.
    Script(Psql, Arc<script::Checked>),
}

pub(super) struct Archive {
    pub stored: Arc<StoredArchive>,
    pub items: Vec<Item>,
    pub plan: Plan,
    pub pg_restore: RestoreProgram,
    /// What points at tables that are replaced.
    pub around: Surroundings,
    /// For rows that are put back into tables that are there.
    pub in_place: Option<InPlace>,
    /// For tables that are made beside those that are there.
    pub into: Option<Copies>,
    /// Whether all of it is one transaction.
    pub together: bool,
    pub warnings: Vec<String>,
}

pub(super) async fn prepare(job: &Job<'_>, request: &RestoreRequest) -> Result<Prepared> {
    asked::check(request, job.settings.jobs)?;
    into::check(request)?;
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
        asked::check_script(request)?;
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
        let plan = job.stop.or_stop(plan).await?;
        if let Source::Archive(archive) = &source {
            globals::check(&target, &plan, &archive.plan.roles)?;
        }
        Some(plan)
    } else {
        None
    };
    let mut warnings = located.warnings.clone();
    let mut said = None;
    if target.found.is_superuser {
        let mut warning = SUPERUSER.to_owned();
        if let Source::Archive(archive) = &source
            && let Some(work) = &archive.in_place
            && !work.strangers().is_empty()
        {
            let owners: Vec<&str> = work.strangers().iter().map(String::as_str).collect();
            let of_target = format!(
                "; so may the owners of the target's tables that rows go into, by what these evaluate: {}",
                owners.join(", ")
            );
            warning.push_str(&of_target);
        }
        // A dry run changes nothing, and its report says it.
        if !request.dry_run {
            tracing::warn!("{warning}");
            said = Some(warning.clone());
        }
        warnings.push(warning);
    }
    if let Some(collations) = &manifest.collations {
        let sorting = async { Ok(target.session.sorts_otherwise(collations).await) };
        if let Some(warning) = job.stop.or_stop(sorting).await? {
            tracing::warn!("{warning}");
            warnings.push(warning);
        }
    }
    if let Source::Archive(archive) = &source {
        warnings.extend(archive.warnings.iter().cloned());
    }
    Ok(Prepared {
        warnings,
        said,
        located,
        source,
        target,
        globals,
        lost: Vec::new(),
        compared: None,
        rows_replaced: None,
        not_proved: Vec::new(),
        failed: Vec::new(),
    })
}

/// The archive, held against its manifest, and the plan for it, held against the target.
async fn archive(job: &Job<'_>, request: &RestoreRequest, located: &Located, target: &Target) -> Result<Archive> {
    let stored = StoredArchive::open(&*located.store, &located.manifest);
    let mut stored = job.stop.or_stop(stored).await?;
    job.stop.or_stop(check_object(&*located.store, &stored)).await?;
    let known = job.stop.or_stop(texts(target, &stored)).await?;
    stored.head = stored.head.with_texts(Arc::new(known))?;
    let items = archive::contents(&stored.head).map_err(|error| Error::new(Code::Integrity, error.to_string()))?;
    let version = (stored.head.version.major, stored.head.version.minor);
    let major = target.session.server().major;
    let pg_restore = RestoreProgram::find(version, major, &job.settings.postgres).await?;
    let left = exclusion::exclusion(request, &items, &target.session);
    let left = job.stop.or_stop(left).await?;
    if request.into.is_some() {
        let backup = located.manifest.id.to_string();
        let copies = into::prepare(target, &backup, &stored, &items, &left.entries, request);
        let (copies, plan, warnings) = job.stop.or_stop(copies).await?;
        return Ok(Archive {
            stored: Arc::new(stored),
            items,
            plan,
            pg_restore,
            around: Surroundings::default(),
            in_place: None,
            into: Some(copies),
            together: false,
            warnings,
        });
    }
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
    if request.clean && request.tables.is_empty() && !request.create && !request.data_only {
        let standing = async {
            allowed::keep_extensions(target, &items, &mut plan).await?;
            inhabited::stay(target, &items, &mut plan).await
        };
        job.stop.or_stop(standing).await?;
    }
    let settled = allowed::settle(target, &items, &mut plan, request);
    let mut warnings = job.stop.or_stop(settled).await?;
    let given = allowed::given_of_new(target, request);
    warnings.extend(job.stop.or_stop(given).await?);
    target.check_plan(&plan, request)?;
    if !request.keep_going && !request.create && !request.data_only {
        job.stop.or_stop(renewing::check_names(target, &items, &plan)).await?;
    }
    let around = if request.clean && !request.create && !request.data_only {
        let survey = around::survey(target, &items, &plan, request);
        job.stop.or_stop(survey).await?
    } else {
        Surroundings::default()
    };
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
    let together = replacing::decide(request, (&plan, &stored), target, &located.manifest, job.settings.jobs)?;
    Ok(Archive {
        stored: Arc::new(stored),
        items,
        plan,
        pg_restore,
        around,
        in_place,
        into: None,
        together,
        warnings,
    })
}

/// Names and definitions in another encoding than UTF-8, as the target's server reads them: it knows all encodings.
async fn texts(target: &Target, stored: &StoredArchive) -> Result<Texts> {
    let foreign: Vec<Vec<u8>> = stored.head.foreign_texts()?.into_iter().collect();
    if foreign.is_empty() {
        return Ok(Texts::new());
    }
    let encoding = rows::encoding(&archive::contents(&stored.head)?);
    let read = target.session.texts_of(&encoding, &foreign).await?;
    let known = foreign.into_iter().zip(read);
    Ok(known.filter_map(|(bytes, text)| Some((bytes, text?))).collect())
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
    plan.kept.clone_from(excluded);
    if request.clean && !request.create {
        (plan.drops, plan.partings) = plan::drops(items, &everything);
        plan.large_objects = plan::large_objects(items, &everything);
    }
    plan.part_events(items);
    plan
}

pub(super) fn without(request: &RestoreRequest) -> Without {
    Without {
        owners: request.no_owner,
        grants: request.no_privileges,
        definitions: request.data_only,
        parts: request.keep_going,
    }
}

impl Archive {
    /// Who will own something: also the database, where this run makes it.
    pub fn owners(&self, request: &RestoreRequest) -> BTreeSet<String> {
        let mut owners = self.plan.owners.clone();
        if request.create && !request.no_owner {
            owners.extend(database::owner(&self.items).map(str::to_owned));
        }
        owners
    }

    /// The backup's that are neither in the plan nor in the target.
    pub fn extensions_that_stay_away(&self, target: &Target) -> Vec<String> {
        let names = self.items.iter().filter(|item| item.entry.desc == "EXTENSION");
        let names = names.map(|item| &item.entry.tag).filter(|name| {
            !self.plan.extensions.contains(*name) && !target.found.extensions.get(*name).copied().unwrap_or_default()
        });
        names.cloned().collect()
    }

    pub fn backup<'a>(&'a self, store: &'a Arc<dyn Store>) -> Backup<'a> {
        Backup {
            store,
            stored: &self.stored,
            items: &self.items,
            plan: &self.plan,
        }
    }
}

impl Source {
    /// About what pg_restore's small files will take in TMPDIR: lists of entries, and the archive's head
    /// for the steps that do several things at once.
    pub fn written_here(&self) -> u64 {
        const LINE: u64 = 64;
        match self {
            Source::Archive(archive) => 3 * archive.stored.head.length() + LINE * archive.items.len() as u64,
            Source::Script(..) => 0,
        }
    }

    pub fn items(&self) -> &[Item] {
        match self {
            Source::Archive(archive) => &archive.items,
            Source::Script(..) => &[],
        }
    }
}

impl Prepared {
    /// Whether anything of the target is removed before the backup's data is there.
    pub fn removes(&self, request: &RestoreRequest) -> bool {
        let replaces = |archive: &Archive| !archive.plan.drops.is_empty() || !archive.plan.large_objects.is_empty();
        match &self.source {
            Source::Archive(archive) if request.clean => self.target.exists && (request.create || replaces(archive)),
            _ => false,
        }
    }

    pub fn report(&self, job: &Job<'_>, request: &RestoreRequest, status: &'static str) -> RestoreReport {
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
            copies: Vec::new(),
            steps: Vec::new(),
            warnings: self.warnings.clone(),
            said: self.said.clone(),
            compared: self.compared,
            rows_replaced: self.rows_replaced,
            not_proved: self.not_proved.clone(),
            failed: self.failed.clone(),
        };
        if let Source::Archive(archive) = &self.source {
            report.pg_restore.clone_from(&archive.pg_restore.version);
            let names: HashSet<(&str, &str)> = self
                .failed
                .iter()
                .map(|one| (one.kind.as_str(), one.name.as_str()))
                .collect();
            let lost = |entry: &Entry| names.contains(&(entry.desc.as_str(), entry.name().as_str()));
            for index in archive.plan.blocks() {
                match archive.stored.promises[index].content {
                    _ if lost(&archive.stored.head.data[index]) => {}
                    BlockContent::Table { rows } => {
                        report.tables += 1;
                        report.rows += rows;
                    }
                    BlockContent::LargeObjects { count } => report.large_objects += count,
                }
            }
            report.bytes_read = archive.plan.stored_bytes();
            let made = |list: &[i64]| {
                let made = archive.items.iter().filter(|item| list.contains(&item.entry.dump_id));
                made.filter(|item| !lost(&item.entry)).count()
            };
            report.definitions = made(&archive.plan.ground) + made(&archive.plan.before);
            report.finishing = made(&archive.plan.after);
            report.left_out.clone_from(&archive.plan.left_out);
            report.already_there.clone_from(&archive.plan.already_there);
            if let Some(work) = &archive.into {
                report.copies = work.report();
                report.tables = report.copies.len();
            }
        }
        report.left_out.extend(self.globals.iter().flat_map(globals::left_out));
        report.left_out.extend(self.lost.iter().cloned());
        report
    }

    /// What would be done, in words.
    pub fn planned(&self, job: &Job<'_>, request: &RestoreRequest) -> RestoreReport {
        let mut report = self.report(job, request, "planned");
        let name = self.target.name();
        let mut step = |text: String| report.steps.push(text);
        if let Some(globals) = &self.globals {
            let owners = match &self.source {
                Source::Archive(archive) => Some(archive.owners(request)),
                Source::Script(..) => None,
            };
            globals::steps(&self.target, globals, owners.as_ref())
                .into_iter()
                .for_each(&mut step);
        }
        let replaces = request.create && self.target.exists;
        let replacing = || format!("remove the database {name}, and put the new one into its place");
        match replaces {
            true => step(format!("make a new database beside {name}")),
            false if request.create => step(format!("make the database {name}")),
            false => {}
        }
        match &self.source {
            Source::Script(psql, _) => {
                step(format!("run the script with psql {} in one transaction", psql.version));
                if replaces {
                    step(replacing());
                }
            }
            Source::Archive(archive) => {
                let plan = &archive.plan;
                if let Some(work) = &archive.into {
                    report.steps.extend(work.steps());
                    return report;
                }
                if let Some(work) = &archive.in_place {
                    report.steps.extend(work.steps(plan));
                    return report;
                }
                if self.removes(request) && !request.no_verify {
                    step("read the backup once and check it, before anything is removed".to_owned());
                }
                for statement in archive.around.loosen.iter().chain(&plan.drops) {
                    step(statement.clone());
                }
                if !plan.large_objects.is_empty() {
                    step(format!(
                        "remove those of {} that are there",
                        count(plan.large_objects.len(), "large object")
                    ));
                }
                if replaces && request.keep_going {
                    step(replacing());
                }
                if plan.ground.len() + plan.before.len() > 0 {
                    step(format!(
                        "make {}",
                        count(plan.ground.len() + plan.before.len(), "definition")
                    ));
                }
                if replaces && !request.keep_going {
                    step(replacing());
                }
                let together = archive.together;
                let processes = plan.loads.len();
                step(format!(
                    "load {} of data, {} stored{}",
                    count(plan.blocks().count(), "block"),
                    human_bytes(plan.stored_bytes()),
                    match together {
                        true => String::new(),
                        false => format!(
                            ", in {}, {} at once",
                            count(processes, "pg_restore"),
                            job.settings.jobs.min(processes.max(1))
                        ),
                    }
                ));
                if !plan.after.is_empty() {
                    step(format!(
                        "make {} last of all: indexes, constraints, triggers, grants",
                        count(plan.after.len(), "definition")
                    ));
                }
                for tie in &archive.around.ties {
                    step(format!("put back {}", tie.what));
                }
                if together {
                    step("commit: until then everything is as it was".to_owned());
                }
                if request.compares() {
                    step("read the tables again and compare them with the backup".to_owned());
                }
            }
        }
        report
    }
}
