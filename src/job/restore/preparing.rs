//! Compares a restore with the backup and the target, before anything is changed.

use std::collections::HashSet;
use std::sync::Arc;

use super::around::{self, Surroundings};
use super::denied::DeniedSetting;
use super::exclusion::Exclusion;
use super::plan::{self, Plan};
use super::prepared::{BackupData, Prepared, PreparedArchive};
use super::ready::{self, Target};
use super::tables::Basis;
use super::{
    Job, allowed, asked, denied, exclusion, globals, in_place, inhabited, into, renewing, replacing, rows, script,
    tables,
};
use crate::error::{Code, Error, Result};
use crate::format::archive::{self, Item, Texts};
use crate::job::moment::{self, MomentReport, Way};
use crate::job::restore::RestoreRequest;
use crate::postgres::{GlobalsPlan, Powers, RestoreProgram};
use crate::repository::catalog::{self, Demand, Located};
use crate::repository::manifest::{Manifest, role};
use crate::repository::stored_archive::StoredArchive;
use crate::run::private_folder::{answering, sweep_stale};
use crate::store::Store;

/// Warned about before the restore: afterwards it has already happened.
const SUPERUSER: &str = "the target's role is a superuser, and the restore evaluates functions with its rights \
                         (checks, defaults, index expressions, materialized views): the owner of such a function in \
                         the source can do anything to this server; if you can, restore as a role that is not a \
                         superuser";

/// For a dry run by a role that may make no extensions in the database in which it asks.
const OPEN_MEMBERS: &str = "grants on members of the extensions that are left out are left out too; only the new \
                            database will show which grants these are";

