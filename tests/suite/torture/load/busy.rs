//! What all sessions of the load share.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pgstow::format::Lsn;

use super::session::{Refused, Session};

/// Every session that commits holds this lock in shared mode from before its commit until the commit can be seen. So
/// while another session holds it alone, there is no transaction whose commit is in the log and is not seen yet.
pub const COMMIT: &str = "SELECT pg_advisory_xact_lock_shared(1); COMMIT";

/// How much log may be written before the server tells the result of a statement.
const UNKNOWN: u64 = 64 << 20;

/// A definition that was changed: some time between these positions.
#[derive(Debug, Clone)]
pub struct Redefined {
    pub table: String,
    pub what: String,
    pub from: Lsn,
    pub to: Lsn,
}

pub struct Busy {
    pub url: String,
    /// A short load: nothing is done that hides what was done before it in the same increment.
    pub is_plain: bool,
    over: AtomicBool,
    pub committed: AtomicUsize,
    /// By SQLSTATE, with the last text.
    refused: Mutex<BTreeMap<String, (usize, String)>>,
    redefined: Mutex<Vec<Redefined>>,
}

pub fn position(session: &Session) -> Result<Lsn, Refused> {
    Ok(session.value("SELECT pg_current_wal_flush_lsn()")?.parse().unwrap())
}

impl Busy {
    pub fn at(url: String, is_plain: bool) -> Self {
        Self {
            url,
            is_plain,
            over: AtomicBool::new(false),
            committed: AtomicUsize::new(0),
            refused: Mutex::default(),
            redefined: Mutex::default(),
        }
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether the session is lost.
    pub fn counts(&self, done: Result<(), Refused>) -> bool {
        let Err(refused) = done else {
            self.committed.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        let is_lost = refused.state.as_ref().is_none_or(|state| state.starts_with("57P"));
        let state = refused.state.unwrap_or_else(|| "lost".to_owned());
        let mut all = self.refused.lock().unwrap();
        let (count, text) = all.entry(state).or_default();
        *count += 1;
        *text = refused.text.chars().take(150).collect();
        is_lost
    }

    pub fn refused(&self) -> BTreeMap<String, (usize, String)> {
        self.refused.lock().unwrap().clone()
    }

    /// Changes the definition of a table by these statements, each a transaction of its own that holds the lock.
    pub fn redefine(&self, session: &Session, table: &str, statements: &[String]) -> Result<(), Refused> {
        let from = position(session)?;
        let mut done = Ok(());
        for statement in statements {
            session.does("SELECT pg_advisory_lock_shared(1)")?;
            done = session.does(statement);
            session.does("SELECT pg_advisory_unlock_shared(1)")?;
            if done.is_err() {
                break;
            }
        }
        // In a crash it is unknown whether it was done.
        let to = position(session).unwrap_or(Lsn(from.0 + UNKNOWN));
        self.redefined.lock().unwrap().push(Redefined {
            table: table.to_owned(),
            what: statements.join("; "),
            from,
            to,
        });
        done
    }

    pub fn redefined(&self) -> Vec<Redefined> {
        self.redefined.lock().unwrap().clone()
    }
}
