//! The wish that a run end early and in good order, from whoever has it to whoever must obey.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::error::{Code, Error, Result, Signal};

/// Why a run is to end early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Signal(Signal),
    /// The task's time is about to run out; so much was left when the run was told.
    Deadline {
        left: Duration,
    },
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

/// Shared by the face, which requests, and the jobs, which select on [`Stop::requested`]. The
/// clean-up that follows is not to be stopped: whoever cleans up does not look here again.
#[derive(Debug, Clone)]
pub struct Stop {
    reason: watch::Sender<Option<Reason>>,
    /// When a stop will be requested at the latest, where that is known beforehand.
    deadline: Option<Timestamp>,
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

impl Stop {
    pub fn new() -> Self {
        Self {
            reason: watch::Sender::new(None),
            deadline: None,
        }
    }

    /// For a run that somebody will request to stop at `deadline`: a job that can tell that it needs
    /// longer need not begin.
    pub fn before(deadline: Timestamp) -> Self {
        Self {
            deadline: Some(deadline),
            ..Self::new()
        }
    }

    pub fn deadline(&self) -> Option<Timestamp> {
        self.deadline
    }

    /// The first reason stays; says whether this one was it.
    pub fn request(&self, reason: Reason) -> bool {
        self.reason.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(reason);
            first
        })
    }

    /// Without waiting: whether a stop has been requested.
    pub fn reason(&self) -> Option<Reason> {
        *self.reason.borrow()
    }

    /// Waits until a stop is requested; at once if it was.
    pub async fn requested(&self) -> Reason {
        let mut receiver = self.reason.subscribe();
        loop {
            if let Some(reason) = *receiver.borrow_and_update() {
                return reason;
            }
            // `self` holds a sender, so the channel cannot close while we wait.
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// `work`, or the reason's error as soon as a stop is requested; `work` is dropped then.
    pub async fn or_stop<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            reason = self.requested() => Err(reason.into()),
            result = work => result,
        }
    }

    /// As [`Stop::or_stop`], for work whose effect goes on when it is dropped, as a write into a
    /// folder does: it gets `grace` to come to its end, so that the clean-up comes after it.
    pub async fn or_stop_after<T>(&self, grace: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
        if let Some(reason) = self.reason() {
            return Err(reason.into());
        }
        tokio::pin!(work);
        let reason = tokio::select! {
            biased;
            reason = self.requested() => reason,
            result = &mut work => return result,
        };
        // What became of it makes no difference any more.
        let _ = tokio::time::timeout(grace, work).await;
        Err(reason.into())
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
