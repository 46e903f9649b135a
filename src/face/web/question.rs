//! A question that many clients put to a store: it is asked once at a time, and a store that hangs keeps nobody waiting
//! for longer than a first answer may take.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{Code, Error, ErrorReport, Result};
use crate::run::clock::Clock;

/// How old an answer may be before the store is asked again.
const FRESH: SignedDuration = SignedDuration::from_secs(10);
/// An answer older than this says nothing about now.
const STALE: SignedDuration = SignedDuration::from_secs(60);
/// How long a client waits for an answer where there is none yet.
pub(super) const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 300 } else { 20_000 });
/// And where the last one can be told instead.
const QUICK: Duration = Duration::from_secs(2);
/// After this time a store that hangs is asked anew.
const LONGEST: Duration = Duration::from_secs(120);

/// What a store said, and when.
pub(super) struct Seen<T> {
    pub at: Timestamp,
    pub report: T,
}

pub(super) struct Question<T> {
    clock: Clock,
    quick: Duration,
    kept: Mutex<Kept<T>>,
}

struct Kept<T> {
    seen: Option<Arc<Seen<T>>>,
    /// Newer than `seen`.
    failed: Option<(Timestamp, ErrorReport)>,
    /// The round in which the store was asked for the newer of the two.
    round: u64,
    asking: Option<Asking>,
}

#[derive(Clone)]
struct Asking {
    since: Instant,
    /// Its other end goes when the answer is kept.
    done: watch::Receiver<()>,
}

impl<T: Send + Sync + 'static> Question<T> {
    pub fn new(clock: Clock) -> Arc<Self> {
        Self::within(clock, QUICK)
    }

    fn within(clock: Clock, quick: Duration) -> Arc<Self> {
        Arc::new(Self {
            clock,
            quick,
            kept: Mutex::new(Kept {
                seen: None,
                failed: None,
                round: 0,
                asking: None,
            }),
        })
    }

    /// The store's answer, at most a minute old; or why there is none. A `round` ends whenever a run may have changed
    /// the store: what it said in an earlier one is not told, unless it hangs.
    pub async fn answer<F>(self: &Arc<Self>, round: u64, ask: impl Fn() -> F) -> Result<Arc<Seen<T>>>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        // The answer that is on its way may be of before a run's end; the next one is not.
        for _ in 0..2 {
            let (mut asking, until) = {
                let mut kept = self.kept();
                if let Some(answer) = kept.fresh(round, (self.clock)()) {
                    return answer;
                }
                let asking = match &kept.asking {
                    Some(asking) => asking.clone(),
                    None => {
                        let asking = self.begin(round, ask());
                        kept.asking.insert(asking).clone()
                    }
                };
                let patience = match kept.last((self.clock)()).is_some() || kept.failed.is_some() {
                    true => self.quick,
                    false => PATIENCE,
                };
                // Who comes late waits no longer than who came first.
                let until = (Instant::now() + patience).min(asking.since + PATIENCE);
                (asking, until)
            };
            if tokio::time::timeout_at(until, asking.done.changed()).await.is_err() {
                break;
            }
        }
        let now = (self.clock)();
        let kept = self.kept();
        match kept.fresh(round, now) {
            Some(answer) => answer,
            None => kept.last(now).cloned().ok_or_else(|| kept.silence(now)),
        }
    }

    fn begin<F>(self: &Arc<Self>, round: u64, ask: F) -> Asking
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (ending, done) = watch::channel(());
        let begun = (self.clock)();
        let question = self.clone();
        tokio::spawn(async move {
            // Dropped with the task, however that ends. Made here, because a runtime that ends drops the task at once,
            // while the caller holds the lock.
            let on_the_way = OnTheWay {
                question,
                _ending: ending,
            };
            let silent = || {
                Err(Error::new(
                    Code::Store,
                    format!("the store did not answer in {LONGEST:?}"),
                ))
            };
            let answer = tokio::time::timeout(LONGEST, ask).await.unwrap_or_else(|_| silent());
            let question = &on_the_way.question;
            let now = (question.clock)();
            let mut kept = question.kept();
            match answer {
                Ok(report) => {
                    kept.seen = Some(Arc::new(Seen { at: begun, report }));
                    kept.failed = None;
                }
                Err(error) => kept.failed = Some((now, ErrorReport::from(&error))),
            }
            kept.round = round;
        });
        Asking {
            since: Instant::now(),
            done,
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept<T>> {
        // Each change is whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct OnTheWay<T: Send + Sync + 'static> {
    question: Arc<Question<T>>,
    /// Those who wait hear that it is gone.
    _ending: watch::Sender<()>,
}

impl<T: Send + Sync + 'static> Drop for OnTheWay<T> {
    fn drop(&mut self) {
        self.question.kept().asking = None;
    }
}

