//! A session of ours watches what a restore may wait for without a limit of its own: a lock of another session, and a
//! server that answers no session any more.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::error::{Code, Error, Result};
use crate::postgres::{Session, not_locked};

const PAUSE: Duration = Duration::from_secs(1);

/// Watches the sessions of one name.
#[derive(Clone, Copy)]
pub(crate) struct LockWatch<'a> {
    pub session: &'a Session,
    /// A name that no other program uses.
    pub name: &'a str,
    pub wait: Duration,
    /// How long the server may leave the session without an answer.
    pub stall: Duration,
}

/// Returns when one of them has waited too long for a lock, and names the holders. Never returns if nothing is
/// watched.
pub(super) async fn too_long(watch: Option<LockWatch<'_>>) -> Error {
    let Some(watch) = watch else {
        return std::future::pending().await;
    };
    let mut since: HashMap<i32, Instant> = HashMap::new();
    loop {
        tokio::time::sleep(PAUSE).await;
        let asking = watch.session.kept_waiting(watch.name);
        let Ok(waiting) = tokio::time::timeout(watch.stall, asking).await else {
            return silent(watch.stall);
        };
        // What cannot be seen is not judged.
        let waiting = waiting.unwrap_or_default();
        let still: HashSet<i32> = waiting.iter().map(|(process, _)| *process).collect();
        since.retain(|process, _| still.contains(process));
        for (process, holders) in waiting {
            let begun = since.entry(process).or_insert_with(Instant::now);
            if begun.elapsed() >= watch.wait {
                return not_locked(watch.wait, "what pg_restore needs", &holders);
            }
        }
    }
}

/// Runs work in sessions of its own for as long as the server answers this one, which nothing else uses meanwhile.
pub(super) async fn while_it_answers<T>(
    session: &Session,
    stall: Duration,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let asking = async {
        loop {
            tokio::time::sleep(PAUSE).await;
            // The end of this session says nothing about the others.
            if tokio::time::timeout(stall, session.answers()).await.is_err() {
                return silent(stall);
            }
        }
    };
    tokio::select! {
        biased;
        done = work => done,
        error = asking => Err(error),
    }
}

fn silent(stall: Duration) -> Error {
    let what = format!("the server has answered no question for {} s", stall.as_secs());
    Error::new(Code::Stalled, what)
}
