//! The findings about one backup in one store.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Code, Error, ErrorReport};
use crate::job::drill::DrillReport;
use crate::job::moment::MomentReport;
use crate::job::verify::chain::ChainProof;
use crate::job::verify::seal::AHEAD;
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
    pub(in crate::job::verify) fn new(
        manifest: &Manifest,
        store: &str,
        mut problems: Vec<Finding>,
        read: u64,
        took: Duration,
    ) -> Self {
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
    pub(in crate::job::verify) fn count(&mut self, counted: Option<Tally>) {
        if let Some(Tally { count, rows }) = counted {
            (self.tables, self.rows) = (usize::try_from(count).unwrap_or(usize::MAX), rows);
        }
    }

    /// A backup with an unreadable manifest.
    pub(in crate::job::verify) fn unreadable(id: &BackupId, store: &str, error: &Error) -> Self {
        Self {
            problems: vec![Finding::of_file("manifest.json", error.message())],
            ..Self::blank(id, store, error)
        }
    }

    /// A backup that pgstow could not look at.
    pub(in crate::job::verify) fn not_looked_at(id: &BackupId, store: &str, error: &Error) -> Self {
        Self {
            not_verified: Some(ErrorReport::from(error)),
            ..Self::blank(id, store, error)
        }
    }

    /// Restores the fields that a report does not print, as far as the others show them.
    pub(super) fn read(mut self) -> Self {
        if let Some(why) = self.not_verified.as_ref().or(self.not_chained.as_ref()) {
            self.code = why.code;
        }
        self
    }

    pub(super) fn own_status(&self) -> VerificationStatus {
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

    pub(in crate::job::verify) fn marked_as_copy(self, is_copy: bool) -> Self {
        Self { is_copy, ..self }
    }

    /// Its name in a report on several backups.
    pub(super) fn name(&self) -> String {
        if self.is_copy {
            format!("{} in {}", self.id, self.store)
        } else {
            self.id.to_string()
        }
    }

    /// Notes a drill: the bytes are right, and this is the result of restoring them.
    pub(in crate::job::verify) fn drilled(&mut self, drill: DrillReport) {
        self.status = drill.status;
        self.drill = Some(drill);
    }

    /// Notes that the bytes are right, but that the drill could not be carried out.
    pub(in crate::job::verify) fn could_not_be_drilled(&mut self, error: &Error) {
        self.status = VerificationStatus::Failed;
        self.code = error.code();
        self.not_drilled = Some(ErrorReport::from(error));
    }

    /// Notes the proof of the chain. The backup's own bytes are right.
    pub(in crate::job::verify) fn chained(&mut self, proof: ChainProof) {
        if let Some(error) = proof.error() {
            self.status = VerificationStatus::Failed;
            self.not_chained = Some(ErrorReport::from(&error));
            self.code = error.code();
        }
        self.chain = Some(proof);
    }

    /// Notes that the chain could not be proved.
    pub(in crate::job::verify) fn could_not_be_chained(&mut self, error: &Error) {
        self.status = VerificationStatus::Failed;
        self.code = error.code();
        self.not_chained = Some(ErrorReport::from(error));
    }

    /// Whether a chain was looked at, with whatever result.
    pub(in crate::job::verify) fn is_about_a_chain(&self) -> bool {
        self.chain.is_some() || self.not_chained.is_some()
    }

    /// Notes damage that only the drill found and a further reading confirmed.
    pub(in crate::job::verify) fn is_damaged_after_all(&mut self, found: Vec<Finding>) {
        self.status = VerificationStatus::Failed;
        self.problems.extend(found);
    }

    /// Whether the backup is damaged.
    pub(in crate::job::verify) fn is_wrong(&self) -> bool {
        self.all_problems().next().is_some()
    }

    /// Whether the only finding is a date in the future.
    pub(in crate::job::verify) fn is_of_the_clock(&self) -> bool {
        !self.problems.is_empty() && self.problems.iter().all(|finding| finding.what == AHEAD)
    }

    /// All differences, in the bytes and in the restored database.
    pub(super) fn all_problems(&self) -> impl Iterator<Item = &Finding> {
        let drilled = self.drill.iter().flat_map(|drill| &drill.problems);
        self.problems.iter().chain(drilled)
    }

    /// The result for `verification.json`.
    pub(in crate::job::verify) fn outcome(&self, at: Timestamp) -> VerificationOutcome {
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

/// The code if a report has none.
fn found_damaged() -> Code {
    Code::Integrity
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}  {}  {}, {}, {} read in {:.1} s",
            self.name(),
            // The bytes are right.
            if self.not_verified.is_some() {
                "not verified"
            } else if self.not_drilled.is_some() {
                "ok, not drilled"
            } else if self.not_chained.is_some() && !self.is_wrong() {
                "ok, its chain is not proved"
            } else {
                self.status.name()
            },
            match self.transactions {
                Some(transactions) => count(transactions, "transaction"),
                None => count(self.tables, "table"),
            },
            match self.changes {
                Some(changes) => count(changes, "change"),
                None => count(self.rows, "row"),
            },
            human_bytes(self.bytes),
            self.duration_seconds
        )?;
        for problem in &self.problems {
            writeln!(f, "  {problem}")?;
        }
        if let Some(why) = &self.not_verified {
            writeln!(f, "  not verified: {}: {}", why.code, why.message)?;
        }
        if let Some(moment) = &self.moment {
            moment.fmt(f)?;
        }
        if let Some(drill) = &self.drill {
            drill.fmt(f)?;
        }
        if let Some(why) = &self.not_drilled {
            writeln!(f, "  not drilled: {}: {}", why.code, why.message)?;
        }
        if let Some(proof) = &self.chain {
            proof.fmt(f)?;
        } else if let Some(why) = &self.not_chained {
            writeln!(f, "  chain not proved: {}: {}", why.code, why.message)?;
        }
        for warning in &self.warnings {
            writeln!(f, "  warning: {warning}")?;
        }
        Ok(())
    }
}
