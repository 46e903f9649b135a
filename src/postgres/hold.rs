//! A session that locks every table before the snapshot is taken, so that none is emptied or rewritten meanwhile.
//!
//! If a table is truncated or rewritten after a snapshot and before its lock, that snapshot sees it as empty:
//! `TRUNCATE` and most rewrites of `ALTER TABLE` do not keep the old rows for older snapshots. So the locks come
//! first. `LOCK TABLE` takes no snapshot, and a later snapshot sees everything that was committed when it returned.
//!
//! Only plain tables have this problem. Partitioned tables have no rows of their own; they are locked so that their
//! definition does not change. A restore fills materialized views anew. Every snapshot still sees its rows of
//! sequences and of the catalogs (large objects among them), even after a rewrite.

use std::collections::HashSet;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::dump::lock_timed_out;
use super::holders::in_the_way;
use super::tables::TABLES;
use super::{Refusal, Row, Session, Snapshot, Wire};
use crate::error::{Code, Error, Result};
use crate::units::count;

/// The number of names in one LOCK statement.
const AT_ONCE: usize = 1000;
/// How often the tables are listed again if one of them is gone before its lock. There is no snapshot yet, so a new
/// list costs only a moment.
const LISTED: usize = 10;

/// Continues [`TABLES`]: tables that differ from what the transaction's snapshot sees. `relfilenode` comes from the
/// snapshot; `pg_relation_filenode` reads the current value.
const CHANGED: &str = "AND c.relkind = 'r' AND pg_catalog.pg_relation_filenode(c.oid) IS DISTINCT FROM c.relfilenode";

/// With these settings every reader gets the rows in the order in which the table stores them.
pub(crate) const PLANS: &str = "SET enable_tidscan = on; SET enable_seqscan = on; SET enable_indexscan = off;
    SET enable_indexonlyscan = off; SET enable_bitmapscan = off";

/// The result of the attempt to lock the tables.
pub enum Taken {
    /// All tables have been locked since before the snapshot, which [`Session`] has exported.
    Held(Hold, Snapshot),
    /// A table has changed since the snapshot was taken. No snapshot is open.
    Changed(String),
    /// Why the tables cannot be locked: no room for so many locks, or no connection. No snapshot is open.
    Unheld(String),
}

/// The session that holds the locks, in a transaction that sees the snapshot.
pub struct Hold {
    wire: Wire,
}

impl Hold {
    /// Locks all tables, and then has `session` export a snapshot. It waits for each lock as long as pg_dump would.
    pub async fn take(session: &Session, lock_wait: Duration) -> Result<Taken> {
        Self::take_chosen(session, lock_wait, &Chosen::all()).await
    }

    /// The same with only the tables that have these OIDs.
    pub async fn take_of(session: &Session, lock_wait: Duration, oids: &[u32]) -> Result<Taken> {
        Self::take_chosen(session, lock_wait, &Chosen::of(oids)).await
    }

