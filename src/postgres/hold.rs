//! A session that holds every table as it is, from before the snapshot was taken.
//!
//! A table that is emptied or rewritten after a snapshot and before its lock has no rows for that
//! snapshot: `TRUNCATE` and most rewrites of `ALTER TABLE` ignore who can still see the old rows.
//! So the locks come first. `LOCK TABLE` takes no snapshot, and what is committed when it returns
//! is seen by the snapshot that comes after it.
//!
//! Only plain tables have this trap. Partitioned tables have no rows of their own, and are locked
//! so that they stay what they are. Materialized views are filled anew by a restore; the rows of
//! sequences and of the catalogs (large objects among them) are seen by every snapshot, whoever
//! rewrites them.

use std::collections::HashSet;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::dump::lock_timed_out;
use super::holders::in_the_way;
use super::tables::TABLES;
use super::{Refusal, Row, Session, Snapshot, Wire};
use crate::error::{Code, Error, Result};
use crate::units::count;

/// Names in one LOCK statement.
const AT_ONCE: usize = 1000;
/// How often the tables are listed again when one of them is gone before its lock. No snapshot is
/// there yet, so that nothing is lost but the moment.
const LISTED: usize = 10;

/// As [`TABLES`] goes on: those that are not what the snapshot of the transaction sees.
/// `relfilenode` comes from the snapshot, `pg_relation_filenode` from this moment.
const CHANGED: &str = "AND c.relkind = 'r' AND pg_catalog.pg_relation_filenode(c.oid) IS DISTINCT FROM c.relfilenode";

/// Rows come in the order in which they lie in the table, whoever reads.
pub(crate) const PLANS: &str = "SET enable_tidscan = on; SET enable_seqscan = on; SET enable_indexscan = off;
    SET enable_indexonlyscan = off; SET enable_bitmapscan = off";

/// What became of the attempt to hold the tables.
pub enum Taken {
    /// All of them, since before the snapshot, which [`Session`] has exported.
    Held(Hold, Snapshot),
    /// A table is not what it was when the snapshot was taken. No snapshot is open.
    Changed(String),
    /// Why they cannot be held: no room for so many locks, or no connection. No snapshot is open.
    Unheld(String),
}

/// The session, in a transaction that sees the snapshot.
pub struct Hold {
    wire: Wire,
}

impl Hold {
    /// Locks all tables, and has `session` export a snapshot then. Each lock is waited for as
    /// pg_dump waits for its own.
    pub async fn take(session: &Session, lock_wait: Duration) -> Result<Taken> {
        let mut wire = match session.open_wire().await {
            Ok(wire) => wire,
            Err(error) => return Ok(Taken::Unheld(error.message())),
        };
        let known = match lock_all(&mut wire, lock_wait).await? {
            Ok(known) => known,
            Err(other) => {
                wire.close().await;
                return Ok(other);
            }
        };
        let snapshot = session.export_snapshot().await?;
        let changed = match see(&mut wire, &snapshot.id).await {
            Ok(()) => rest(&mut wire, &known, lock_wait).await?,
            Err(error) => return Err(error),
        };
        match changed {
            None => Ok(Taken::Held(Self { wire }, snapshot)),
            Some(why) => {
                wire.close().await;
                session.release_snapshot().await?;
                Ok(Taken::Changed(why))
            }
        }
    }

    /// For who reads in this session. The locks are kept until its transaction ends.
    pub(crate) fn into_wire(self) -> Wire {
        self.wire
    }

    /// Lets go of the tables; returns when the server has. An error if it had before: a session that holds
    /// locks and does nothing else is ended by administrators, and by a standby that wants to go on.
    pub async fn release(mut self) -> Result<()> {
        let held = self.wire.execute(b"COMMIT").await.map_err(Refusal::into_error);
        self.wire.close().await;
        held
    }
}

impl Session {
    /// The tables (with their schemas) whose rows the exported snapshot sees no more, at this moment.
    pub async fn changed_tables(&self) -> Result<Vec<String>> {
        let question = format!("SELECT n.nspname || '.' || c.relname FROM {TABLES} {CHANGED}");
        let names = self.names(&question).await;
        names.map_err(|error| self.error("cannot look whether the tables have changed", &error))
    }
}

/// Makes the session see what the snapshot sees.
pub(crate) async fn see(wire: &mut Wire, snapshot: &str) -> Result<()> {
    let statement = format!("SET TRANSACTION SNAPSHOT '{snapshot}'");
    wire.execute(statement.as_bytes()).await.map_err(|refusal| {
        let text = format!(
            "a second session cannot see the snapshot: {}",
            refusal.into_error().message()
        );
        Error::new(Code::ConnErr, text).hint(
            "it reached another server than our first session (a balanced name), or that session was cut (on a \
             standby, by a conflict with replay), or a pooler in transaction mode is in between: connect to one \
             server itself",
        )
    })
}

/// Which tables there are: OID and name.
type Known = HashSet<(Vec<u8>, Vec<u8>)>;

/// What a LOCK statement came to.
enum Locked {
    All,
    Gone(String),
    NoRoom,
}

