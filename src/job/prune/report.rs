//! The report of a prune: every backup, what was or would be done with it, and why.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorReport};
use crate::repository::backup_id::BackupId;
use crate::repository::catalog::Listed;
use crate::repository::retention::Decision;
use crate::units::{count, human_bytes, were};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PruneStatus {
    Ok,
    Failed,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct PruneReport {
    /// `ok`, or `failed` if something could not be removed or a store could not be read.
    pub status: PruneStatus,
    /// The first failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
    pub dry_run: bool,
    /// Backups and left-overs that were removed.
    pub removed: u64,
    pub bytes_removed: u64,
    pub stores: Vec<StorePrune>,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct StorePrune {
    pub url: String,
    /// The bucket's own rules remove backups; prune only shows its plan.
    pub by_lifecycle: bool,
    /// Why the rules may not do that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
    /// Newest first.
    pub backups: Vec<Pruned>,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct Pruned {
    pub id: BackupId,
    pub action: Action,
    pub reason: String,
    pub bytes: u64,
    /// `None` if nothing was tried.
    #[serde(flatten)]
    pub outcome: Option<RemovalOutcome>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Keep,
    Remove,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum RemovalOutcome {
    Removed {
        bytes_removed: u64,
        /// Older versions of the bucket's objects stay, until a rule or a person removes them.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        versions_stay: bool,
        /// Files that pgstow did not write, which stayed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        foreign: Vec<String>,
    },
    Failed {
        error: ErrorReport,
    },
}

impl RemovalOutcome {
    pub(super) fn failed(error: &Error) -> Self {
        Self::Failed {
            error: ErrorReport::from(error),
        }
    }
}

impl StorePrune {
    pub(super) fn of(url: &str, by_lifecycle: bool) -> Self {
        Self {
            url: url.to_owned(),
            by_lifecycle,
            note: None,
            error: None,
            backups: Vec::new(),
        }
    }
}

impl Pruned {
    pub(super) fn planned(listed: &Listed, decision: &Decision) -> Self {
        let (action, reason) = match decision {
            Decision::Keep(why) => (Action::Keep, why.to_string()),
            Decision::Remove(why) => (Action::Remove, why.to_string()),
        };
        Self {
            id: listed.id.clone(),
            action,
            reason,
            bytes: listed.bytes(),
            outcome: None,
        }
    }
}

impl PruneReport {
    pub(super) fn new(dry_run: bool) -> Self {
        Self {
            status: PruneStatus::Ok,
            error: None,
            dry_run,
            removed: 0,
            bytes_removed: 0,
            stores: Vec::new(),
        }
    }

    pub fn exit_code(&self) -> u8 {
        self.error.as_ref().map_or(0, |error| error.code.exit_code())
    }

    pub(super) fn fail(&mut self, error: &Error) {
        self.note_failure(ErrorReport::from(error));
    }

    /// Keeps the first failure.
    fn note_failure(&mut self, error: ErrorReport) {
        if self.error.is_none() {
            self.status = PruneStatus::Failed;
            self.error = Some(error);
        }
    }

    /// Sums up the results.
    pub(super) fn concluded(mut self) -> Self {
        let mut failures = Vec::new();
        for backup in self.stores.iter().flat_map(|store| &store.backups) {
            match &backup.outcome {
                Some(RemovalOutcome::Removed { bytes_removed, .. }) => {
                    self.removed += 1;
                    self.bytes_removed += bytes_removed;
                }
                Some(RemovalOutcome::Failed { error }) => failures.push(error.clone()),
                None => {}
            }
        }
        for error in failures {
            self.note_failure(error);
        }
        self
    }

    /// The error of a prune that was stopped, with the number of backups removed by then.
    pub(super) fn stopped(self, reason: &Error) -> Error {
        let done = self.concluded();
        let what = format!(
            "{}; {} {} removed before that",
            reason.message(),
            count(done.removed, "backup"),
            were(done.removed)
        );
        Error::new(reason.code(), what).hint("run it again: it continues where it stopped")
    }
}

impl fmt::Display for PruneReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for store in &self.stores {
            store.print(f, self.dry_run)?;
        }
        if !self.dry_run {
            match self.removed {
                0 => writeln!(f, "nothing was removed")?,
                removed => writeln!(f, "{removed} removed, {}", human_bytes(self.bytes_removed))?,
            }
        }
        Ok(())
    }
}

impl StorePrune {
    fn print(&self, f: &mut fmt::Formatter<'_>, dry_run: bool) -> fmt::Result {
        let how = match (self.by_lifecycle, dry_run) {
            (true, _) if self.note.is_some() => ": nothing is removed",
            (true, _) => {
                ": nothing is removed: the bucket's lifecycle rules do that (`pgstow retention apply` installs them), or \
                 --allow-delete"
            }
            (false, true) => ": nothing is removed (--dry-run)",
            (false, false) => "",
        };
        writeln!(f, "{}{how}", self.url)?;
        if let Some(note) = &self.note {
            writeln!(f, "  warning: {note}")?;
        }
        if let Some(error) = &self.error {
            writeln!(f, "  error[{}]: {}", error.code, error.message)?;
            return writeln!(f, "  hint: {}", error.hint);
        }
        if self.backups.is_empty() {
            return writeln!(f, "  no backups");
        }
        let width = self.backups.iter().map(|one| one.id.to_string().chars().count());
        let width = width.max().unwrap_or_default();
        for Pruned {
            id,
            action,
            reason,
            bytes,
            outcome,
        } in &self.backups
        {
            let did = match (action, outcome) {
                (Action::Keep, _) => "stays",
                (Action::Remove, None) => "goes",
                (Action::Remove, Some(RemovalOutcome::Removed { .. })) => "removed",
                (Action::Remove, Some(RemovalOutcome::Failed { .. })) => "FAILED",
            };
            let id = id.to_string();
            writeln!(f, "  {did:<7}  {id:<width$}  {:>8}  {reason}", human_bytes(*bytes))?;
            print_outcome(f, outcome.as_ref())?;
        }
        Ok(())
    }
}

fn print_outcome(f: &mut fmt::Formatter<'_>, outcome: Option<&RemovalOutcome>) -> fmt::Result {
    match outcome {
        Some(RemovalOutcome::Removed { foreign, .. }) if !foreign.is_empty() => {
            writeln!(
                f,
                "           its folder stays, with files that pgstow did not write: {}",
                foreign.join(", ")
            )
        }
        Some(RemovalOutcome::Removed {
            versions_stay: true, ..
        }) => {
            writeln!(
                f,
                "           old versions of its objects stay in the bucket until a rule removes them"
            )
        }
        Some(RemovalOutcome::Failed { error, .. }) => {
            writeln!(f, "           {}: {}; hint: {}", error.code, error.message, error.hint)
        }
        _ => Ok(()),
    }
}
