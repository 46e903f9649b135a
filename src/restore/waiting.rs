//! A pg_restore that waits for somebody's lock: it sets no limit of its own, so that a session of ours looks after it.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::postgres::{Session, not_locked};

const PAUSE: Duration = Duration::from_secs(1);

/// Looks after the sessions of one name.
#[derive(Clone, Copy)]
pub(crate) struct Watch<'a> {
    pub session: &'a Session,
    /// Which no other program has.
    pub name: &'a str,
    pub wait: Duration,
}

/// Returns when one of them has waited for others' locks for too long, and says whose. Never, where nobody watches.
pub(super) async fn too_long(watch: Option<Watch<'_>>) -> Error {
    let Some(watch) = watch else {
        return std::future::pending().await;
    };
    let mut since: HashMap<i32, Instant> = HashMap::new();
    loop {
        tokio::time::sleep(PAUSE).await;
        // What cannot be seen is not judged.
        let waiting = watch.session.kept_waiting(watch.name).await.unwrap_or_default();
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
