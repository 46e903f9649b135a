//! What a command says when it has succeeded: one JSON document for programs, a few lines for
//! people. Failures are [`crate::error::Error`]s.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use crate::job::doctor::DoctorReport;
use crate::job::download::DownloadReport;
use crate::job::list::ListReport;
use crate::job::prune::PruneReport;
use crate::job::restore::RestoreReport;
use crate::job::status::StatusReport;
use crate::job::verify::VerifyReport;
use crate::outside::handover::HandoverReport;
use crate::repository::backup_id::{BackupId, Kind};
use crate::repository::lease::Previous;
use crate::repository::leftovers::LeftOver;
use crate::repository::manifest::{Algorithm, Compression, FileRecord, LeftOut, PgDump, Server, Snapshot};
use crate::repository::retention::Tier;
use crate::repository::signature::{KeyId, keygen::KeygenReport};
use crate::run::printable;
use crate::settings::Trigger;
use crate::units::{count, human_bytes};

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Report {
    Backup(Box<BackupReport>),
    /// Somebody else makes the backup.
    HandedOver(HandoverReport),
    Doctor(DoctorReport),
    Download(DownloadReport),
    Rules(RulesReport),
    List(ListReport),
    Status(Box<StatusReport>),
    Prune(PruneReport),
    Verify(VerifyReport),
    Restore(Box<RestoreReport>),
    Keygen(KeygenReport),
}

impl Report {
    /// A command that has done its work may still have found what a person must see to.
    pub fn exit_code(&self) -> u8 {
        match self {
            Report::Backup(report) if report.is_degraded() => DEGRADED,
            Report::Doctor(report) => report.exit_code(),
            Report::Status(report) => report.exit_code(),
            Report::Prune(report) => report.exit_code(),
            Report::Verify(report) => report.exit_code(),
            Report::Restore(report) if report.is_partial() => PARTIAL,
            _ => 0,
        }
    }

    /// The lines for people. Names that others have chosen stand in them as one line each, whatever is
    /// in them: they cannot pass for a line of ours.
    pub fn text(&self) -> String {
        text(self)
    }

    /// What it found, where that is a failure in its own right.
    pub fn error(&self) -> Option<&ErrorReport> {
        match self {
            Report::Verify(report) => report.error.as_ref(),
            _ => None,
        }
    }
}

impl BackupReport {
    pub fn is_degraded(&self) -> bool {
        self.failed_copies().next().is_some()
    }

    /// The stores that do not hold it, and why.
    pub fn failed_copies(&self) -> impl Iterator<Item = (&str, &ErrorReport)> {
        let failed = |store: &'_ StoreReport| store.error.is_some();
        let failed = self.stores.iter().filter(move |store| failed(store));
        failed.filter_map(|store| Some((store.url.as_str(), store.error.as_ref()?)))
    }
}

/// [`Report::text`], of a report of any kind.
pub fn text<R: Serialize + fmt::Display>(report: &R) -> String {
    let mut broken = BTreeSet::new();
    collect_broken(&serde_json::to_value(report).unwrap_or_default(), &mut broken);
    let mut broken: Vec<String> = broken.into_iter().collect();
    // A name may be a part of a sentence that stands in the report too.
    broken.sort_by_key(|text| Reverse(text.len()));
    let mut text = report.to_string();
    for one in &broken {
        text = text.replace(one, &printable::line(one));
    }
    printable::lines(&text).trim_end().to_owned()
}

/// The texts of a report's document that are more than one line.
fn collect_broken(value: &serde_json::Value, found: &mut BTreeSet<String>) {
    let mut see = |text: &str| {
        if text.contains(['\n', '\r']) && !text.trim().is_empty() {
            found.insert(text.to_owned());
        }
    };
    match value {
        serde_json::Value::String(text) => see(text),
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect_broken(item, found)),
        serde_json::Value::Object(fields) => {
            fields.keys().for_each(|name| see(name));
            fields.values().for_each(|field| collect_broken(field, found));
        }
        _ => {}
    }
}

/// The exit code of a backup that is good, and is not in all the stores in which it should be.
pub const DEGRADED: u8 = 3;
/// The exit code of a restore that went on past what failed.
pub const PARTIAL: u8 = 4;

/// A finished backup. `status` comes first, as in a failure's document.
#[derive(Debug, Clone, Serialize)]
pub struct BackupReport {
    /// `succeeded`, or `degraded`: a copy failed.
    pub status: &'static str,
    pub id: BackupId,
    pub database: String,
    pub kind: Kind,
    pub trigger: Trigger,
    /// The event was delivered before, and this is the backup that it made then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
    pub tier: Tier,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub duration_seconds: f64,
    pub server: Server,
    pub pg_dump: PgDump,
    pub compression: Compression,
    pub snapshot: Snapshot,
    pub tables: u64,
    pub rows: u64,
    pub large_objects: u64,
    /// With --nice: how often it paused, and for how long in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pauses: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused_seconds: Option<f64>,
    /// What pg_dump wrote, before compression.
    pub bytes_read: u64,
    /// All files of the backup together.
    pub bytes_stored: u64,
    pub files: BTreeMap<String, FileRecord>,
    /// Files that should be there and are not, by role, and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: BTreeMap<String, String>,
    /// What is in the database and not in the backup.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// The SHA-256 of the manifest in the primary store, for `--expect-manifest`: all other digests stand in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest_sha256: Option<String>,
    /// The key that has signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<KeyId>,
    pub stores: Vec<StoreReport>,
    /// The run that died while it held the lease, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_over: Option<Previous>,
    /// What killed runs had left, and what was done about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub leftovers: Vec<LeftOver>,
    /// What a person should look at although the backup is good.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notification: Option<Notification>,
}

