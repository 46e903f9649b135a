//! The findings of a verification, for people and for `verification.json`.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::chain::ChainProof;
use super::seal::AHEAD;
use crate::error::{Code, Error, ErrorReport};
use crate::job::drill::DrillReport;
use crate::job::moment::MomentReport;
use crate::repository::backup_id::BackupId;
use crate::repository::manifest::{Increment, Manifest, Tally};
use crate::repository::signature::KeyId;
use crate::repository::verification::{Finding, VerificationOutcome, VerificationStatus};
use crate::units::{count, human_bytes};

/// The most findings that are reported for one backup: a thousand broken tables are one broken disk.
const TOLD: usize = 100;

#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Verified {
    pub status: VerificationStatus,
    pub id: BackupId,
    /// The store that holds this copy.
    pub store: String,
    pub files: usize,
    pub tables: usize,
    pub rows: u64,
    pub large_objects: u64,
    /// The transactions of an increment, and the changes of rows in them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transactions: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<u64>,
    /// The number of stored bytes that were read.
    pub bytes: u64,
    pub duration_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest_sha256: Option<String>,
    /// Set if signatures are required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<KeyId>,
    /// The code of the failure, if it is one.
    #[serde(skip, default = "found_damaged")]
    pub code: Code,
    /// It is in another store than the first, so it is not drilled.
    #[serde(skip)]
    pub is_copy: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Finding>,
    /// Why it could not be verified. That does not mean that the backup is damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_verified: Option<ErrorReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drill: Option<DrillReport>,
    /// The moment that was drilled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moment: Option<MomentReport>,
    /// Whether the increments since the full backup before lead exactly to this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainProof>,
    /// Why the chain could not be proved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_chained: Option<ErrorReport>,
    /// Why a drill that was asked for could not be carried out. That does not mean that the backup is damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_drilled: Option<ErrorReport>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
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
        let increment = manifest.increment.as_ref();
        Self {
            status: if problems.is_empty() {
                VerificationStatus::Ok
            } else {
                VerificationStatus::Failed
            },
            id: manifest.id.clone(),
            store: store.to_owned(),
            files: manifest.files.len(),
            tables: manifest.tables.len(),
            rows: manifest.tables.iter().map(|table| table.rows).sum(),
            large_objects: manifest.large_objects.iter().map(|objects| objects.count).sum(),
            transactions: increment.map(|increment| increment.stream.transactions),
            changes: increment.map(Increment::count),
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
            moment: None,
            chain: None,
            not_chained: None,
            warnings: Vec::new(),
        }
    }

    /// Takes the counts of tables that the manifest does not count.
    pub(super) fn count(&mut self, counted: Option<Tally>) {
        if let Some(Tally { count, rows }) = counted {
            (self.tables, self.rows) = (usize::try_from(count).unwrap_or(usize::MAX), rows);
        }
    }

    /// A backup with an unreadable manifest.
    pub(super) fn unreadable(id: &BackupId, store: &str, error: &Error) -> Self {
        Self {
            problems: vec![Finding::of_file("manifest.json", error.message())],
            ..Self::blank(id, store, error)
        }
    }

    /// A backup that pgstow could not look at.
    pub(super) fn not_looked_at(id: &BackupId, store: &str, error: &Error) -> Self {
        Self {
            not_verified: Some(ErrorReport::from(error)),
            ..Self::blank(id, store, error)
        }
    }

    /// Restores the fields that a report does not print, as far as the others show them.
    fn read(mut self) -> Self {
        if let Some(why) = self.not_verified.as_ref().or(self.not_chained.as_ref()) {
            self.code = why.code;
        }
        self
    }

    fn own_status(&self) -> VerificationStatus {
        match &self.drill {
            _ if !self.problems.is_empty() || self.not_verified.is_some() || self.not_chained.is_some() => {
                VerificationStatus::Failed
            }
            Some(drill) => drill.status,
            None => VerificationStatus::Ok,
        }
    }

    fn blank(id: &BackupId, store: &str, error: &Error) -> Self {
        Self {
            status: VerificationStatus::Failed,
            id: id.clone(),
            store: store.to_owned(),
            files: 0,
            tables: 0,
            rows: 0,
            large_objects: 0,
            transactions: None,
            changes: None,
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
            moment: None,
            chain: None,
            not_chained: None,
            warnings: Vec::new(),
        }
    }

    pub(super) fn marked_as_copy(self, is_copy: bool) -> Self {
        Self { is_copy, ..self }
    }

    /// Its name in a report on several backups.
    fn name(&self) -> String {
        if self.is_copy {
            format!("{} in {}", self.id, self.store)
        } else {
            self.id.to_string()
        }
    }

    /// Notes a drill: the bytes are right, and this is the result of restoring them.
    pub(super) fn drilled(&mut self, drill: DrillReport) {
        self.status = drill.status;
        self.drill = Some(drill);
    }

    /// Notes that the bytes are right, but that the drill could not be carried out.
    pub(super) fn could_not_be_drilled(&mut self, error: &Error) {
        self.status = VerificationStatus::Failed;
        self.code = error.code();
        self.not_drilled = Some(ErrorReport::from(error));
    }

    /// Notes the proof of the chain. The backup's own bytes are right.
    pub(super) fn chained(&mut self, proof: ChainProof) {
        if let Some(error) = proof.error() {
            self.status = VerificationStatus::Failed;
            self.not_chained = Some(ErrorReport::from(&error));
            self.code = error.code();
        }
        self.chain = Some(proof);
    }

    /// Notes that the chain could not be proved.
    pub(super) fn could_not_be_chained(&mut self, error: &Error) {
        self.status = VerificationStatus::Failed;
        self.code = error.code();
        self.not_chained = Some(ErrorReport::from(error));
    }

    /// Notes damage that only the drill found and a further reading confirmed.
    pub(super) fn is_damaged_after_all(&mut self, found: Vec<Finding>) {
        self.status = VerificationStatus::Failed;
        self.problems.extend(found);
    }

    /// Whether the backup is damaged.
    pub(super) fn is_wrong(&self) -> bool {
        self.all_problems().next().is_some()
    }

    /// Whether the only finding is a date in the future.
    pub(super) fn is_of_the_clock(&self) -> bool {
        !self.problems.is_empty() && self.problems.iter().all(|finding| finding.what == AHEAD)
    }

    /// All differences, in the bytes and in the restored database.
    fn all_problems(&self) -> impl Iterator<Item = &Finding> {
        let drilled = self.drill.iter().flat_map(|drill| &drill.problems);
        self.problems.iter().chain(drilled)
    }

    /// The result for `verification.json`.
    pub(super) fn outcome(&self, at: Timestamp) -> VerificationOutcome {
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
        VerificationOutcome {
            status: if self.problems.is_empty() {
                VerificationStatus::Ok
            } else {
                VerificationStatus::Failed
            },
            at,
            rest,
        }
    }
}

