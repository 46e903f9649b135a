//! What happens, as it happens: the last events in memory, and a stream of those that come. The page's stream, the
//! WebSocket of older clients and the logs all read it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::broadcast;

use super::run::{Run, RunId};
use crate::run::progress::Progress;
use crate::run::telemetry::BACKUP;

/// How many events are kept for clients that come back.
const KEPT: usize = 1_000;
/// How many events a client may be behind. One that is further behind starts anew.
const BEHIND: usize = 256;

/// An event with its place in the order of all events of this process.
#[derive(Debug, Clone, Serialize)]
pub struct LiveEvent {
    /// Rising; with gaps after a restart, since it starts at the clock's milliseconds.
    pub id: u64,
    pub at: Timestamp,
    #[serde(flatten)]
    pub what: Happening,
}

#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type")]
pub enum Happening {
    #[serde(rename = "run.queued")]
    Queued { run: Arc<Run> },
    #[serde(rename = "run.started")]
    Started { run: Arc<Run> },
    #[serde(rename = "run.progress")]
    Progress { id: RunId, progress: Progress },
    #[serde(rename = "run.completed")]
    Completed { run: Arc<Run> },
    #[serde(rename = "run.failed")]
    Failed { run: Arc<Run> },
    #[serde(rename = "run.cancelled")]
    Cancelled { run: Arc<Run> },
    /// The judgement about a database or a store may be another one.
    #[serde(rename = "status.changed")]
    StatusChanged,
}

impl Happening {
    /// The event's name in the streams.
    pub fn name(&self) -> &'static str {
        match self {
            Happening::Queued { .. } => "run.queued",
            Happening::Started { .. } => "run.started",
            Happening::Progress { .. } => "run.progress",
            Happening::Completed { .. } => "run.completed",
            Happening::Failed { .. } => "run.failed",
            Happening::Cancelled { .. } => "run.cancelled",
            Happening::StatusChanged => "status.changed",
        }
    }

    /// The same for the log, with the names that the older systems' files have.
    fn log(&self) {
        let (Happening::Started { run }
        | Happening::Completed { run }
        | Happening::Failed { run }
        | Happening::Cancelled { run }) = self
        else {
            return;
        };
        let id = tracing::field::display(&run.id);
        let (action, database, kind) = (run.action, run.database.as_deref(), run.kind.as_deref());
        let (path, duration) = (run.backup.as_deref(), run.duration_ms());
        match self {
            Happening::Failed { .. } => {
                let error = run.error.as_ref();
                let code = error.map(|error| error.code.name());
                let error = error.map(|error| error.message.as_str());
                tracing::error!(
                    target: BACKUP, run = id, database, backupType = kind, backupPath = path, duration, code, error,
                    "{action} failed"
                );
            }
            Happening::Completed { .. } => {
                let size = run.result.as_ref().and_then(|report| report["bytes_stored"].as_u64());
                tracing::info!(
                    target: BACKUP, run = id, database, backupType = kind, backupPath = path, duration, size,
                    "{action} completed"
                );
            }
            Happening::Cancelled { .. } => {
                tracing::warn!(target: BACKUP, run = id, database, backupType = kind, "{action} cancelled");
            }
            _ => {
                tracing::info!(target: BACKUP, run = id, database, backupType = kind, by = %run.by, "{action} started");
            }
        }
    }
}

/// What a client gets when it begins to listen.
pub struct Listening {
    /// The events since the one that it saw last. `None`: they are no longer known, so it must read everything anew.
    pub missed: Option<Vec<Arc<LiveEvent>>>,
    pub coming: broadcast::Receiver<Arc<LiveEvent>>,
}

/// The events of this process.
pub struct Live {
    state: Mutex<State>,
    sender: broadcast::Sender<Arc<LiveEvent>>,
}

struct State {
    kept: VecDeque<Arc<LiveEvent>>,
    next: u64,
    /// The first id of this process.
    first: u64,
}

impl Live {
    pub fn new(now: Timestamp) -> Self {
        let first = u64::try_from(now.as_millisecond()).unwrap_or_default();
        Self {
            state: Mutex::new(State {
                kept: VecDeque::new(),
                next: first,
                first,
            }),
            sender: broadcast::Sender::new(BEHIND),
        }
    }

    pub fn tell(&self, at: Timestamp, what: Happening) {
        what.log();
        let mut state = self.state();
        let event = Arc::new(LiveEvent {
            id: state.next,
            at,
            what,
        });
        state.next += 1;
        if state.kept.len() == KEPT {
            state.kept.pop_front();
        }
        state.kept.push_back(event.clone());
        // Under the lock, so that the order of the stream is the order of the ids. Without listeners nothing is lost.
        let _ = self.sender.send(event);
    }

    /// Begins to listen after the event `last`, or from now on.
    pub fn listen(&self, last: Option<u64>) -> Listening {
        let state = self.state();
        let coming = self.sender.subscribe();
        let missed = match last {
            None => Some(Vec::new()),
            Some(last) => {
                let oldest = state.kept.front().map_or(state.first, |event| event.id);
                let is_known = last.saturating_add(1) >= oldest && last < state.next;
                is_known.then(|| state.kept.iter().filter(|event| event.id > last).cloned().collect())
            }
        };
        Listening { missed, coming }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is ever half done under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Live {
        Live::new(Timestamp::from_millisecond(1_000_000).unwrap())
    }

    fn tell(live: &Live) {
        live.tell(Timestamp::UNIX_EPOCH, Happening::StatusChanged);
    }

    fn ids(events: Option<Vec<Arc<LiveEvent>>>) -> Option<Vec<u64>> {
        events.map(|events| events.iter().map(|event| event.id).collect())
    }

    #[tokio::test]
    async fn who_comes_back_gets_what_was_missed_and_then_what_comes() {
        let live = live();
        for _ in 0..3 {
            tell(&live);
        }
        let mut listening = live.listen(Some(1_000_000));
        assert_eq!(ids(listening.missed), Some(vec![1_000_001, 1_000_002]));
        tell(&live);
        assert_eq!(listening.coming.recv().await.unwrap().id, 1_000_003);
        assert_eq!(ids(live.listen(None).missed), Some(vec![]));
        assert_eq!(ids(live.listen(Some(1_000_003)).missed), Some(vec![]));
    }

    #[test]
    fn what_is_no_longer_known_or_of_another_process_is_said_to_be_unknown() {
        let live = live();
        assert_eq!(ids(live.listen(Some(999_998)).missed), None);
        assert_eq!(
            ids(live.listen(Some(1_000_000)).missed),
            None,
            "it has not happened yet"
        );
        for _ in 0..KEPT + 5 {
            tell(&live);
        }
        assert_eq!(ids(live.listen(Some(1_000_003)).missed), None);
        assert_eq!(ids(live.listen(Some(1_000_004)).missed).unwrap().len(), KEPT);
        assert_eq!(ids(live.listen(Some(u64::MAX)).missed), None);
    }

    #[test]
    fn an_event_names_its_type_once() {
        let event = LiveEvent {
            id: 7,
            at: Timestamp::UNIX_EPOCH,
            what: Happening::StatusChanged,
        };
        let written = serde_json::to_value(&event).unwrap();
        assert_eq!(written["type"], event.what.name());
        assert_eq!(written["id"], 7);
    }
}
