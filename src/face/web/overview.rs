//! What the stores say, asked anew when the last answer is too old. Many clients that look at once ask the store once.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;

use crate::app::App;
use crate::command::Command;
use crate::control::Control;
use crate::error::{Code, Error, Result};
use crate::report::Report;
use crate::run::clock::Clock;
use crate::run::progress::Silent;
use crate::run::stop::Stop;

/// How old an answer may be.
const FRESH: SignedDuration = SignedDuration::from_secs(10);
/// A store that takes longer is told as one that does not answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The store's answer, if it comes while a client waits for it.
pub(super) async fn in_time<T>(asked: impl Future<Output = Result<T>>) -> Result<T> {
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    answer.unwrap_or_else(|_| Err(Error::new(Code::Store, "the store did not answer in 20 s")))
}

/// What a store said, and when.
pub(super) struct Seen {
    pub at: Timestamp,
    pub report: Report,
}

/// The last answers, per member and question.
pub(super) struct Overview {
    control: Arc<Control>,
    clock: Clock,
    seen: Vec<Answers>,
}

#[derive(Default)]
struct Answers {
    status: Mutex<Option<Arc<Seen>>>,
    list: Mutex<Option<Arc<Seen>>>,
}

impl Overview {
    pub fn new(control: Arc<Control>, clock: Clock) -> Self {
        let seen = control.fleet().iter().map(|_| Answers::default()).collect();
        Self { control, clock, seen }
    }

    /// `status` of one member.
    pub async fn status(&self, member: usize) -> Result<Arc<Seen>> {
        self.ask(member, &self.seen[member].status, Command::Status { database: None })
            .await
    }

    /// `list` of one member: all databases of its store.
    pub async fn list(&self, member: usize) -> Result<Arc<Seen>> {
        self.ask(member, &self.seen[member].list, Command::List { database: None })
            .await
    }

    /// The next question is put to the store, since a run has changed it.
    pub async fn forget(&self) {
        for answers in &self.seen {
            *answers.status.lock().await = None;
            *answers.list.lock().await = None;
        }
    }

    async fn ask(&self, member: usize, kept: &Mutex<Option<Arc<Seen>>>, command: Command) -> Result<Arc<Seen>> {
        // Held while the store is asked: whoever comes meanwhile waits for the same answer.
        let mut kept = kept.lock().await;
        let now = (self.clock)();
        if let Some(seen) = &*kept
            && (SignedDuration::ZERO..FRESH).contains(&now.duration_since(seen.at))
        {
            return Ok(seen.clone());
        }
        let app: &App = &self.control.fleet()[member].app;
        let report = in_time(app.run(command, Stop::new(), Arc::new(Silent))).await?;
        let seen = Arc::new(Seen { at: now, report });
        *kept = Some(seen.clone());
        Ok(seen)
    }
}
