//! What a verification found, for people and for `verification.json`.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::seal::AHEAD;
use crate::error::{Code, Error, ErrorReport};
use crate::job::drill::DrillReport;
use crate::repository::backup_id::BackupId;
use crate::repository::manifest::{Manifest, Tally};
use crate::repository::signature::KeyId;
use crate::repository::verification::{Finding, Outcome, Status};
use crate::units::{count, human_bytes};

/// Findings that are told of one backup: a thousand broken tables are one broken disk.
const TOLD: usize = 100;

#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    pub status: Status,
    pub id: BackupId,
    /// Where this one lies.
    pub store: String,
    pub files: usize,
    pub tables: usize,
    pub rows: u64,
    pub large_objects: u64,
    /// Stored bytes that were read.
    pub bytes: u64,
    pub duration_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest_sha256: Option<String>,
    /// Where signatures are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<KeyId>,
    /// What kind of failure it is, if it is one.
    #[serde(skip)]
    pub code: Code,
    /// In another store than the first; it is not drilled.
    #[serde(skip)]
    pub is_copy: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Finding>,
    /// Why nothing is known of it. That says nothing of the backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_verified: Option<ErrorReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drill: Option<DrillReport>,
    /// Why there is none, where one was asked for. That says nothing of the backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_drilled: Option<ErrorReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Verified {
    pub(super) fn new(manifest: &Manifest, store: &str, mut problems: Vec<Finding>, read: u64, took: Duration) -> Self {
        let more = problems.len().saturating_sub(TOLD);
        problems.truncate(TOLD);
        if more > 0 {
            problems.push(Finding::of_file(
                "manifest.json",
                format!(
                    "{more} more of its blocks {}",
                    if more == 1 { "differs" } else { "differ" }
                ),
            ));
        }
        Self {
            status: if problems.is_empty() {
                Status::Ok
            } else {
                Status::Failed
            },
            id: manifest.id.clone(),
            store: store.to_owned(),
            files: manifest.files.len(),
            tables: manifest.tables.len(),
            rows: manifest.tables.iter().map(|table| table.rows).sum(),
            large_objects: manifest.large_objects.iter().map(|objects| objects.count).sum(),
            bytes: read,
            duration_seconds: took.as_secs_f64(),
            manifest_sha256: None,
            signed_by: None,
            code: Code::Integrity,
            is_copy: false,
            problems,
            not_verified: None,
            drill: None,
            not_drilled: None,
            warnings: Vec::new(),
        }
    }

    /// Tables that the manifest does not count, as they were counted.
    pub(super) fn count(&mut self, counted: Option<Tally>) {
        if let Some(Tally { count, rows }) = counted {
            (self.tables, self.rows) = (usize::try_from(count).unwrap_or(usize::MAX), rows);
        }
    }

    /// A backup whose manifest tells nothing.
    pub(super) fn unreadable(id: &BackupId, store: &str, error: &Error) -> Self {
        Self {
            problems: vec![Finding::of_file("manifest.json", error.message())],
            ..Self::blank(id, store, error)
        }
    }

    /// A backup that was kept from us.
    pub(super) fn not_looked_at(id: &BackupId, store: &str, error: &Error) -> Self {
        Self {
            not_verified: Some(ErrorReport::from(error)),
            ..Self::blank(id, store, error)
        }
    }

    fn blank(id: &BackupId, store: &str, error: &Error) -> Self {
        Self {
            status: Status::Failed,
            id: id.clone(),
            store: store.to_owned(),
            files: 0,
            tables: 0,
            rows: 0,
            large_objects: 0,
            bytes: 0,
            duration_seconds: 0.0,
            manifest_sha256: None,
            signed_by: None,
            code: error.code(),
            is_copy: false,
            problems: Vec::new(),
            not_verified: None,
            drill: None,
            not_drilled: None,
            warnings: Vec::new(),
        }
    }

    pub(super) fn marked_as_copy(self, is_copy: bool) -> Self {
        Self { is_copy, ..self }
    }

    /// How it is called where it is one of several.
    fn name(&self) -> String {
        if self.is_copy {
            format!("{} in {}", self.id, self.store)
        } else {
            self.id.to_string()
        }
    }

    /// The bytes are right; and this is what they restore to.
    pub(super) fn drilled(&mut self, drill: DrillReport) {
        self.status = drill.status;
        self.drill = Some(drill);
    }

    /// The bytes are right; and nothing is known of what they restore to.
    pub(super) fn could_not_be_drilled(&mut self, error: &Error) {
        self.status = Status::Failed;
        self.code = error.code();
        self.not_drilled = Some(ErrorReport::from(error));
    }

    /// The drill could not read what the manifest says, and neither can another.
    pub(super) fn is_damaged_after_all(&mut self, found: Vec<Finding>) {
        self.status = Status::Failed;
        self.problems.extend(found);
    }

    /// Whether something was found wrong in it.
    pub(super) fn is_wrong(&self) -> bool {
        self.all_problems().next().is_some()
    }

    /// Whether all that was found is that it is dated in the future.
    pub(super) fn is_of_the_clock(&self) -> bool {
        !self.problems.is_empty() && self.problems.iter().all(|finding| finding.what == AHEAD)
    }

    /// What differs, in the bytes or in what they restore to.
    fn all_problems(&self) -> impl Iterator<Item = &Finding> {
        let drilled = self.drill.iter().flat_map(|drill| &drill.problems);
        self.problems.iter().chain(drilled)
    }

    /// As it stands in `verification.json`.
    pub(super) fn outcome(&self, at: Timestamp) -> Outcome {
        let mut rest = Map::new();
        rest.insert("version".into(), env!("CARGO_PKG_VERSION").into());
        rest.insert("duration_seconds".into(), self.duration_seconds.into());
        rest.insert("bytes".into(), self.bytes.into());
        rest.insert("tables".into(), self.tables.into());
        rest.insert("rows".into(), self.rows.into());
        if !self.problems.is_empty() {
            let problems = serde_json::to_value(&self.problems).unwrap_or(Value::Null);
            rest.insert("problems".into(), problems);
        }
        Outcome {
            status: if self.problems.is_empty() {
                Status::Ok
            } else {
                Status::Failed
            },
            at,
            rest,
        }
    }
}

