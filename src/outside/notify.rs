//! Telling people how a run ended: one message per backup, and one per verification or drill that
//! fails, after the outcome is settled. A message that cannot be sent is reported as a warning and
//! never changes the outcome.

mod message;
mod sns;

use async_trait::async_trait;
use serde_json::Value;

use crate::error::{Code, Result};
use crate::repository::backup_id::Kind;

pub use sns::Sns;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Succeeded,
    /// The backup is good, and a copy of it failed.
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
    Backup(Kind),
    Verify,
    Drill,
}

/// What a message is made of. Nothing in it is secret: the report is what a run prints.
#[derive(Debug, Clone)]
pub struct Notice {
    pub status: Status,
    pub about: About,
    /// As PostgreSQL knows it; `None` where the run failed before it was known.
    pub database: Option<String>,
    /// For people: some lines of plain text.
    pub summary: String,
    /// The run's `--json` report.
    pub report: Value,
}

/// What can be seen of the place where messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// It is there. Whether we may publish, only a message would tell.
    Seen,
    /// We may not look, and may be allowed to publish all the same.
    Hidden,
}

#[async_trait]
pub trait Notifier: Send + Sync {
    /// Where the messages go, without secrets: for warnings.
    fn target(&self) -> &str;

    /// Looks whether a message could be handed over, and hands none.
    async fn look(&self) -> Result<Topic>;

    /// Hands one message over. An error means that it may not have been delivered; sending it
    /// again may deliver it twice.
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

impl Status {
    /// As the report spells it.
    fn word(self) -> &'static str {
        match self {
            Status::Succeeded => "succeeded",
            Status::Degraded => "degraded",
            Status::Failed(_) => "failed",
        }
    }

    fn code(self) -> Option<&'static str> {
        match self {
            Status::Succeeded => None,
            Status::Degraded => Some("DEGRADED"),
            Status::Failed(code) => Some(code.name()),
        }
    }
}