/// One store's part in a run: it holds the backup, or why it does not.
#[derive(Debug, Clone, Serialize)]
pub struct StoreReport {
    pub url: String,
    pub primary: bool,
    pub holds_backup: bool,
    /// Of its own manifest, which says how the store itself sums the archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
}

#[derive(Debug, Clone, Serialize)]
pub struct ErrorReport {
    pub code: &'static str,
    pub message: String,
    pub hint: String,
}

impl From<&crate::error::Error> for ErrorReport {
    fn from(error: &crate::error::Error) -> Self {
        Self {
            code: error.code().name(),
            message: error.message(),
            hint: error.hint_text().to_owned(),
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct Notification {
    pub sent: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `retention show` and `retention apply`.
#[derive(Debug, Default, Serialize)]
pub struct RulesReport {
    #[serde(flatten)]
    pub rules: serde_json::Value,
    /// Set by `apply`: what is in each bucket now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub applied: Vec<Applied>,
}

#[derive(Debug, Serialize)]
pub struct Applied {
    pub store: String,
    pub installed: usize,
    /// Rules of others, left as they are.
    pub foreign: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::Backup(report) => report.fmt(f),
            Report::HandedOver(report) => report.fmt(f),
            Report::Doctor(report) => report.fmt(f),
            Report::Download(report) => report.fmt(f),
            Report::Rules(report) => report.fmt(f),
            Report::List(report) => report.fmt(f),
            Report::Status(report) => report.fmt(f),
            Report::Prune(report) => report.fmt(f),
            Report::Verify(report) => report.fmt(f),
            Report::Restore(report) => report.fmt(f),
            Report::Keygen(report) => report.fmt(f),
        }
    }
}

impl fmt::Display for BackupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}{}",
            self.id,
            if self.repeated {
                "  (this event's backup, made before)"
            } else {
                ""
            }
        )?;
        let algorithm = match self.compression.algorithm {
            Algorithm::None => "not compressed,",
            Algorithm::Gzip => "gzip",
            Algorithm::Zstd => "zstd",
        };
        writeln!(
            f,
            "  {}, {}, {} read, {} stored ({} {}), {:.1} s, tier {}",
            count(self.tables, "table"),
            count(self.rows, "row"),
            human_bytes(self.bytes_read),
            human_bytes(self.bytes_stored),
            algorithm,
            self.compression.level,
            self.duration_seconds,
            self.tier.name(),
        )?;
        if let (Some(pauses @ 1..), Some(seconds)) = (self.pauses, self.paused_seconds) {
            let pauses = count(pauses, "time");
            writeln!(f, "  paused {pauses}, {seconds:.1} s in all, to spare the server")?;
        }
        if let Some(sha256) = &self.manifest_sha256 {
            let signed = self
                .signed_by
                .map_or(String::new(), |key| format!(", signed by the key {key}"));
            writeln!(f, "  manifest SHA-256 {sha256}{signed}")?;
        }
        for store in &self.stores {
            match &store.error {
                None => writeln!(f, "  stored in {}", store.url)?,
                Some(error) => writeln!(f, "  NOT stored in {}: {}: {}", store.url, error.code, error.message)?,
            }
        }
        for (role, why) in &self.missing {
            writeln!(f, "  missing {role}: {why}")?;
        }
        for leftover in &self.leftovers {
            writeln!(
                f,
                "  left over from a killed run: {} ({})",
                leftover.key,
                leftover.outcome.name()
            )?;
        }
        for warning in &self.warnings {
            writeln!(f, "  warning: {warning}")?;
        }
        Ok(())
    }
}

impl fmt::Display for RulesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = serde_json::to_string_pretty(&self.rules).map_err(|_| fmt::Error)?;
        for bucket in &self.applied {
            let installed = count(bucket.installed, "rule");
            match bucket.foreign.len() {
                0 => writeln!(f, "{installed} installed in {}", bucket.store)?,
                others => writeln!(
                    f,
                    "{installed} installed in {}; {others} of others left as {} {}",
                    bucket.store,
                    if others == 1 { "it" } else { "they" },
                    if others == 1 { "is" } else { "are" }
                )?,
            }
        }
        writeln!(f, "{rules}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_several_lines_is_one_for_people() {
        #[derive(Serialize)]
        struct Told {
            name: &'static str,
        }
        impl fmt::Display for Told {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "1 warning\n  {} was emptied\n", self.name)
            }
        }
        let name = "x\n\nYour bucket is full\u{1b}[2J";
        assert_eq!(
            text(&Told { name }),
            "1 warning\n  x  Your bucket is full\u{fffd}[2J was emptied"
        );
    }
}
