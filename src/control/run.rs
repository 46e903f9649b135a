//! One run as the API, the page and the journal tell it.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, ErrorReport, Result};
use crate::repository::trigger::Trigger;
use crate::run::progress::Progress;

/// `20260131T040500Z-5f0c1a2b3c4d5e6f`: the moment at which it was asked for, and 64 random bits. Ids sort by time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

impl RunId {
    /// A new id.
    pub fn new(now: Timestamp) -> Result<RunId> {
        let mut random = [0; 8];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| Error::internal("the system gives no random numbers"))?;
        Ok(RunId(format!(
            "{}-{}",
            now.strftime("%Y%m%dT%H%M%SZ"),
            hex::encode(random)
        )))
    }

    /// As it is printed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is no run's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRunId;

impl fmt::Display for NoRunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the id of a run")
    }
}

impl FromStr for RunId {
    type Err = NoRunId;

    fn from_str(text: &str) -> Result<Self, NoRunId> {
        let (stamp, random) = text.split_once('-').ok_or(NoRunId)?;
        let is_stamp = stamp.len() == 16
            && stamp.bytes().enumerate().all(|(at, byte)| match at {
                8 => byte == b'T',
                15 => byte == b'Z',
                _ => byte.is_ascii_digit(),
            });
        let is_random = random.len() == 16 && random.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match is_stamp && is_random {
            true => Ok(RunId(text.to_owned())),
            false => Err(NoRunId),
        }
    }
}

impl TryFrom<String> for RunId {
    type Error = NoRunId;

    fn try_from(text: String) -> Result<Self, NoRunId> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> String {
        id.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A full backup or an increment.
    Backup,
    /// Every stored byte against the manifest.
    Verify,
    /// A restore into a throwaway server, compared with the backup.
    Drill,
    /// Remove the backups whose time is over.
    Prune,
    /// Try all that a backup needs.
    Doctor,
    /// Put a backup, or a part of one, into a target.
    Restore,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 6] = [
        Action::Backup,
        Action::Verify,
        Action::Drill,
        Action::Prune,
        Action::Doctor,
        Action::Restore,
    ];

    /// As the API and the journal spell it.
    pub fn name(self) -> &'static str {
        match self {
            Action::Backup => "backup",
            Action::Verify => "verify",
            Action::Drill => "drill",
            Action::Prune => "prune",
            Action::Doctor => "doctor",
            Action::Restore => "restore",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It waits for its turn.
    Queued,
    Running,
    Succeeded,
    /// It ended with an error, or found damage.
    Failed,
    /// Somebody asked for its end before it was reached.
    Cancelled,
    /// The process ended before the run did.
    Lost,
}

impl RunState {
    /// Every state.
    pub const ALL: [RunState; 6] = [
        RunState::Queued,
        RunState::Running,
        RunState::Succeeded,
        RunState::Failed,
        RunState::Cancelled,
        RunState::Lost,
    ];

    /// As the API and the journal spell it.
    pub fn name(self) -> &'static str {
        match self {
            RunState::Queued => "queued",
            RunState::Running => "running",
            RunState::Succeeded => "succeeded",
            RunState::Failed => "failed",
            RunState::Cancelled => "cancelled",
            RunState::Lost => "lost",
        }
    }

    /// Whether it has ended.
    pub fn is_over(self) -> bool {
        !matches!(self, RunState::Queued | RunState::Running)
    }
}

/// The document of a run.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Run {
    pub id: RunId,
    pub action: Action,
    /// The kind of backup that was asked for: `full` or `incremental`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The database whose backups it is about.
    pub database: Option<String>,
    /// The named target that a restore fills.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    pub state: RunState,
    pub trigger: Trigger,
    /// Who asked for it.
    pub by: String,
    pub queued_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// The backup that it makes, reads or restores, once that is known.
    pub backup: Option<String>,
    pub progress: Option<Progress>,
    /// The report of the command.
    pub result: Option<Value>,
    pub error: Option<ErrorReport>,
}

impl Run {
    /// How long it ran, in milliseconds.
    pub fn duration_ms(&self) -> Option<u64> {
        let (started, finished) = self.started_at.zip(self.finished_at)?;
        u64::try_from(finished.duration_since(started).as_millis()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_and_nothing_else_is_one() {
        let now = "2026-01-31T04:05:00Z".parse().unwrap();
        let id = RunId::new(now).unwrap();
        assert!(id.as_str().starts_with("20260131T040500Z-"), "{id}");
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        assert_ne!(RunId::new(now).unwrap(), id);
        for text in [
            "",
            "20260131T040500Z",
            "../etc/passwd",
            "20260131T040500Z-5F0c1a2b3c4d5e6f",
            "a-b",
        ] {
            assert_eq!(text.parse::<RunId>(), Err(NoRunId), "{text}");
        }
    }
}
