//! The report of a command that succeeded: one JSON document for programs, a few lines for people. Failures are
//! [`crate::error::Error`]s.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{DEGRADED, Error, ErrorReport, PARTIAL, Result};
use crate::job::backup::BackupReport;
use crate::job::changes::ChangesReport;
use crate::job::doctor::DoctorReport;
use crate::job::download::DownloadReport;
use crate::job::incremental::IncrementalReport;
use crate::job::prune::PruneReport;
use crate::job::retention::RulesReport;
use crate::job::verify::VerifyReport;
use crate::outside::handover::HandoverReport;
use crate::printable;
use crate::repository::signature::keygen::KeygenReport;

pub use crate::job::compare::Comparison;
pub use crate::job::download::{Offered, Pieces};
pub use crate::job::list::{ListEntry, ListReport, Proof};
pub use crate::job::restore::RestoreReport;
pub use crate::job::status::{DatabaseStatus, Judgement, StatusReport};

/// What a command answers. As JSON, a report has no tag: its fields show what it is.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Report {
    /// A backup or increment was made, or one that the same event had asked for before.
    Backup(Box<BackupReport>),
    /// A container task makes the backup instead.
    HandedOver(HandoverReport),
    /// The transactions in the increments.
    Changes(Box<ChangesReport>),
    /// What was tried, and what failed.
    Doctor(DoctorReport),
    /// The file that was written.
    Download(DownloadReport),
    /// The lifecycle rules.
    Rules(RulesReport),
    /// The backups in the store.
    List(ListReport),
    /// Whether a person has to act.
    Status(Box<StatusReport>),
    /// Which backups were removed, or would be.
    Prune(PruneReport),
    /// What was compared, and what differs.
    Verify(VerifyReport),
    /// What was restored, or would be.
    Restore(Box<RestoreReport>),
    /// The keys that were made.
    Keygen(KeygenReport),
    /// What increments have on the server.
    Incremental(Box<IncrementalReport>),
}

/// The kind of a report. It is needed to read a document back, because the documents themselves have no tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportKind {
    /// [`Report::Backup`].
    Backup,
    /// [`Report::HandedOver`].
    HandedOver,
    /// [`Report::Changes`].
    Changes,
    /// [`Report::Doctor`].
    Doctor,
    /// [`Report::Download`].
    Download,
    /// [`Report::Rules`].
    Rules,
    /// [`Report::List`].
    List,
    /// [`Report::Status`].
    Status,
    /// [`Report::Prune`].
    Prune,
    /// [`Report::Verify`].
    Verify,
    /// [`Report::Restore`].
    Restore,
    /// [`Report::Keygen`].
    Keygen,
    /// [`Report::Incremental`].
    Incremental,
}

impl Report {
    /// Which report it is.
    pub fn kind(&self) -> ReportKind {
        match self {
            Report::Backup(_) => ReportKind::Backup,
            Report::HandedOver(_) => ReportKind::HandedOver,
            Report::Changes(_) => ReportKind::Changes,
            Report::Doctor(_) => ReportKind::Doctor,
            Report::Download(_) => ReportKind::Download,
            Report::Rules(_) => ReportKind::Rules,
            Report::List(_) => ReportKind::List,
            Report::Status(_) => ReportKind::Status,
            Report::Prune(_) => ReportKind::Prune,
            Report::Verify(_) => ReportKind::Verify,
            Report::Restore(_) => ReportKind::Restore,
            Report::Keygen(_) => ReportKind::Keygen,
            Report::Incremental(_) => ReportKind::Incremental,
        }
    }

    /// Reads back the document of a report of this kind. Facts that only the run knew (which of the warnings it gave
    /// before the first change) are lost.
    pub fn read(kind: ReportKind, document: &str) -> Result<Report> {
        match kind {
            ReportKind::Backup => parse(document).map(Report::Backup),
            ReportKind::HandedOver => parse(document).map(Report::HandedOver),
            ReportKind::Changes => parse(document).map(Report::Changes),
            ReportKind::Doctor => parse(document).map(Report::Doctor),
            ReportKind::Download => parse(document).map(Report::Download),
            ReportKind::Rules => parse(document).map(Report::Rules),
            ReportKind::List => parse(document).map(Report::List),
            ReportKind::Status => parse(document).map(Report::Status),
            ReportKind::Prune => parse(document).map(Report::Prune),
            ReportKind::Verify => parse(document).map(Report::Verify),
            ReportKind::Restore => parse(document).map(Report::Restore),
            ReportKind::Keygen => parse(document).map(Report::Keygen),
            ReportKind::Incremental => parse(document).map(Report::Incremental),
        }
    }

    /// A command that succeeded may still have found a problem that needs a person.
    pub fn exit_code(&self) -> u8 {
        match self {
            Report::Backup(report) if report.is_degraded() => DEGRADED,
            Report::Doctor(report) => report.exit_code(),
            Report::Status(report) => report.exit_code(),
            Report::Prune(report) => report.exit_code(),
            Report::Verify(report) => report.exit_code(),
            Report::Restore(report) if report.is_partial() => PARTIAL,
            Report::Incremental(report) => report.exit_code(),
            _ => 0,
        }
    }

    /// The lines for people. A name that others chose is printed within one line, whatever it holds, so it cannot look
    /// like a line of pgstow's.
    pub fn text(&self) -> String {
        text(self)
    }

    /// The failure that the command found, if that is an error of its own.
    pub fn error(&self) -> Option<&ErrorReport> {
        match self {
            Report::Verify(report) => report.error.as_ref(),
            _ => None,
        }
    }
}

fn parse<R: DeserializeOwned>(document: &str) -> Result<R> {
    serde_json::from_str(document)
        .map_err(|error| Error::config("the document is not a report of this kind").source(error))
}

/// [`Report::text`], for a report of any kind.
pub fn text<R: Serialize + fmt::Display>(report: &R) -> String {
    let mut broken = BTreeSet::new();
    collect_broken(&serde_json::to_value(report).unwrap_or_default(), &mut broken);
    let mut broken: Vec<String> = broken.into_iter().collect();
    // A name may also be part of a sentence in the report.
    broken.sort_by_key(|text| Reverse(text.len()));
    let mut text = report.to_string();
    for one in &broken {
        text = text.replace(one, &printable::line(one));
    }
    printable::lines(&text).trim_end().to_owned()
}

/// The texts in a report's document that have more than one line.
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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::Backup(report) => report.fmt(f),
            Report::HandedOver(report) => report.fmt(f),
            Report::Changes(report) => report.fmt(f),
            Report::Doctor(report) => report.fmt(f),
            Report::Download(report) => report.fmt(f),
            Report::Rules(report) => report.fmt(f),
            Report::List(report) => report.fmt(f),
            Report::Status(report) => report.fmt(f),
            Report::Prune(report) => report.fmt(f),
            Report::Verify(report) => report.fmt(f),
            Report::Restore(report) => report.fmt(f),
            Report::Keygen(report) => report.fmt(f),
            Report::Incremental(report) => report.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
