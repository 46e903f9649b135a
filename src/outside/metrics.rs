//! The metrics of a run, for monitoring: as a line in CloudWatch's embedded metric format among the log lines, and as
//! a file for Prometheus. Metrics that cannot be written are a warning, and never change the run's result.

mod emf;
mod history;
mod prometheus;
pub mod settings;
mod textfile;

use std::io::Write;
use std::time::Duration;

use jiff::Timestamp;

use crate::error::Code;
use settings::{MetricLines, Metrics};

pub use history::{History, LastGood};

/// How long to wait for the file's folder, which may be on a network file system whose server is gone.
const FILE_PATIENCE: Duration = Duration::from_secs(5);

/// What one run reports about one database.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// When the run ended.
    pub at: Timestamp,
    /// The name in PostgreSQL; `None` if the run failed before it was known.
    pub database: Option<String>,
    pub notifications_failed: u64,
    pub run: Run,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Run {
    Backup(Backup),
    Increment(Increment),
    Verification(VerificationMetrics),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Backup {
    pub end: End,
    pub last_good: LastGood,
}

#[derive(Debug, Clone, PartialEq)]
pub enum End {
    Made(Made),
    /// The event was delivered before: no backup was made, and nothing failed.
    Repeated,
    Failed {
        code: Code,
        seconds: f64,
    },
}

/// A backup that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    pub id: String,
    pub seconds: f64,
    /// The size of all its files, as stored.
    pub bytes: u64,
    pub tables: u64,
    pub rows: u64,
    /// Bytes per second that were read from the database.
    pub rate: f64,
    /// See [`History::deviation`].
    pub deviation: Option<f64>,
    /// A copy failed.
    pub degraded: bool,
}

/// A run that was to make an increment. It counts for no full backup.
#[derive(Debug, Clone, PartialEq)]
pub struct Increment {
    pub end: IncrementEnd,
    /// `None`: the run does not know it.
    pub slot: Option<SlotSpace>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum IncrementEnd {
    Made(MadeIncrement),
    /// There was nothing to store, or the event was delivered before.
    Idle {
        /// What was committed before this moment of the source's clock is stored.
        seen_to: Option<Timestamp>,
    },
    /// The chain was broken, so the run made a full backup, which is observed apart.
    Renewed,
    Failed {
        code: Code,
        seconds: f64,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct MadeIncrement {
    pub id: String,
    pub seconds: f64,
    /// The size of all its files, as stored.
    pub bytes: u64,
    pub transactions: u64,
    /// Tables that were read whole.
    pub baselines: u64,
    /// What was committed before this moment of the source's clock is stored.
    pub seen_to: Timestamp,
    /// A copy failed.
    pub degraded: bool,
}

/// What the server keeps for the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotSpace {
    /// Bytes of its log.
    pub retained: Option<u64>,
    /// How many more bytes it can write before the slot is lost. `None`: without limit, or not known.
    pub safe: Option<u64>,
}

impl IncrementEnd {
    /// Whether the chain was broken.
    pub(crate) fn breaks_the_chain(&self) -> bool {
        matches!(self, Self::Renewed | Self::Failed { code: Code::Slot, .. })
    }

    /// What was committed before this moment is stored.
    pub(crate) fn seen_to(&self) -> Option<Timestamp> {
        match self {
            Self::Made(made) => Some(made.seen_to),
            Self::Idle { seen_to } => *seen_to,
            Self::Renewed | Self::Failed { .. } => None,
        }
    }
}

/// One backup's verification, or those of several.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VerificationMetrics {
    pub verify: CheckTally,
    /// `None`: no drill was asked for.
    pub drill: Option<CheckTally>,
    /// Whether the increments between two full backups lead from one to the other. `None`: that was not asked for.
    pub chain: Option<CheckTally>,
    pub seconds: f64,
    /// The error that prevented the verification, or `INTEGRITY`.
    pub code: Option<Code>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckTally {
    pub passed: u64,
    pub failed: u64,
}

impl CheckTally {
    pub fn count(&mut self, passed: bool) {
        match passed {
            true => self.passed += 1,
            false => self.failed += 1,
        }
    }
}

impl Observation {
    /// Before the notifications, of which none has failed.
    pub fn new(at: Timestamp, database: Option<String>, run: Run) -> Self {
        Self {
            at,
            database,
            notifications_failed: 0,
            run,
        }
    }

    /// A backup that began at `begun` and failed.
    pub fn of_failed_backup(
        database: Option<String>,
        code: Code,
        begun: Timestamp,
        history: &History,
        at: Timestamp,
    ) -> Self {
        let end = End::Failed {
            code,
            seconds: seconds(begun, at),
        };
        let last_good = history.last_good;
        Self::new(at, database, Run::Backup(Backup { end, last_good }))
    }

    /// An increment that was to be made from `begun` on, and was not.
    pub fn of_failed_increment(database: Option<String>, code: Code, begun: Timestamp, at: Timestamp) -> Self {
        let end = IncrementEnd::Failed {
            code,
            seconds: seconds(begun, at),
        };
        Self::new(at, database, Run::Increment(Increment { end, slot: None }))
    }

    /// An error prevented the verification: the step that was asked for has failed, and the other one is unknown.
    pub fn of_failed_verification(
        database: Option<String>,
        drill: bool,
        code: Code,
        begun: Timestamp,
        at: Timestamp,
    ) -> Self {
        let mut sum = VerificationMetrics {
            seconds: seconds(begun, at),
            code: Some(code),
            ..VerificationMetrics::asked(drill)
        };
        sum.drill.as_mut().unwrap_or(&mut sum.verify).count(false);
        Self::new(at, database, Run::Verification(sum))
    }
}

impl VerificationMetrics {
    pub fn asked(drill: bool) -> Self {
        Self {
            drill: drill.then(CheckTally::default),
            ..Self::default()
        }
    }
}

fn seconds(begun: Timestamp, ended: Timestamp) -> f64 {
    ended.duration_since(begun).as_secs_f64().max(0.0)
}

/// Whether the settings ask for metrics, which cost some requests.
pub fn wanted(settings: &Metrics) -> bool {
    settings.lines != MetricLines::None || settings.file.is_some()
}

/// Writes the observations to the configured places, and returns warnings.
pub async fn publish(settings: &Metrics, observations: Vec<Observation>, mut log: impl Write) -> Vec<String> {
    if settings.lines == MetricLines::Emf {
        for observation in &observations {
            let line = emf::line(observation, &settings.namespace, &settings.service);
            // One write, so that no other line comes in between. If it fails, there is no place to report it.
            let _ = log.write_all(line.as_bytes());
        }
    }
    let Some(path) = settings.file.clone() else {
        return Vec::new();
    };
    let service = settings.service.clone();
    let shown = path.display().to_string();
    let written = tokio::task::spawn_blocking(move || textfile::update(&path, &service, &observations));
    let problem = match tokio::time::timeout(FILE_PATIENCE, written).await {
        Ok(Ok(Ok(()))) => return Vec::new(),
        Ok(Ok(Err(error))) => error.message(),
        Ok(Err(_)) => format!("the metrics were not written to {shown}: the thread that writes them died"),
        Err(_) => format!("the metrics were not written to {shown}: its folder does not answer"),
    };
    tracing::warn!("{problem}");
    vec![problem]
}

#[cfg(test)]
mod tests;
