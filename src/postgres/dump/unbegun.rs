//! Why a pg_dump ended before it gave anything usable.

use std::time::Duration;

use crate::error::{Code, Error};

/// How long pg_dump may wait for a lock on a table that pgstow already holds. If it takes longer, another session has
/// queued for a lock in between and waits for pgstow. A new attempt lets that session go first.
const BRIEFLY: Duration = Duration::from_secs(2);

/// Why a pg_dump gave nothing usable.
#[derive(Debug)]
pub enum Unbegun {
    /// It did not get its locks, although only pgstow can hold them.
    Crossed(Error),
    /// The server reports in another language than English why a query failed: perhaps a table was dropped in
    /// between. One more attempt shows it.
    Unclear(Error),
    /// The server's lock table has no room for pg_dump's locks beside pgstow's.
    NoRoom(Error),
    Failed(Error),
}

impl From<Unbegun> for Error {
    fn from(unbegun: Unbegun) -> Self {
        match unbegun {
            Unbegun::Crossed(error) | Unbegun::Unclear(error) | Unbegun::NoRoom(error) | Unbegun::Failed(error) => {
                error
            }
        }
    }
}

impl Unbegun {
    /// How long it may wait for a lock while pgstow holds all tables.
    pub fn briefly(lock_wait: Duration) -> Duration {
        match lock_wait {
            Duration::ZERO => BRIEFLY,
            wait => wait.min(BRIEFLY),
        }
    }
}

impl From<Error> for Unbegun {
    fn from(error: Error) -> Self {
        // These are pg_dump's own words, in English whatever language the server uses.
        let says = |words: &str| error.message().contains(words);
        let locks = error.code() != Code::Permission && says("LOCK TABLE");
        // An object was dropped while pg_dump ran, because pg_dump reads the catalog in its current state.
        let query = error.code() == Code::PgDumpErr && says("query failed");
        let dropped = query && (says("does not exist") || says("cache lookup failed"));
        let deadlock = query && says("deadlock detected");
        let translated = query && !says("ERROR:");
        if (locks || dropped || translated) && says("max_locks_per_transaction") {
            Unbegun::NoRoom(error)
        } else if locks || dropped || deadlock {
            Unbegun::Crossed(error)
        } else if translated {
            Unbegun::Unclear(error)
        } else {
            Unbegun::Failed(error)
        }
    }
}