/// One backup's result, or several.
#[derive(Debug, Serialize)]
pub struct VerifyReport {
    pub status: Status,
    #[serde(flatten)]
    pub result: VerifyResult,
    /// Set when something differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
    #[serde(skip)]
    code: Option<Code>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum VerifyResult {
    One(Box<OneBackup>),
    Many { backups: Vec<Verified> },
}

/// The first store's fields without the status, which stands in front of them already.
#[derive(Debug, Serialize)]
pub struct OneBackup {
    #[serde(flatten)]
    fields: Map<String, Value>,
    /// The same backup in each of the other stores that have it.
    #[serde(rename = "copies", skip_serializing_if = "Vec::is_empty")]
    copies: Vec<Value>,
    #[serde(skip)]
    verified: Vec<Verified>,
}

impl VerifyReport {
    /// As each store has it, the first store's first.
    pub fn one(verified: Vec<Verified>) -> Self {
        let told = |one: &Verified| serde_json::to_value(one).unwrap_or(Value::Null);
        let mut fields = match verified.first().map(told) {
            Some(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        fields.remove("status");
        let copies = verified.iter().skip(1).map(told).collect();
        Self::told(VerifyResult::One(Box::new(OneBackup {
            fields,
            copies,
            verified,
        })))
    }

    pub fn many(backups: Vec<Verified>) -> Self {
        Self::told(VerifyResult::Many { backups })
    }

    fn told(result: VerifyResult) -> Self {
        let mut report = Self {
            status: Status::Ok,
            result,
            error: None,
            code: None,
        };
        if let Some(error) = report.difference() {
            report.status = Status::Failed;
            report.error = Some(ErrorReport::from(&error));
            report.code = Some(error.code());
        }
        report
    }

    pub fn exit_code(&self) -> u8 {
        self.code.map_or(0, Code::exit_code)
    }

    /// Of the first failure, where there is one.
    pub fn code(&self) -> Option<Code> {
        self.code
    }

    pub fn backups(&self) -> &[Verified] {
        match &self.result {
            VerifyResult::One(one) => &one.verified,
            VerifyResult::Many { backups } => backups,
        }
    }

    /// What differs, as an error that names the first; or else why one could not be verified, or drilled.
    fn difference(&self) -> Option<Error> {
        let failed: Vec<&Verified> = self.backups().iter().filter(|one| one.status != Status::Ok).collect();
        let (wrong, untold): (Vec<&Verified>, Vec<&Verified>) = failed.into_iter().partition(|one| one.is_wrong());
        let (unseen, untried): (Vec<&Verified>, Vec<&Verified>) =
            untold.into_iter().partition(|one| one.not_verified.is_some());
        let also = also("not verified", &unseen) + &also("not drilled", &untried);
        // Damage says more than a store that failed.
        let damaged = wrong.iter().find(|one| one.code == Code::Integrity);
        let Some(first) = damaged.or(wrong.first()) else {
            let (first, rest) = match unseen.first() {
                Some(first) => (first, also),
                None if untried.len() > 1 => (untried.first()?, also),
                None => (untried.first()?, String::new()),
            };
            let why = first.not_verified.as_ref().or(first.not_drilled.as_ref())?;
            let text = format!("backup {}: {}{rest}", first.name(), why.message);
            return Some(Error::new(first.code, text).hint(why.hint.clone()));
        };
        let finding = first.all_problems().next()?;
        let others = first.all_problems().count() - 1;
        let mut text = format!("backup {}: {finding}", first.name());
        if others > 0 {
            text.push_str(&format!(" ({others} more in this backup)"));
        }
        if wrong.len() > 1 {
            text.push_str(&format!("; {} backups differ in all", wrong.len()));
        }
        let error = Error::new(first.code, text + &also);
        let advice = first.drill.as_ref().and_then(|drill| drill.advice);
        Some(match advice {
            Some(advice) => error.hint(advice),
            None => error,
        })
    }
}

/// How many there are of a kind, and which.
fn also(what: &str, some: &[&Verified]) -> String {
    if some.is_empty() {
        return String::new();
    }
    let ids: Vec<String> = some.iter().take(TOLD).map(|one| one.name()).collect();
    format!("; {} {what}: {}", some.len(), ids.join(", "))
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for one in self.backups() {
            writeln!(
                f,
                "{}  {}  {}, {}, {} read in {:.1} s",
                one.name(),
                // Its bytes are right.
                if one.not_verified.is_some() {
                    "not verified"
                } else if one.not_drilled.is_some() {
                    "ok, not drilled"
                } else {
                    one.status.name()
                },
                count(one.tables, "table"),
                count(one.rows, "row"),
                human_bytes(one.bytes),
                one.duration_seconds
            )?;
            for problem in &one.problems {
                writeln!(f, "  {problem}")?;
            }
            if let Some(why) = &one.not_verified {
                writeln!(f, "  not verified: {}: {}", why.code, why.message)?;
            }
            if let Some(drill) = &one.drill {
                drill.fmt(f)?;
            }
            if let Some(why) = &one.not_drilled {
                writeln!(f, "  not drilled: {}: {}", why.code, why.message)?;
            }
            for warning in &one.warnings {
                writeln!(f, "  warning: {warning}")?;
            }
        }
        if self.backups().is_empty() {
            writeln!(f, "no backup to verify")?;
        }
        Ok(())
    }
}