/// One backup's result, or several.
#[derive(Debug, Serialize)]
pub struct VerifyReport {
    pub status: VerificationStatus,
    #[serde(flatten)]
    pub result: VerifyResult,
    /// Set if something differs.
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

/// The fields for the first store, without the status, which comes before them.
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

/// The code if a report has none.
fn found_damaged() -> Code {
    Code::Integrity
}

/// A printed report. It has no separate status for the backup in the first store.
#[derive(Deserialize)]
struct Printed {
    status: VerificationStatus,
    #[serde(default)]
    error: Option<ErrorReport>,
    #[serde(default)]
    backups: Option<Vec<Verified>>,
    #[serde(default)]
    copies: Vec<Verified>,
}

impl<'de> Deserialize<'de> for VerifyReport {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let document = Value::deserialize(deserializer)?;
        let printed = Printed::deserialize(&document).map_err(D::Error::custom)?;
        let mut report = match printed.backups {
            Some(backups) => Self::many(backups.into_iter().map(Verified::read).collect()),
            None => {
                let mut first = Verified::deserialize(&document).map_err(D::Error::custom)?;
                // The document's status is that of all stores.
                first.status = first.own_status();
                let copies = printed
                    .copies
                    .into_iter()
                    .map(|copy| Verified { is_copy: true, ..copy });
                Self::one(std::iter::once(first).chain(copies).map(Verified::read).collect())
            }
        };
        report.status = printed.status;
        report.code = printed.error.as_ref().map(|error| error.code);
        report.error = printed.error;
        Ok(report)
    }
}