impl<T> Kept<T> {
    /// What needs no new question: a failure as well, since a store that is away is not asked by each client.
    fn fresh(&self, round: u64, now: Timestamp) -> Option<Result<Arc<Seen<T>>>> {
        if self.round < round {
            return None;
        }
        let is_fresh = |at: Timestamp| (SignedDuration::ZERO..FRESH).contains(&now.duration_since(at));
        if let Some((at, error)) = &self.failed {
            return is_fresh(*at).then(|| Err(again(error)));
        }
        let seen = self.seen.as_ref()?;
        is_fresh(seen.at).then(|| Ok(seen.clone()))
    }

    /// The last answer, if nothing has gone wrong since, and it still says something.
    fn last(&self, now: Timestamp) -> Option<&Arc<Seen<T>>> {
        let seen = self.seen.as_ref().filter(|_| self.failed.is_none())?;
        (now.duration_since(seen.at) < STALE).then_some(seen)
    }

    /// Why there is no answer.
    fn silence(&self, now: Timestamp) -> Error {
        if let Some((_, error)) = &self.failed {
            return again(error);
        }
        let last = self.seen.as_ref().map(|seen| now.duration_since(seen.at).as_secs());
        Error::new(
            Code::Store,
            match last {
                Some(seconds) => format!("the store has not answered for {seconds} s"),
                None => "the store has not answered yet".to_owned(),
            },
        )
    }
}

fn again(error: &ErrorReport) -> Error {
    Error::new(error.code, error.message.clone()).hint(error.hint.clone())
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

    use super::*;

    static NOW: AtomicI64 = AtomicI64::new(1_000);

    fn clock() -> Timestamp {
        Timestamp::from_second(NOW.load(Relaxed)).unwrap()
    }

    async fn told(question: &Arc<Question<u8>>, round: u64, answer: Result<u8, Code>) -> Result<u8, Code> {
        let ask = || ready(answer.map_err(|code| Error::new(code, "it is away")));
        let told = question.answer(round, ask).await;
        told.map(|seen| seen.report).map_err(|error| error.code())
    }

    #[tokio::test]
    async fn a_store_is_asked_once_at_a_time_and_a_hanging_one_makes_no_queue() {
        let question = Question::within(clock, Duration::from_millis(50));
        assert_eq!(told(&question, 0, Ok(1)).await, Ok(1));
        assert_eq!(told(&question, 0, Ok(2)).await, Ok(1), "it is fresh");
        assert_eq!(told(&question, 1, Ok(3)).await, Ok(3), "a run has changed the store");
        // From now on the store hangs. All clients together wait for one question, and get the last answer.
        NOW.fetch_add(30, Relaxed);
        let asked = std::sync::atomic::AtomicU64::new(0);
        let ask = || {
            asked.fetch_add(1, Relaxed);
            pending::<Result<u8>>()
        };
        let clients = (0..50).map(|_| question.answer(1, ask));
        let answers = futures::future::join_all(clients).await;
        assert!(answers.iter().all(|answer| answer.as_ref().unwrap().report == 3));
        assert_eq!(asked.load(Relaxed), 1);
        // The last answer grows too old: then it is said that there is none.
        NOW.fetch_add(60, Relaxed);
        let silent = question.answer(1, ask).await.err().unwrap();
        assert_eq!(
            (silent.code(), silent.message().as_str()),
            (Code::Store, "the store has not answered for 90 s")
        );
    }

    #[tokio::test]
    async fn a_failure_is_told_to_all_for_a_while_or_until_a_run_has_ended() {
        fn still() -> Timestamp {
            Timestamp::UNIX_EPOCH
        }
        let question = Question::new(still);
        assert_eq!(told(&question, 0, Err(Code::Store)).await, Err(Code::Store));
        assert_eq!(told(&question, 0, Ok(1)).await, Err(Code::Store));
        assert_eq!(told(&question, 1, Ok(2)).await, Ok(2));
    }
}
