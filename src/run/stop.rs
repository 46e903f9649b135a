//! A request to stop cleanly, passed from a face to the jobs.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::error::{Code, Error, Result, Signal};

/// Why a run must stop early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The process got this signal.
    Signal(Signal),
    /// The task's time is about to run out.
    Deadline {
        /// What remained of the time at the request.
        left: Duration,
    },
    /// A person or a program no longer wants the run.
    Cancelled,
}

impl From<Reason> for Error {
    fn from(reason: Reason) -> Error {
        match reason {
            Reason::Signal(signal) => {
                let name = match signal {
                    Signal::Interrupt => "SIGINT",
                    Signal::Terminate => "SIGTERM",
                };
                Error::new(Code::Interrupted(signal), format!("the run was stopped by {name}"))
            }
            Reason::Cancelled => Error::new(Code::Interrupted(Signal::Terminate), "the run was cancelled")
                .hint("ask for it again, if it is wanted after all"),
            Reason::Deadline { left } => Error::new(
                Code::Deadline,
                format!(
                    "the task's time is about to run out: {:.1} s were left for the clean-up",
                    left.as_secs_f64()
                ),
            ),
        }
    }
}

/// How long the clean-up may take after a signal: container runtimes and service managers kill a process that has not
/// ended after 10 s or more.
const AFTER_A_SIGNAL: Duration = Duration::from_secs(7);
/// And how long the message to people may take then.
const TELLING: Duration = Duration::from_secs(2);

impl Reason {
    /// The time for the clean-up, from the request on. At a deadline, two fifths are kept for the handover and for
    /// the message to people.
    fn for_cleaning_up(self) -> Duration {
        match self {
            Reason::Signal(_) | Reason::Cancelled => AFTER_A_SIGNAL,
            Reason::Deadline { left } => left * 3 / 5,
        }
    }