pub(super) async fn prepare(job: &Job<'_>, request: &RestoreRequest) -> Result<Prepared> {
    asked::check(request, job.settings.jobs)?;
    into::check(request)?;
    let postgres = &job.settings.postgres;
    job.stop.or_stop(answering(&postgres.temp, sweep_stale)).await?;
    job.observer.phase("looking at the backup");
    let (located, way) = locate(job, request).await?;
    job.observer.phase("looking at the target");
    let mut target = job.stop.or_stop(ready::reach(job, request)).await?;
    target.check(&located.manifest, request)?;
    let preparing = Preparing {
        job,
        request,
        located: &located,
        target: &target,
    };
    let source = preparing.source(way).await?;
    denied::add_to(&mut target.info, source.denied());
    let globals = match request.globals {
        true => Some(roles(job, request, &located, &target, &source).await?),
        false => None,
    };
    let mut warnings = located.warnings.clone();
    let mut said = None;
    if target.found.is_superuser {
        let warning = of_superuser(&source);
        // A dry run changes nothing, and has this in its report.
        if !request.dry_run {
            tracing::warn!("{warning}");
            said = Some(warning.clone());
        }
        warnings.push(warning);
    }
    if let Some(collations) = &located.manifest.collations {
        let sorting = async { Ok(target.session.sorts_otherwise(collations).await) };
        if let Some(warning) = job.stop.or_stop(sorting).await? {
            tracing::warn!("{warning}");
            warnings.push(warning);
        }
    }
    if let BackupData::Archive(archive) = &source {
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

/// The backup that is restored; for a moment, the base and the way from there.
async fn locate(job: &Job<'_>, request: &RestoreRequest) -> Result<(Located, Option<Way>)> {
    let demand = Demand {
        trust: job.trust,
        manifest: request.expect_manifest,
        now: (job.clock)(),
        altered: false,
    };
    match &request.moment {
        Some(asked) => {
            let way = moment::find(job.stores, &request.backup, job.database, asked.target, &demand);
            let (located, way) = job.stop.or_stop(way).await?;
            Ok((located, Some(way)))
        }
        None => {
            let located = catalog::find(job.stores, &request.backup, job.database, &demand);
            Ok((job.stop.or_stop(located).await?, None))
        }
    }
}

/// The plan for the roles and grants of the backup.
async fn roles(
    job: &Job<'_>,
    request: &RestoreRequest,
    located: &Located,
    target: &Target,
    source: &BackupData,
) -> Result<GlobalsPlan> {
    let sql = job
        .stop
        .or_stop(globals::read(&*located.store, &located.manifest))
        .await?;
    let trust = if request.globals_privileged {
        Powers::Privileged
    } else {
        Powers::Roles
    };
    let plan = globals::plan(&target.session, &sql, trust);
    let plan = job.stop.or_stop(plan).await?;
    if let BackupData::Archive(archive) = source {
        globals::check(target, &plan, &archive.plan.roles)?;
    }
    Ok(plan)
}

fn of_superuser(source: &BackupData) -> String {
    let mut warning = SUPERUSER.to_owned();
    if let BackupData::Archive(archive) = source
        && let Some(work) = &archive.in_place
        && !work.strangers().is_empty()
    {
        let owners: Vec<&str> = work.strangers().iter().map(String::as_str).collect();
        let of_target = format!(
            "; so can the owners of the target's tables that rows go into, with the code that these tables evaluate: {}",
            owners.join(", ")
        );
        warning.push_str(&of_target);
    }
    warning
}

/// An archive that was compared with its manifest and has no plan yet.
struct Unplanned {
    stored: StoredArchive,
    items: Vec<Item>,
    pg_restore: RestoreProgram,
    /// The moment to which its rows are brought.
    at: Option<moment::Prepared>,
    left: Exclusion,
}

impl Unplanned {
    fn basis<'a>(&'a self, target: &'a Target, manifest: &'a Manifest, request: &'a RestoreRequest) -> Basis<'a> {
        Basis {
            target,
            manifest,
            stored: &self.stored,
            items: &self.items,
            excluded: &self.left.entries,
            request,
        }
    }
}

/// A restore, and what is known before its plan is made.
struct Preparing<'a> {
    job: &'a Job<'a>,
    request: &'a RestoreRequest,
    located: &'a Located,
    target: &'a Target,
}

impl Preparing<'_> {
    async fn source(&self, way: Option<Way>) -> Result<BackupData> {
        let Self { job, located, .. } = *self;
        let manifest = &located.manifest;
        if !manifest.files.contains_key(role::SQL) {
            let archive = self.archive(way).await?;
            return Ok(BackupData::Archive(Box::new(archive)));
        }
        asked::check_script(self.request)?;
        let psql = script::psql(self.target, self.request, &job.settings.postgres).await?;
        job.observer.phase("checking the script");
        let checked = script::check(&located.store, manifest, job.observer, ());
        let (checked, ()) = job.stop.or_stop(checked).await?;
        Ok(BackupData::Script(psql, Arc::new(checked)))
    }

    /// The archive, checked against its manifest, and its plan, checked against the target.
    async fn archive(&self, way: Option<Way>) -> Result<PreparedArchive> {
        let opened = self.open(way).await?;
        match self.request.into {
            Some(_) => self.beside(opened).await,
            None => self.planned(opened).await,
        }
    }

    async fn open(&self, way: Option<Way>) -> Result<Unplanned> {
        let Self {
            job,
            request,
            located,
            target,
        } = *self;
        let stored = StoredArchive::open(&*located.store, &located.manifest);
        let mut stored = job.stop.or_stop(stored).await?;
        job.stop.or_stop(check_object(&*located.store, &stored)).await?;
        let mut at = None;
        if let Some(way) = way {
            let memory = moment::memory(job.settings.task_memory, &job.settings.postgres.temp);
            let composed = moment::prepare(located, way, stored, &memory);
            let (prepared, archive) = job.stop.or_stop(composed).await?;
            (at, stored) = (Some(prepared), archive);
        }
        let known = job.stop.or_stop(texts(target, &stored)).await?;
        stored.head = stored.head.with_texts(Arc::new(known))?;
        let items = contents(&stored)?;
        let version = (stored.head.version.major, stored.head.version.minor);
        let major = target.session.server().major;
        let pg_restore = RestoreProgram::find(version, major, &job.settings.postgres).await?;
        let left = exclusion::exclusion(request, &items, &target.session);
        let left = job.stop.or_stop(left).await?;
        Ok(Unplanned {
            stored,
            items,
            pg_restore,
            at,
            left,
        })
    }

    /// Copies of tables beside the existing ones.
    async fn beside(&self, opened: Unplanned) -> Result<PreparedArchive> {
        let Self {
            job,
            request,
            located,
            target,
        } = *self;
        let preparing = into::prepare(opened.basis(target, &located.manifest, request));
        let (copies, plan, warnings) = job.stop.or_stop(preparing).await?;
        let Unplanned {
            mut stored,
            mut items,
            pg_restore,
            at,
            ..
        } = opened;
        let moment = self.bring_forward(at, (&mut stored, &mut items), &plan).await?;
        Ok(PreparedArchive {
            stored: Arc::new(stored),
            items,
            plan,
            pg_restore,
            around: Surroundings::default(),
            in_place: None,
            into: Some(copies),
            together: false,
            moment,
            open_members: None,
            denied: Vec::new(),
            warnings,
        })
    }

    async fn planned(&self, opened: Unplanned) -> Result<PreparedArchive> {
        let Self {
            job,
            request,
            located,
            target,
        } = *self;
        let basis = opened.basis(target, &located.manifest, request);
        let (mut plan, denied) = plan_of(job, basis, &opened.left).await?;
        let Unplanned {
            mut stored,
            mut items,
            pg_restore,
            at,
            left,
        } = opened;
        let open_members = (left.has_open_members && request.create).then_some(left.entries);
        let settled = allowed::settle(target, &items, &mut plan, (request, &job.settings.postgres));
        let mut warnings = job.stop.or_stop(settled).await?;
        // Objects that stay as they are in the target need nothing there.
        plan.demand(&items, request.without());
        if open_members.is_some() && request.dry_run {
            warnings.push(OPEN_MEMBERS.to_owned());
        }
        let given = allowed::given_of_new(target, request);
        warnings.extend(job.stop.or_stop(given).await?);
        target.check_plan(&plan, request)?;
        if !request.keep_going && !request.create && !request.data_only {
            job.stop.or_stop(renewing::check_names(target, &items, &plan)).await?;
        }
        let mut around = Surroundings::default();
        if request.clean && !request.create && !request.data_only {
            let survey = around::survey(target, &items, &plan, request);
            around = job.stop.or_stop(survey).await?;
        }
        plan.left_out.extend(around.left_out.iter().cloned());
        if let Some(warning) = around.warning() {
            tracing::warn!("{warning}");
            warnings.push(warning);
        }
        if !plan.copies.is_empty() {
            stored.head = stored.head.with_copy_statements(&plan.copies)?;
        }
        let mut in_place = None;
        if request.data_only {
            let preparing = in_place::prepare(target, &stored, &plan, request);
            in_place = Some(job.stop.or_stop(preparing).await?);
        }
        if let Some(at) = at.as_ref().filter(|_| !request.tables.is_empty()) {
            warnings.extend(at.warnings(&sequences(&items, &plan)));
        }
        let moment = self.bring_forward(at, (&mut stored, &mut items), &plan).await?;
        let together = replacing::decide(request, (&plan, &stored), target, &located.manifest, job.settings.jobs)?;
        Ok(PreparedArchive {
            stored: Arc::new(stored),
            items,
            plan,
            pg_restore,
            around,
            in_place,
            into: None,
            together,
            moment,
            open_members,
            denied,
            warnings,
        })
    }

    /// Reads the changes of the tables that are restored, and joins them with the archive. Refuses what cannot be had
    /// exactly, unless the user allows it.
    async fn bring_forward(
        &self,
        at: Option<moment::Prepared>,
        (stored, items): (&mut StoredArchive, &mut Vec<Item>),
        plan: &Plan,
    ) -> Result<Option<MomentReport>> {
        let Self { job, request, .. } = *self;
        let Some(mut at) = at else { return Ok(None) };
        let whole = request.tables.is_empty();
        let mut blocks: Vec<usize> = plan.blocks().collect();
        blocks.sort_unstable();
        blocks.dedup();
        let mut report = at.report(at.not_exact(stored, &blocks, whole));
        if let Some(asked) = &request.moment {
            report.target.clone_from(&asked.read_as);
        }
        let refuse = |report: &MomentReport| {
            let refused = !report.not_exact.is_empty() && !request.allow_partial && !request.dry_run;
            if refused {
                Err(moment::not_covered(report, whole))
            } else {
                Ok(())
            }
        };
        refuse(&report)?;
        if request.dry_run {
            return Ok(Some(report));
        }
        job.observer.phase("reading the changes");
        let memory = moment::memory(job.settings.task_memory, &job.settings.postgres.temp);
        let reading = at.bring_forward(stored, &blocks, &memory, &mut report);
        job.stop.or_stop(reading).await?;
        refuse(&report)?;
        if request.allow_partial {
            at.without_checks(stored)?;
            *items = contents(stored)?;
        }
        Ok(Some(report))
    }
}

