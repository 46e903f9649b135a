//! Everything that is known about a restore before the first change, and what the report says of it.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::around::Surroundings;
use super::denied::DeniedSetting;
use super::failed::Failed;
use super::in_place::InPlace;
use super::into::Copies;
use super::plan::{LeftOut, Plan};
use super::ready::Target;
use super::report::{RestoreReport, RestoreStatus};
use super::rows::BackupRows;
use super::{Job, database, globals, script};
use crate::format::archive::{BlockContent, Item, TocEntry};
use crate::job::moment::MomentReport;
use crate::job::restore::RestoreRequest;
use crate::postgres::{GlobalsPlan, Psql, RestoreProgram};
use crate::repository::catalog::Located;
use crate::repository::manifest::role;
use crate::repository::stored_archive::StoredArchive;
use crate::store::Store;
use crate::units::{count, human_bytes};

/// Everything that is known before the first change.
pub(super) struct Prepared {
    pub located: Located,
    pub source: BackupData,
    pub target: Target,
    pub globals: Option<GlobalsPlan>,
    pub warnings: Vec<String>,
    /// The warning that was already printed.
    pub said: Option<String>,
    /// Objects that pointed at replaced tables and could not be made again.
    pub lost: Vec<LeftOut>,
    /// How many tables hold the backup's rows.
    pub compared: Option<usize>,
    /// How many rows were removed from the emptied tables.
    pub rows_replaced: Option<u64>,
    /// What should have been compared and could not be.
    pub not_proved: Vec<LeftOut>,
    /// What could not be made or loaded.
    pub failed: Vec<Failed>,
}

pub(super) enum BackupData {
    Archive(Box<PreparedArchive>),
    /// A plain dump, for psql.
    Script(Psql, Arc<script::Checked>),
}

pub(super) struct PreparedArchive {
    pub stored: Arc<StoredArchive>,
    pub items: Vec<Item>,
    pub plan: Plan,
    pub pg_restore: RestoreProgram,
    /// Objects that point at replaced tables.
    pub around: Surroundings,
    /// For rows that are loaded into existing tables.
    pub in_place: Option<InPlace>,
    /// For copies that are made beside existing tables.
    pub into: Option<Copies>,
    /// Whether the whole restore is one transaction.
    pub together: bool,
    /// The moment to which its rows are brought.
    pub moment: Option<MomentReport>,
    /// The entries that are left out, if only the new database shows which other entries belong to them.
    pub open_members: Option<HashSet<i64>>,
    /// Settings that the new database cannot have.
    pub denied: Vec<DeniedSetting>,
    pub warnings: Vec<String>,
}

impl PreparedArchive {
    /// Roles that will own something, including the database if this run makes it.
    pub fn owners(&self, request: &RestoreRequest) -> BTreeSet<String> {
        let mut owners: BTreeSet<String> = self.plan.owners.keys().cloned().collect();
        if request.create && !request.no_owner {
            owners.extend(database::owner(&self.items).map(str::to_owned));
        }
        owners
    }

    /// Extensions of the backup that are neither in the plan nor in the target.
    pub fn extensions_that_stay_away(&self, target: &Target) -> Vec<String> {
        let names = self.items.iter().filter(|item| item.entry.desc == "EXTENSION");
        let names = names.map(|item| &item.entry.tag).filter(|name| {
            !self.plan.extensions.contains(*name) && !target.found.extensions.get(*name).copied().unwrap_or_default()
        });
        names.cloned().collect()
    }

    pub fn backup<'a>(&'a self, store: &'a Arc<dyn Store>) -> BackupRows<'a> {
        BackupRows {
            store,
            stored: &self.stored,
            items: &self.items,
            plan: &self.plan,
        }
    }
}

impl BackupData {
    /// About how much pg_restore's small files take in TMPDIR: lists of entries, and the archive's head for the steps
    /// that make several objects at once.
    pub fn written_here(&self) -> u64 {
        const LINE: u64 = 64;
        match self {
            BackupData::Archive(archive) => 3 * archive.stored.head.length() + LINE * archive.items.len() as u64,
            BackupData::Script(..) => 0,
        }
    }

    pub fn denied(&self) -> &[DeniedSetting] {
        match self {
            BackupData::Archive(archive) => &archive.denied,
            BackupData::Script(..) => &[],
        }
    }

    pub fn items(&self) -> &[Item] {
        match self {
            BackupData::Archive(archive) => &archive.items,
            BackupData::Script(..) => &[],
        }
    }
}

impl Prepared {
    /// Whether anything in the target is removed before the backup's data is loaded.
    pub fn removes(&self, request: &RestoreRequest) -> bool {
        let replaces =
            |archive: &PreparedArchive| !archive.plan.drops.is_empty() || !archive.plan.large_objects.is_empty();
        match &self.source {
            BackupData::Archive(archive) if request.clean => {
                self.target.exists && (request.create || replaces(archive))
            }
            _ => false,
        }
    }