    fn in_all(self) -> Duration {
        match self {
            Reason::Signal(_) | Reason::Cancelled => AFTER_A_SIGNAL + TELLING,
            // The remaining time is for the answer.
            Reason::Deadline { left } => left * 19 / 20,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Wish {
    reason: Reason,
    at: Instant,
}

/// Shared by the face, which requests a stop, and the jobs, which select on [`Stop::requested`]. The clean-up
/// afterwards is not stopped, but must end in time: [`Stop::in_time`].
#[derive(Debug, Clone)]
pub struct Stop {
    wish: watch::Sender<Option<Wish>>,
    /// When a stop will be requested at the latest, if that is known beforehand.
    deadline: Option<Timestamp>,
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

impl Stop {
    /// Nothing asks the run to stop yet.
    pub fn new() -> Self {
        Self {
            wish: watch::Sender::new(None),
            deadline: None,
        }
    }

    /// For a run that will be stopped at `deadline`: a job that needs longer should not start.
    pub fn before(deadline: Timestamp) -> Self {
        Self {
            deadline: Some(deadline),
            ..Self::new()
        }
    }

    /// When the run must have ended, if it must.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.deadline
    }

    /// Only the first request counts; returns whether this was the first.
    pub fn request(&self, reason: Reason) -> bool {
        self.wish.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(Wish {
                reason,
                at: Instant::now(),
            });
            first
        })
    }

    /// The reason of a requested stop, without waiting.
    pub fn reason(&self) -> Option<Reason> {
        self.wish.borrow().map(|wish| wish.reason)
    }

    /// Waits until a stop is requested; returns at once if it was already.
    pub async fn requested(&self) -> Reason {
        self.wished().await.reason
    }

    async fn wished(&self) -> Wish {
        let mut receiver = self.wish.subscribe();
        loop {
            if let Some(wish) = *receiver.borrow_and_update() {
                return wish;
            }
            // `self` holds a sender, so the channel cannot close during this wait.
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Does `work`, or returns the reason's error as soon as a stop is requested; `work` is then dropped.
    pub fn or_stop<T>(&self, work: impl Future<Output = Result<T>>) -> impl Future<Output = Result<T>> {
        // Here and below the work goes onto the heap: otherwise each step of a job would hold all steps below it, twice,
        // and together they would not fit on a thread's stack.
        let work = Box::pin(work);
        async move {
            tokio::select! {
                biased;
                reason = self.requested() => Err(reason.into()),
                result = work => result,
            }
        }
    }

    /// Does `work` that cleans up. Until a stop is requested, its time is not limited. From then on it must end
    /// together with the rest of the clean-up; otherwise it is dropped, and the next run removes what is left.
    pub fn in_time<T>(&self, work: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
        let work = Box::pin(work);
        async move {
            tokio::select! {
                biased;
                result = work => Some(result),
                () = self.over(Reason::for_cleaning_up) => None,
            }
        }
    }

    /// The same for work that may fail.
    pub fn or_give_up<T>(&self, what: &str, work: impl Future<Output = Result<T>>) -> impl Future<Output = Result<T>> {
        let done = self.in_time(work);
        async move { done.await.unwrap_or_else(|| Err(self.given_up(what))) }
    }

    /// The same for messages to people after the clean-up.
    pub fn or_leave<T>(&self, what: &str, work: impl Future<Output = Result<T>>) -> impl Future<Output = Result<T>> {
        let work = Box::pin(work);
        async move {
            tokio::select! {
                biased;
                result = work => result,
                () = self.over(Reason::in_all) => Err(self.given_up(what)),
            }
        }
    }

    /// The error of a clean-up that was given up.
    pub fn given_up(&self, what: &str) -> Error {
        let reason = self.reason().map(Error::from);
        let why = reason
            .as_ref()
            .map_or_else(String::new, |reason| format!("{}; ", reason.message()));
        let code = reason.map_or(Code::Deadline, |reason| reason.code());
        Error::new(
            code,
            format!("{why}{what} took longer than the time that was left, and was given up"),
        )
    }

    /// Waits until the time after a stop is over.
    async fn over(&self, time: fn(Reason) -> Duration) {
        let wish = self.wished().await;
        sleep_until(wish.at + time(wish.reason)).await;
    }

    /// As [`Stop::or_stop`], for work that leaves something behind when it completes: after a stop it gets `grace` to
    /// complete, and its result is then undone.
    pub fn or_undo<T>(
        &self,
        grace: Duration,
        work: impl Future<Output = Result<T>>,
        undo: impl AsyncFnOnce(T),
    ) -> impl Future<Output = Result<T>> {
        let mut work = Box::pin(work);
        async move {
            let reason = tokio::select! {
                biased;
                reason = self.requested() => reason,
                result = &mut work => return result,
            };
            if let Ok(Ok(done)) = tokio::time::timeout(grace, work).await {
                self.in_time(undo(done)).await;
            }
            Err(reason.into())
        }
    }

    /// As [`Stop::or_stop`], for work that continues when it is dropped, as a write into a folder does: it gets
    /// `grace` to complete, so that the clean-up starts after it.
    pub fn or_stop_after<T>(
        &self,
        grace: Duration,
        work: impl Future<Output = Result<T>>,
    ) -> impl Future<Output = Result<T>> {
        let mut work = Box::pin(work);
        async move {
            if let Some(reason) = self.reason() {
                return Err(reason.into());
            }
            let reason = tokio::select! {
                biased;
                reason = self.requested() => reason,
                result = &mut work => return result,
            };
            // Its result no longer matters.
            let _ = tokio::time::timeout(grace, work).await;
            Err(reason.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Reason = Reason::Signal(Signal::Terminate);
    const INT: Reason = Reason::Signal(Signal::Interrupt);

    #[tokio::test]
    async fn the_first_reason_reaches_every_clone_and_stays() {
        let stop = Stop::new();
        let waiting = tokio::spawn({
            let stop = stop.clone();
            async move { stop.requested().await }
        });
        assert_eq!(stop.reason(), None);
        assert!(stop.request(TERM));
        assert!(!stop.request(INT));
        assert_eq!(waiting.await.unwrap(), TERM);
        assert_eq!(stop.clone().requested().await, TERM);
    }

    #[tokio::test]
    async fn work_with_an_effect_is_let_come_to_its_end() {
        let stop = Stop::new();
        let mut done = false;
        let work = async {
            stop.request(TERM);
            tokio::time::sleep(Duration::from_millis(20)).await;
            done = true;
            Ok(())
        };
        let grace = Duration::from_secs(60);
        assert!(stop.or_stop_after(grace, work).await.is_err());
        assert!(done);
        let unstarted = async { unreachable!("it was stopped before") };
        stop.or_stop_after::<()>(grace, unstarted).await.unwrap_err();
        let stop = Stop::new();
        let stuck = async {
            stop.request(INT);
            std::future::pending::<Result<()>>().await
        };
        stop.or_stop_after(Duration::from_millis(20), stuck).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_clean_up_takes_its_time_until_a_stop_and_then_ends_with_it() {
        let stop = Stop::new();
        let for_ever = std::future::pending::<()>;
        let slow = tokio::time::sleep(Duration::from_millis(30));
        assert!(stop.in_time(slow).await.is_some());
        stop.request(Reason::Deadline {
            left: Duration::from_millis(100),
        });
        assert!(stop.in_time(for_ever()).await.is_none());
        // All of the clean-up has one time; what is done at once is done all the same.
        assert!(stop.in_time(for_ever()).await.is_none());
        assert_eq!(stop.in_time(async { 7 }).await, Some(7));
        let never = || async {
            for_ever().await;
            Ok(())
        };
        let error = stop.or_give_up("removing", never()).await.unwrap_err();
        assert_eq!(error.code(), Code::Deadline);
        let error = stop.or_leave("telling", never()).await.unwrap_err();
        assert!(error.message().contains("telling took longer"), "{error}");
    }

    #[test]
    fn what_is_kept_for_telling_is_not_the_clean_ups() {
        for left in [10, 2, 1] {
            let reason = Reason::Deadline {
                left: Duration::from_secs(left),
            };
            assert!(reason.for_cleaning_up() * 3 / 2 < reason.in_all() && reason.in_all() < Duration::from_secs(left));
        }
        // A container runtime kills after ten.
        assert!(TERM.in_all() < Duration::from_secs(10) && TERM.for_cleaning_up() < TERM.in_all());
    }

    #[tokio::test]
    async fn what_comes_to_its_end_after_the_wish_is_undone() {
        let stop = Stop::new();
        let mut undone = None;
        let work = async {
            stop.request(TERM);
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(5)
        };
        let undo = async |done| undone = Some(done);
        stop.or_undo(Duration::from_secs(60), work, undo).await.unwrap_err();
        assert_eq!(undone, Some(5));
    }

    #[tokio::test]
    async fn work_that_never_ends_ends_with_the_reasons_error() {
        let stop = Stop::new();
        stop.request(INT);
        let error = stop.or_stop(std::future::pending::<Result<()>>()).await.unwrap_err();
        assert_eq!((error.code().name(), error.code().exit_code()), ("INTERRUPTED", 130));
        let error = Error::from(Reason::Deadline {
            left: Duration::from_secs(3),
        });
        assert_eq!(error.code(), Code::Deadline);
    }
}
