//! The numbers of a run, for what watches over it: as a line in CloudWatch's embedded metric
//! format among the log lines, and as a file for Prometheus. What cannot be written is a warning,
//! and never changes how the run ended.

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

/// A folder that hangs, as a network file system does whose server is gone, is not waited for.
const FILE_PATIENCE: Duration = Duration::from_secs(5);

/// What one run has to say of one database.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// When the run ended.
    pub at: Timestamp,
    /// As PostgreSQL knows it; `None` where the run failed before it was known.
    pub database: Option<String>,
    pub notifications_failed: u64,
    pub run: Run,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Run {
    Backup(Backup),
    Verification(Verification),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Backup {
    pub end: End,
    pub last_good: LastGood,
}

#[derive(Debug, Clone, PartialEq)]
pub enum End {
    Made(Made),
    /// The event was delivered before: nothing was made, and nothing failed.
    Repeated,
    Failed {
        code: Code,
        seconds: f64,
    },
}

/// A backup that is there now.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    pub id: String,
    pub seconds: f64,
    /// All its files together, as stored.
    pub bytes: u64,
    pub tables: u64,
    pub rows: u64,
    /// Read from the database, per second.
    pub rate: f64,
    /// See [`History::deviation`].
    pub deviation: Option<f64>,
    /// A copy failed.
    pub degraded: bool,
}

/// One backup's verification, or those of several.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verification {
    pub verify: Tally,
    /// `None`: no drill was asked for.
    pub drill: Option<Tally>,
    pub seconds: f64,
    /// What kept us from looking, or `INTEGRITY`.
    pub code: Option<Code>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
}

impl Tally {
    pub fn count(&mut self, passed: bool) {
        match passed {
            true => self.passed += 1,
            false => self.failed += 1,
        }
    }
}

impl Observation {
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
        Self {
            at,
            database,
            notifications_failed: 0,
            run: Run::Backup(Backup {
                end,
                last_good: history.last_good,
            }),
        }
    }

    /// Something kept us from looking: what was asked for has failed, and nothing is known of the
    /// other.
    pub fn of_failed_verification(
        database: Option<String>,
        drill: bool,
        code: Code,
        begun: Timestamp,
        at: Timestamp,
    ) -> Self {
        let mut sum = Verification {
            seconds: seconds(begun, at),
            code: Some(code),
            ..Verification::asked(drill)
        };
        sum.drill.as_mut().unwrap_or(&mut sum.verify).count(false);
        Self {
            at,
            database,
            notifications_failed: 0,
            run: Run::Verification(sum),
        }
    }
}

impl Verification {
    pub fn asked(drill: bool) -> Self {
        Self {
            drill: drill.then(Tally::default),
            ..Self::default()
        }
    }
}

fn seconds(begun: Timestamp, ended: Timestamp) -> f64 {
    ended.duration_since(begun).as_secs_f64().max(0.0)
}

/// Whether anybody wants the numbers: they cost some requests.
pub fn wanted(settings: &Metrics) -> bool {
    settings.lines != MetricLines::None || settings.file.is_some()
}

/// Writes what was observed to where the settings say, and gives back what a person should know
/// of that.
pub async fn publish(settings: &Metrics, observations: Vec<Observation>, mut log: impl Write) -> Vec<String> {
    if settings.lines == MetricLines::Emf {
        for observation in &observations {
            let line = emf::line(observation, &settings.namespace, &settings.service);
            // One write, so that no other line comes in between. Nobody can be told if it fails.
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
        Ok(Err(_)) => format!("the metrics were not written to {shown}: the work was cut off"),
        Err(_) => format!("the metrics were not written to {shown}: its folder does not answer"),
    };
    tracing::warn!("{problem}");
    vec![problem]
}

#[cfg(test)]
mod tests;
