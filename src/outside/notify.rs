//! Messages to people about the end of a run: one per backup, and one per verification or drill that fails, sent
//! after the result is known. A message that cannot be sent is a warning, and never changes the result.

mod message;
mod sns;

use async_trait::async_trait;
use serde_json::Value;

use crate::error::{Code, Result};
use crate::repository::backup_id::BackupKind;

pub use sns::Sns;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStatus {
    Succeeded,
    /// The backup is good, but a copy of it failed.
    Degraded,
    Failed(Code),
}

/// A place where messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channel {
    /// A topic of SNS.
    Sns { arn: String },
}

/// What kind of run a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    Backup(BackupKind),
    Verify,
    Drill,
}

/// The content of a message. It holds no secret: the report is what the run prints.
#[derive(Debug, Clone)]
pub struct Notice {
    pub status: RunStatus,
    pub about: About,
    /// The name in PostgreSQL; `None` if the run failed before it was known.
    pub database: Option<String>,
    /// Some lines of plain text for people.
    pub summary: String,
    /// The run's `--json` report.
    pub report: Value,
}

/// What pgstow can learn about the target of the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelState {
    /// Only sending a message would show whether we may publish.
    Exists,
    /// We may not read its attributes, but perhaps we may publish.
    Hidden,
}

#[async_trait]
pub trait Notifier: Send + Sync {
    /// The target of the messages, without secrets: for warnings.
    fn target(&self) -> &str;

    /// Checks whether a message could be sent, without sending one.
    async fn look(&self) -> Result<ChannelState>;

    /// Sends one message. After an error it may or may not have been delivered; sending it again may deliver it
    /// twice.
    async fn send(&self, notice: &Notice) -> Result<()>;
}

impl About {
    /// In the subject.
    fn word(self) -> &'static str {
        match self {
            About::Backup(_) => "backup",
            About::Verify => "verify",
            About::Drill => "drill",
        }
    }

    /// In the attribute `kind`.
    fn kind(self) -> &'static str {
        match self {
            About::Backup(kind) => kind.name(),
            other => other.word(),
        }
    }
}

impl RunStatus {
    /// As in the report.
    fn word(self) -> &'static str {
        match self {
            RunStatus::Succeeded => "succeeded",
            RunStatus::Degraded => "degraded",
            RunStatus::Failed(_) => "failed",
        }
    }

    fn code(self) -> Option<&'static str> {
        match self {
            RunStatus::Succeeded => None,
            RunStatus::Degraded => Some("DEGRADED"),
            RunStatus::Failed(code) => Some(code.name()),
        }
    }
}
