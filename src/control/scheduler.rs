//! The scheduler: it looks at the clock, and asks for the runs that are due.
//!
//! It remembers nothing that matters: whether a full backup or an increment was missed while no process ran, the store
//! says. So the disk of this machine may be lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::schedule::{Due, Line};
use super::{Action, Asker, Control, OF_SCHEDULES, RunRequest, Submitted};
use crate::error::Result;
use crate::repository::backup_id::BackupKind;
use crate::repository::trigger::Trigger;

/// How often it looks at the clock at the least: a clock may be set, and a machine may sleep.
const LOOK: Duration = Duration::from_secs(20);
/// What was missed begins within this time, so that many machines that start together do not all begin at once.
const SPREAD: i64 = 300;

/// What a schedule starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Full,
    Incremental,
    Cleanup,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Full => "full",
            Kind::Incremental => "incremental",
            Kind::Cleanup => "cleanup",
        }
    }

    fn request(self, database: &str) -> RunRequest {
        let mut request = RunRequest::of(match self {
            Kind::Full | Kind::Incremental => Action::Backup,
            Kind::Cleanup => Action::Prune,
        });
        request.database = Some(database.to_owned());
        if self == Kind::Incremental {
            request.kind = Some(BackupKind::Incremental.name().to_owned());
        }
        request
    }
}

/// One line of one database.
#[derive(Debug, Clone)]
pub struct Plan {
    pub database: String,
    pub kind: Kind,
    pub line: Line,
}

/// When the newest backup of a database and kind was begun; an error if the store cannot be asked.
pub trait Newest: Send + Sync {
    fn newest(&self, database: &str, kind: BackupKind) -> impl Future<Output = Result<Option<Timestamp>>> + Send;
}

/// Asks for runs until it is dropped.
pub async fn keep(control: Arc<Control>, newest: impl Newest) {
    let mut answered: BTreeMap<usize, Timestamp> = BTreeMap::new();
    let mut late: BTreeMap<usize, Timestamp> = BTreeMap::new();
    loop {
        let now = (control.clock)();
        let mut wake: Option<Timestamp> = None;
        let pauses = control.pauses();
        for (at, plan) in control.plans().iter().enumerate() {
            // What it misses meanwhile is made up for once, afterwards.
            if pauses.iter().any(|pause| pause.schedule == plan.kind) {
                continue;
            }
            let done = match answered.get(&at) {
                Some(done) => *done,
                None => match began(plan, now, &newest).await {
                    Ok(done) => *answered.entry(at).or_insert(done),
                    // Asked again soon: a store that is away is no reason for a backup, nor against one.
                    Err(error) => {
                        tracing::warn!("what the schedule missed is not known: {error}");
                        continue;
                    }
                },
            };
            let next = match plan.line.due(done, now) {
                Due::Later(next) => next,
                Due::Now(due) => {
                    if ask(&control, plan, due).await {
                        answered.insert(at, due);
                    }
                    plan.line.next(now)
                }
                Due::Missed(due) => {
                    let start = *late.entry(at).or_insert_with(|| now + spread(plan));
                    if start <= now {
                        if ask(&control, plan, due).await {
                            late.remove(&at);
                            answered.insert(at, due);
                        }
                        plan.line.next(now)
                    } else {
                        Some(start)
                    }
                }
            };
            wake = match (wake, next) {
                (Some(wake), Some(next)) => Some(wake.min(next)),
                (wake, next) => wake.or(next),
            };
        }
        let left = wake.map(|wake| wake.duration_since((control.clock)()));
        let left = left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default();
        let pause = if wake.is_none() {
            LOOK
        } else {
            left.clamp(Duration::from_millis(100), LOOK)
        };
        tokio::time::sleep(pause).await;
    }
}

/// The last moment that counts as answered when the process starts: what the store has since then is the answer.
async fn began(plan: &Plan, now: Timestamp, newest: &impl Newest) -> Result<Timestamp> {
    let kind = match plan.kind {
        Kind::Full => BackupKind::Full,
        Kind::Incremental => BackupKind::Incremental,
        // What is due for removal is removed by the next run as well.
        Kind::Cleanup => return Ok(now),
    };
    let newest = newest.newest(&plan.database, kind).await?;
    Ok(match (newest, plan.kind) {
        (Some(newest), _) => newest.min(now),
        // Without any backup the last due moment was missed.
        (None, Kind::Full) => Timestamp::UNIX_EPOCH,
        // Increments begin when they were started, not because a line stands in the settings.
        (None, _) => now,
    })
}

/// The same for a database each time, so that a restart in between changes nothing.
fn spread(plan: &Plan) -> SignedDuration {
    let digest = Sha256::digest(format!("{} {}", plan.database, plan.kind.name()));
    let number = i64::from(u16::from_be_bytes([digest[0], digest[1]]));
    SignedDuration::from_secs(number % SPREAD)
}

/// Whether the moment has its run. If not, it is asked for again soon.
async fn ask(control: &Arc<Control>, plan: &Plan, due: Timestamp) -> bool {
    let by = Asker {
        name: format!("schedule {}", plan.kind.name()),
        trigger: Trigger::Schedule,
    };
    // A moment has one run, also if two processes look at the clock.
    let key = format!("{OF_SCHEDULES}{}-{}-{due}", plan.database, plan.kind.name());
    let key: String = key
        .chars()
        .map(|c| if c.is_ascii_graphic() { c } else { '_' })
        .take(256)
        .collect();
    let submitted = control.submit(&plan.kind.request(&plan.database), &by, Some(key)).await;
    match &submitted {
        Ok(Submitted::New(id)) => tracing::info!(run = %id, "{} of {} is due", plan.kind.name(), plan.database),
        Ok(Submitted::Same(id)) => tracing::warn!(
            run = %id,
            "{} of {} was due at {due}, while the run before it was not over: left out",
            plan.kind.name(),
            plan.database
        ),
        Err(error) => tracing::error!("{} of {} was not begun: {error}", plan.kind.name(), plan.database),
    }
    submitted.is_ok()
}