    async fn take_chosen(session: &Session, lock_wait: Duration, chosen: &Chosen) -> Result<Taken> {
        let mut wire = match session.open_wire().await {
            Ok(wire) => wire,
            Err(error) => return Ok(Taken::Unheld(error.message())),
        };
        let known = match lock_all(&mut wire, lock_wait, chosen).await? {
            Ok(known) => known,
            Err(other) => {
                wire.close().await;
                return Ok(other);
            }
        };
        let snapshot = session.export_snapshot().await?;
        let changed = match see(&mut wire, &snapshot.id).await {
            Ok(()) => rest(&mut wire, &known, lock_wait, chosen).await?,
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

    /// For a reader that uses this session. The locks stay until its transaction ends.
    pub(crate) fn into_wire(self) -> Wire {
        self.wire
    }

    /// Releases the tables; returns when the server has done so. It is an error if the session had already ended:
    /// administrators end sessions that hold locks and do nothing else, and so does a standby that has to replay.
    pub async fn release(mut self) -> Result<()> {
        let held = self.wire.execute(b"COMMIT").await.map_err(Refusal::into_error);
        self.wire.close().await;
        held
    }
}

impl Session {
    /// The tables (with their schemas) whose rows the exported snapshot can no longer see, at this moment.
    pub async fn changed_tables(&self) -> Result<Vec<String>> {
        let question = format!("SELECT n.nspname || '.' || c.relname FROM {TABLES} {CHANGED}");
        let names = self.names(&question).await;
        names.map_err(|error| self.error("cannot look whether the tables have changed", &error))
    }
}

/// Makes the session use the exported snapshot.
pub(crate) async fn see(wire: &mut Wire, snapshot: &str) -> Result<()> {
    let statement = format!("SET TRANSACTION SNAPSHOT '{snapshot}'");
    wire.execute(statement.as_bytes()).await.map_err(|refusal| {
        let text = format!(
            "a second session cannot see the snapshot: {}",
            refusal.into_error().message()
        );
        Error::new(Code::ConnErr, text).hint(
            "it reached another server than pgstow's first session (a balanced name), or that session was cut (on a \
             standby, by a conflict with replay), or a pooler in transaction mode is in between: connect to one \
             server itself",
        )
    })
}

/// Continues [`TABLES`]: the tables to lock.
struct Chosen(String);

impl Chosen {
    fn all() -> Self {
        Self(String::new())
    }

    fn of(oids: &[u32]) -> Self {
        let oids: Vec<String> = oids.iter().map(u32::to_string).collect();
        Self(format!("AND c.oid = ANY ('{{{}}}'::pg_catalog.oid[])", oids.join(",")))
    }
}

/// The tables that were found: OID and name.
type Known = HashSet<(Vec<u8>, Vec<u8>)>;

/// The result of a LOCK statement.
enum Locked {
    All,
    Gone(String),
    NoRoom,
}

/// Locks all tables in a transaction that has no snapshot yet. The inner `Err` says what to do instead.
async fn lock_all(wire: &mut Wire, lock_wait: Duration, chosen: &Chosen) -> Result<Result<Known, Taken>> {
    let settings = format!("{PLANS}; SET lock_timeout = {}", lock_wait.as_millis());
    wire.execute(settings.as_bytes()).await.map_err(Refusal::into_error)?;
    // A server that waits for a lock does not notice that the client is gone unless it is told to check. Before 14,
    // and on some systems, it cannot check.
    match wire.execute(b"SET client_connection_check_interval = 500").await {
        Ok(()) | Err(Refusal::Server { .. }) => {}
        Err(Refusal::Broken(error)) => return Err(error),
    }
    let mut gone = String::new();
    for _ in 0..LISTED {
        // A statement of its own, so that the next transaction has no snapshot yet.
        let tables = list(wire, chosen).await?;
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

/// Locks the tables that are new or renamed since the list was made; names a table that the snapshot can no longer
/// see correctly.
async fn rest(
    wire: &mut Wire,
    known_before: &Known,
    lock_wait: Duration,
    chosen: &Chosen,
) -> Result<Option<String>> {
    let tables = list(wire, chosen).await?;
    let new = tables.iter().filter(|row| !known_before.contains(&known(row)));
    match lock(wire, new, lock_wait).await? {
        Locked::All => {}
        Locked::Gone(what) => return Ok(Some(what)),
        Locked::NoRoom => return Ok(Some("the server's lock table has no room for new tables".into())),
    }
    let Chosen(only) = chosen;
    let question = format!("SELECT n.nspname || '.' || c.relname FROM {TABLES} {CHANGED} {only} LIMIT 1");
    let changed = wire.query(question.as_bytes()).await.map_err(Refusal::into_error)?;
    Ok(changed.first().map(|row| {
        let name = String::from_utf8_lossy(row.bytes(0).unwrap_or_default()).into_owned();
        format!("{name} was emptied, rewritten or dropped")
    }))
}

async fn list(wire: &mut Wire, Chosen(only): &Chosen) -> Result<Vec<Row>> {
    let question = format!(
        "SELECT c.oid, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
         FROM {TABLES} {only} ORDER BY c.oid"
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
                    text = format!("{text}; other sessions hold or want {held}");
                }
                return Err(Error::new(Code::PgDumpErr, text).hint(lock_timed_out(lock_wait)));
            }
            Err(refusal) => return Err(refusal.of_reading("cannot lock the tables for reading")),
        }
    }
    Ok(Locked::All)
}

/// Empty if it cannot be found out.
async fn held_by_others(wire: &mut Wire) -> String {
    let question = format!("ROLLBACK; {}", in_the_way());
    let rows = wire.query(question.as_bytes()).await.unwrap_or_default();
    let names = rows
        .iter()
        .map(|row| String::from_utf8_lossy(row.bytes(0).unwrap_or_default()).into_owned());
    names.collect::<Vec<_>>().join(", ")
}

/// The table was dropped or renamed, and another object may have its name now: list and lock all tables again.
fn is_gone(refusal: &Refusal) -> bool {
    let states = [
        // Another session locks the same tables in another order, and may have changed one of them.
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