    pub fn report(&self, job: &Job<'_>, request: &RestoreRequest, status: RestoreStatus) -> RestoreReport {
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
            tables: None,
            rows: None,
            large_objects: None,
            bytes_read: 0,
            definitions: None,
            finishing: None,
            duration_seconds: 0.0,
            left_out: Vec::new(),
            already_there: Vec::new(),
            copies: Vec::new(),
            moment: None,
            steps: Vec::new(),
            warnings: self.warnings.clone(),
            said: self.said.clone(),
            compared: self.compared,
            rows_replaced: self.rows_replaced,
            not_proved: self.not_proved.clone(),
            failed: self.failed.clone(),
        };
        if let BackupData::Script(..) = &self.source {
            self.count_script(&mut report);
        }
        if let BackupData::Archive(archive) = &self.source {
            self.count_archive(archive, &mut report);
        }
        report.left_out.extend(self.globals.iter().flat_map(globals::left_out));
        report.left_out.extend(self.lost.iter().cloned());
        report
    }

    /// The numbers of the plan, without the objects that failed.
    fn count_archive(&self, archive: &PreparedArchive, report: &mut RestoreReport) {
        report.pg_restore.clone_from(&archive.pg_restore.version);
        report.moment.clone_from(&archive.moment);
        let names: HashSet<(&str, &str)> = self
            .failed
            .iter()
            .map(|one| (one.kind.as_str(), one.name.as_str()))
            .collect();
        let lost = |entry: &TocEntry| names.contains(&(entry.desc.as_str(), entry.name().as_str()));
        let (mut tables, mut rows, mut large_objects) = (0, 0, 0);
        for index in archive.plan.blocks() {
            match archive.stored.promises[index].content {
                _ if lost(&archive.stored.head.data[index]) => {}
                BlockContent::Table { .. } => {
                    tables += 1;
                    rows += archive.stored.rows(index).unwrap_or_default();
                }
                BlockContent::LargeObjects { count } => large_objects += count,
            }
        }
        report.rows = Some(rows);
        report.large_objects = Some(large_objects);
        report.bytes_read = archive.plan.stored_bytes();
        let made = |list: &[i64]| {
            let made = archive.items.iter().filter(|item| list.contains(&item.entry.dump_id));
            made.filter(|item| !lost(&item.entry)).count()
        };
        report.definitions = Some(made(&archive.plan.ground) + made(&archive.plan.before));
        report.finishing = Some(made(&archive.plan.after));
        report.left_out.clone_from(&archive.plan.left_out);
        report.already_there.clone_from(&archive.plan.already_there);
        if let Some(work) = &archive.into {
            report.copies = work.report(&archive.stored);
            tables = report.copies.len();
        }
        report.tables = Some(tables);
    }

    /// A script is restored whole, so the numbers are those of its manifest, if it was counted.
    fn count_script(&self, report: &mut RestoreReport) {
        let manifest = &self.located.manifest;
        report.bytes_read = manifest.files.get(role::SQL).map_or(0, |file| file.bytes);
        if let Some(script) = &manifest.script {
            report.tables = Some(manifest.tables.len());
            report.rows = Some(manifest.tables.iter().map(|table| table.rows).sum());
            report.large_objects = Some(manifest.large_objects.iter().map(|objects| objects.count).sum());
            report.definitions = usize::try_from(script.definitions).ok();
        }
    }

    /// What would be done, in words.
    pub fn planned(&self, job: &Job<'_>, request: &RestoreRequest) -> RestoreReport {
        let mut report = self.report(job, request, RestoreStatus::Planned);
        let name = self.target.name();
        let mut step = |text: String| report.steps.push(text);
        if let Some(globals) = &self.globals {
            let owners = match &self.source {
                BackupData::Archive(archive) => Some(archive.owners(request)),
                BackupData::Script(..) => None,
            };
            globals::steps(&self.target, globals, owners.as_ref())
                .into_iter()
                .for_each(&mut step);
        }
        let replaces = request.create && self.target.exists;
        match replaces {
            true => step(format!("make a new database beside {name}")),
            false if request.create => step(format!("make the database {name}")),
            false => {}
        }
        match &self.source {
            BackupData::Script(psql, _) => {
                step(format!("run the script with psql {} in one transaction", psql.version));
                if replaces {
                    step(self.replacing());
                }
            }
            BackupData::Archive(archive) => {
                if let Some(work) = &archive.into {
                    report.steps.extend(work.steps());
                } else if let Some(work) = &archive.in_place {
                    report.steps.extend(work.steps(&archive.plan));
                } else {
                    report.steps.extend(self.steps(archive, job, request));
                }
            }
        }
        report
    }

    /// The steps of an archive's own restore.
    fn steps(&self, archive: &PreparedArchive, job: &Job<'_>, request: &RestoreRequest) -> Vec<String> {
        let plan = &archive.plan;
        let replaces = request.create && self.target.exists;
        let mut steps = Vec::new();
        let mut step = |text: String| steps.push(text);
        if self.removes(request) && !request.no_verify {
            step("read the backup once and check it, before anything is removed".to_owned());
        }
        for statement in archive.around.loosen.iter().chain(&plan.drops) {
            step(statement.clone());
        }
        if !plan.large_objects.is_empty() {
            step(format!(
                "remove those of {} that exist",
                count(plan.large_objects.len(), "large object")
            ));
        }
        if replaces && request.keep_going {
            step(self.replacing());
        }
        if plan.ground.len() + plan.before.len() > 0 {
            step(format!(
                "make {}",
                count(plan.ground.len() + plan.before.len(), "definition")
            ));
        }
        if replaces && !request.keep_going {
            step(self.replacing());
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
        steps
    }

    fn replacing(&self) -> String {
        format!(
            "remove the database {}, and give its name to the new one",
            self.target.name()
        )
    }
}