impl VerifyReport {
    /// One backup in several stores, the first store first.
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
            status: VerificationStatus::Ok,
            result,
            error: None,
            code: None,
        };
        if let Some(error) = report.difference() {
            report.status = VerificationStatus::Failed;
            report.error = Some(ErrorReport::from(&error));
            report.code = Some(error.code());
        }
        report
    }

    pub fn exit_code(&self) -> u8 {
        self.code.map_or(0, Code::exit_code)
    }

    /// The code of the first failure, if there is one.
    pub fn code(&self) -> Option<Code> {
        self.code
    }

    pub fn backups(&self) -> &[Verified] {
        match &self.result {
            VerifyResult::One(one) => &one.verified,
            VerifyResult::Many { backups } => backups,
        }
    }

    /// The differences, as an error that names the first. Without any: why a backup could not be verified or drilled.
    fn difference(&self) -> Option<Error> {
        let failed: Vec<&Verified> = self
            .backups()
            .iter()
            .filter(|one| one.status != VerificationStatus::Ok)
            .collect();
        let (wrong, untold): (Vec<&Verified>, Vec<&Verified>) = failed.into_iter().partition(|one| one.is_wrong());
        let (unseen, untried): (Vec<&Verified>, Vec<&Verified>) =
            untold.into_iter().partition(|one| one.not_verified.is_some());
        let also = also("not verified", &unseen) + &also("not drilled", &untried);
        // Damage is more important than a store that failed.
        let damaged = wrong.iter().find(|one| one.code == Code::Integrity);
        let Some(first) = damaged.or(wrong.first()) else {
            let (first, rest) = match unseen.first() {
                Some(first) => (first, also),
                None if untried.len() > 1 => (untried.first()?, also),
                None => (untried.first()?, String::new()),
            };
            let chained = first.not_chained.as_ref();
            let why = first.not_verified.as_ref().or(first.not_drilled.as_ref()).or(chained)?;
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
        let advice = first.drill.as_ref().and_then(|drill| drill.advice.as_ref());
        Some(match advice {
            Some(advice) => error.hint(advice),
            None => error,
        })
    }
}

/// The number of backups of this kind, and their names.
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
                // The bytes are right.
                if one.not_verified.is_some() {
                    "not verified"
                } else if one.not_drilled.is_some() {
                    "ok, not drilled"
                } else if one.not_chained.is_some() && !one.is_wrong() {
                    "ok, its chain is not proved"
                } else {
                    one.status.name()
                },
                match one.transactions {
                    Some(transactions) => count(transactions, "transaction"),
                    None => count(one.tables, "table"),
                },
                match one.changes {
                    Some(changes) => count(changes, "change"),
                    None => count(one.rows, "row"),
                },
                human_bytes(one.bytes),
                one.duration_seconds
            )?;
            for problem in &one.problems {
                writeln!(f, "  {problem}")?;
            }
            if let Some(why) = &one.not_verified {
                writeln!(f, "  not verified: {}: {}", why.code, why.message)?;
            }
            if let Some(moment) = &one.moment {
                moment.fmt(f)?;
            }
            if let Some(drill) = &one.drill {
                drill.fmt(f)?;
            }
            if let Some(why) = &one.not_drilled {
                writeln!(f, "  not drilled: {}: {}", why.code, why.message)?;
            }
            if let Some(proof) = &one.chain {
                proof.fmt(f)?;
            } else if let Some(why) = &one.not_chained {
                writeln!(f, "  chain not proved: {}: {}", why.code, why.message)?;
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