fn contents(stored: &StoredArchive) -> Result<Vec<Item>> {
    archive::contents(&stored.head).map_err(|error| Error::new(Code::Integrity, error.to_string()))
}

/// The sequences whose positions are restored: schema and name.
fn sequences(items: &[Item], plan: &Plan) -> HashSet<(String, String)> {
    let set = items.iter().filter(|item| item.entry.desc == "SEQUENCE SET");
    let restored: HashSet<i64> = plan.entries().collect();
    set.filter(|item| restored.contains(&item.entry.dump_id))
        .map(|item| (item.entry.namespace.clone().unwrap_or_default(), item.entry.tag.clone()))
        .collect()
}

/// What the restore does to the target, and the settings that the new database cannot have.
async fn plan_of(job: &Job<'_>, basis: Basis<'_>, left: &Exclusion) -> Result<(Plan, Vec<DeniedSetting>)> {
    let Basis {
        target, items, request, ..
    } = basis;
    let mut plan = if request.tables.is_empty() {
        let mut plan = whole(basis, job.settings.jobs);
        if !request.create {
            plan.left_out = target.settings_that_stay_away(items);
        }
        plan
    } else {
        job.stop.or_stop(tables::plan(basis, job.settings.jobs)).await?
    };
    plan.left_out.extend(left.left_out.iter().cloned());
    let denied = job.stop.or_stop(denied::find(target, items, request)).await?;
    plan.left_out
        .extend(denied.iter().map(|one| one.left_out(target.name())));
    if request.clean && request.tables.is_empty() && !request.create && !request.data_only {
        let standing = async {
            allowed::keep_extensions(target, items, &mut plan).await?;
            inhabited::stay(target, items, &mut plan).await
        };
        job.stop.or_stop(standing).await?;
    }
    Ok((plan, denied))
}

/// Names and definitions in an encoding other than UTF-8, converted by the target's server, which knows all
/// encodings.
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

/// Checks that the object has its length. That costs one request, and is worth it before a table is dropped.
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

fn whole(basis: Basis<'_>, jobs: usize) -> Plan {
    let Basis {
        stored,
        items,
        excluded,
        request,
        ..
    } = basis;
    let mut everything = plan::everything(items);
    everything.retain(|id| !excluded.contains(id));
    let mut plan = plan::plan(stored, items, &everything, request.without(), jobs);
    plan.kept.clone_from(excluded);
    if request.clean && !request.create {
        (plan.drops, plan.partings) = plan::drops(items, &everything);
        plan.large_objects = plan::large_objects(items, &everything);
    }
    plan.part_events(items);
    plan
}