/// Locks all tables in a transaction that has no snapshot yet. The inner `Err` is what else is to
/// be done.
async fn lock_all(wire: &mut Wire, lock_wait: Duration) -> Result<Result<Known, Taken>> {
    let settings = format!("{PLANS}; SET lock_timeout = {}", lock_wait.as_millis());
    wire.execute(settings.as_bytes()).await.map_err(Refusal::into_error)?;
    // A server that waits for a lock does not see that we are gone, unless it is told to look. Older than
    // 14, and on some systems, it cannot.
    match wire.execute(b"SET client_connection_check_interval = 500").await {
        Ok(()) | Err(Refusal::Server { .. }) => {}
        Err(Refusal::Broken(error)) => return Err(error),
    }
    let mut gone = String::new();
    for _ in 0..LISTED {
        // By itself, so that what comes next has no snapshot.
        let tables = list(wire).await?;
        wire.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            .await
            .map_err(Refusal::into_error)?;
        match lock(wire, tables.iter(), lock_wait).await? {
            Locked::All => return Ok(Ok(tables.iter().map(known).collect())),
            Locked::NoRoom => {
                return Ok(Err(Taken::Unheld(format!(
                    "the server's lock table has no room for {} a second time: raise max_locks_per_transaction",
                    count(tables.len(), "table")
                ))));
            }
            Locked::Gone(what) => gone = what,
        }
        wire.execute(b"ROLLBACK").await.map_err(Refusal::into_error)?;
    }
    Ok(Err(Taken::Changed(gone)))
}

/// Locks what has come, or got another name, since the list was made; says what the snapshot does
/// not see any more.
async fn rest(wire: &mut Wire, known_before: &Known, lock_wait: Duration) -> Result<Option<String>> {
    let tables = list(wire).await?;
    let new = tables.iter().filter(|row| !known_before.contains(&known(row)));
    match lock(wire, new, lock_wait).await? {
        Locked::All => {}
        Locked::Gone(what) => return Ok(Some(what)),
        Locked::NoRoom => return Ok(Some("the server's lock table has no room for new tables".into())),
    }
    let question = format!("SELECT n.nspname || '.' || c.relname FROM {TABLES} {CHANGED} LIMIT 1");
    let changed = wire.query(question.as_bytes()).await.map_err(Refusal::into_error)?;
    Ok(changed.first().map(|row| {
        let name = String::from_utf8_lossy(row.bytes(0).unwrap_or_default()).into_owned();
        format!("{name} was emptied, rewritten or dropped")
    }))
}

async fn list(wire: &mut Wire) -> Result<Vec<Row>> {
    let question = format!(
        "SELECT c.oid, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
         FROM {TABLES} ORDER BY c.oid"
    );
    wire.query(question.as_bytes()).await.map_err(Refusal::into_error)
}

fn known(row: &Row) -> (Vec<u8>, Vec<u8>) {
    let column = |number| row.bytes(number).unwrap_or_default().to_vec();
    (column(0), column(1))
}

async fn lock(wire: &mut Wire, tables: impl Iterator<Item = &Row>, lock_wait: Duration) -> Result<Locked> {
    let names: Vec<&[u8]> = tables.map(|row| row.bytes(1).unwrap_or_default()).collect();
    for some in names.chunks(AT_ONCE) {
        match wire.execute(&lock_statement(some)).await {
            Ok(()) => {}
            Err(refusal) if refusal.is(&SqlState::OUT_OF_MEMORY) => return Ok(Locked::NoRoom),
            Err(refusal) if is_gone(&refusal) => {
                return Ok(Locked::Gone(refusal.into_error().message()));
            }
            Err(refusal) if refusal.is(&SqlState::LOCK_NOT_AVAILABLE) => {
                let mut text = format!("cannot lock the tables for reading: {}", refusal.into_error().message());
                let held = held_by_others(wire).await;
                if !held.is_empty() {
                    text = format!("{text}; others hold or want {held}");
                }
                return Err(Error::new(Code::PgDumpErr, text).hint(lock_timed_out(lock_wait)));
            }
            Err(refusal) => return Err(refusal.of_reading("cannot lock the tables for reading")),
        }
    }
    Ok(Locked::All)
}

/// Nothing if it cannot be known.
async fn held_by_others(wire: &mut Wire) -> String {
    let question = format!("ROLLBACK; {}", in_the_way());
    let rows = wire.query(question.as_bytes()).await.unwrap_or_default();
    let names = rows
        .iter()
        .map(|row| String::from_utf8_lossy(row.bytes(0).unwrap_or_default()).into_owned());
    names.collect::<Vec<_>>().join(", ")
}

/// Dropped or renamed, and perhaps something else of that name is there now: all begins again.
fn is_gone(refusal: &Refusal) -> bool {
    let states = [
        // Somebody wants the same tables in another order, and may have changed one of them.
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::UNDEFINED_TABLE,
        SqlState::INVALID_SCHEMA_NAME,
        SqlState::WRONG_OBJECT_TYPE,
    ];
    states.iter().any(|state| refusal.is(state))
}

fn lock_statement(names: &[&[u8]]) -> Vec<u8> {
    let mut statement = b"LOCK TABLE ".to_vec();
    for (index, name) in names.iter().enumerate() {
        statement.extend_from_slice(if index == 0 { b"ONLY " } else { b", ONLY " });
        statement.extend_from_slice(name);
    }
    statement.extend_from_slice(b" IN ACCESS SHARE MODE");
    statement
}
