//! The snapshot that the whole backup reads, and the amount of data in it.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::Row;

use super::refusal::Refusal;
use super::{Session, Wire};
use crate::error::{Code, Error, Result};
use crate::format::Lsn;

/// The oldest server whose catalogs pgstow knows.
const OLDEST_MAJOR: u32 = 12;

/// What a snapshot sees; other sessions can use it by its `id` while its session lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    pub id: String,
    /// Read just before the snapshot was taken. So the snapshot contains every change before this position, except
    /// those of the transactions in `xip`. `None` if the service hides the position of its log.
    pub lsn: Option<String>,
    pub xmin: u64,
    pub xmax: u64,
    /// Transactions in progress between the two.
    pub xip: Vec<u64>,
    /// Read just after the snapshot was taken. `None` if the service hides the position of its log.
    pub end: Option<End>,
}

/// Where the server's log was after a snapshot had been taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct End {
    /// The commits that the snapshot contains are all at or before this position.
    pub lsn: Lsn,
    /// The server's clock, read after the position. `None` on a standby: commits have the time of the primary's clock.
    pub at: Option<Timestamp>,
    /// `None` on a standby.
    pub timeline: Option<u32>,
}

/// Estimates for progress and the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DatabaseSize {
    /// On the server's disk, with indexes; `None` if the role may not ask.
    pub database: Option<u64>,
    /// Tables and their out-of-line values: about as much as COPY will send.
    pub tables: u64,
}

/// A table's names as UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName {
    pub schema: String,
    pub name: String,
}

impl Session {
    /// Begins the transaction whose view of the database everything else reads, and exports its snapshot to other
    /// sessions. The transaction stays open, and the snapshot valid, while this session lives.
    pub async fn export_snapshot(&self) -> Result<Snapshot> {
        let failed = |error| self.error("cannot export a snapshot", &error);
        if self.server.major < OLDEST_MAJOR {
            return Err(Error::new(
                Code::Version,
                format!(
                    "the server is PostgreSQL {}; {OLDEST_MAJOR} is the oldest that is supported",
                    self.server.version
                ),
            )
            .hint("upgrade the server"));
        }
        let position = if self.server.in_recovery {
            "SELECT pg_catalog.pg_last_wal_replay_lsn()::pg_catalog.text"
        } else {
            "SELECT pg_catalog.pg_current_wal_lsn()::pg_catalog.text"
        };
        let lsn = self.attempt(position).await.ok().flatten();
        let lsn = lsn.and_then(|row| row.try_get(0).ok());
        self.client
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            .await
            .map_err(failed)?;
        self.in_transaction.store(true, Ordering::Relaxed);
        let view = if self.server.major >= 13 {
            "SELECT pg_catalog.pg_export_snapshot(), pg_catalog.pg_current_snapshot()::pg_catalog.text"
        } else {
            "SELECT pg_catalog.pg_export_snapshot(), pg_catalog.txid_current_snapshot()::pg_catalog.text"
        };
        let row: Row = match self.client.query_one(view, &[]).await {
            Ok(row) => row,
            Err(error) => {
                // So that the session can still be asked for the reason.
                let _ = self.release_snapshot().await;
                return Err(failed(error));
            }
        };
        let id: String = row.try_get(0).map_err(failed)?;
        let text: String = row.try_get(1).map_err(failed)?;
        let (xmin, xmax, xip) = parse_snapshot(&text)
            .ok_or_else(|| Error::internal(format!("the server's snapshot `{text}` is not understood")))?;
        Ok(Snapshot {
            id,
            lsn,
            xmin,
            xmax,
            xip,
            end: self.end_of_log().await,
        })
    }

    /// Opens another session that reads rows by COPY, with one view of the database for all of them. Also returns what
    /// the view sees: `xmin`, `xmax`, and the transactions between the two that had not ended.
    pub(crate) async fn open_view(&self) -> Result<(Wire, (u64, u64, Vec<u64>))> {
        let mut wire = self.open_wire().await?;
        let view = b"BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text";
        let rows = wire.query(view).await.map_err(Refusal::into_error)?;
        let text = rows.first().and_then(|row| row.text(0)).unwrap_or_default();
        match parse_snapshot(text) {
            Some(sees) => Ok((wire, sees)),
            None => Err(Error::internal(format!(
                "the server's snapshot `{text}` is not understood"
            ))),
        }
    }

    /// The position of the log, the clock and the timeline at this moment.
    async fn end_of_log(&self) -> Option<End> {
        let question = if self.server.in_recovery {
            "SELECT pg_catalog.pg_last_wal_replay_lsn()::pg_catalog.text, NULL::pg_catalog.timestamptz, NULL::pg_catalog.text"
        } else {
            // The insert position: a transaction can be visible before its commit is written out.
            "SELECT pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text, pg_catalog.clock_timestamp(),
                    pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn())"
        };
        let row = self.attempt(question).await.ok().flatten()?;
        let lsn: String = row.try_get(0).ok()?;
        let at: Option<SystemTime> = row.try_get(1).ok()?;
        let file: Option<String> = row.try_get(2).ok()?;
        Some(End {
            lsn: lsn.parse().ok()?,
            at: at.and_then(|at| Timestamp::try_from(at).ok()),
            timeline: file.as_deref().and_then(timeline_of),
        })
    }

    /// Ends the transaction of [`Session::export_snapshot`], so that another can begin.
    pub async fn release_snapshot(&self) -> Result<()> {
        self.client
            .batch_execute("ROLLBACK")
            .await
            .map_err(|error| self.error("cannot release a snapshot", &error))?;
        self.in_transaction.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Both estimates, for a caller that can wait for them.
    pub async fn size(&self) -> Result<DatabaseSize> {
        Ok(DatabaseSize {
            database: self.database_bytes().await,
            tables: self.table_bytes().await?,
        })
    }

    pub async fn database_bytes(&self) -> Option<u64> {
        let database = self
            .attempt("SELECT pg_catalog.pg_database_size(pg_catalog.current_database())")
            .await;
        database.ok().and_then(bytes)
    }

    /// The amount of data to read. It never waits long for a lock: if a table is locked, it uses the planner's
    /// estimates.
    pub async fn table_bytes(&self) -> Result<u64> {
        let exact = "SELECT coalesce(pg_catalog.sum(pg_catalog.pg_table_size(c.oid)), 0)::pg_catalog.int8";
        let estimated = "SELECT coalesce(pg_catalog.sum((c.relpages + coalesce(t.relpages, 0))::pg_catalog.int8), 0)::pg_catalog.int8
                                * pg_catalog.current_setting('block_size')::pg_catalog.int8";
        let from = "FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_class t ON t.oid = c.reltoastrelid
                    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                    WHERE c.relkind = 'r' AND c.relpersistence <> 't'
                      AND n.nspname NOT IN ('pg_catalog', 'information_schema')";
        // pg_table_size locks each table for a moment; another session may be rewriting one.
        let failed = |error| self.error("cannot read the database's size", &error);
        self.client
            .batch_execute("SET lock_timeout = '200ms'")
            .await
            .map_err(failed)?;
        let tables = self.attempt(&format!("{exact} {from}")).await;
        self.client
            .batch_execute("SET lock_timeout = 0")
            .await
            .map_err(failed)?;
        let tables = match tables {
            Ok(row) => row,
            Err(_) => self.attempt(&format!("{estimated} {from}")).await.map_err(failed)?,
        };
        Ok(bytes(tables).unwrap_or_default())
    }

    /// The tables by OID, if pg_dump writes their names in another encoding than UTF-8, which only the server can
    /// convert. Call it after the snapshot was exported, so that the names are those of the snapshot. Empty if no
    /// conversion is needed or none is possible: in a database without an encoding (SQL_ASCII) names are not text in
    /// any encoding.
    pub async fn names_in_other_encoding(&self) -> HashMap<u32, TableName> {
        if ["UTF8", "SQL_ASCII"].contains(&self.server.encoding.as_str()) {
            return HashMap::new();
        }
        let question = "SELECT coalesce(pg_catalog.array_agg(c.oid), '{}'), coalesce(pg_catalog.array_agg(n.nspname::pg_catalog.text), '{}'),
                               coalesce(pg_catalog.array_agg(c.relname::pg_catalog.text), '{}')
                        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                        WHERE c.relkind = 'r' AND n.nspname <> 'pg_catalog'";
        let Ok(Some(row)) = self.attempt(question).await else {
            return HashMap::new();
        };
        let (oids, schemas, names): (Vec<u32>, Vec<String>, Vec<String>) =
            match (row.try_get(0), row.try_get(1), row.try_get(2)) {
                (Ok(oids), Ok(schemas), Ok(names)) => (oids, schemas, names),
                _ => return HashMap::new(),
            };
        let names = schemas.into_iter().zip(names);
        let names = names.map(|(schema, name)| TableName { schema, name });
        oids.into_iter().zip(names).collect()
    }

    /// Asks questions of which the server may refuse one: in the snapshot's transaction, all of them together run under
    /// a savepoint.
    pub async fn apart<T>(&self, questions: impl Future<Output = Result<T>>) -> Result<T> {
        if !self.in_transaction.load(Ordering::Relaxed) {
            return questions.await;
        }
        let failed = |error| self.error("cannot ask questions in a snapshot", &error);
        self.client.batch_execute("SAVEPOINT apart").await.map_err(failed)?;
        let answers = questions.await;
        let back = "ROLLBACK TO SAVEPOINT apart; RELEASE SAVEPOINT apart";
        let ended = self.client.batch_execute(back).await.map_err(failed);
        answers.and_then(|answers| ended.map(|()| answers))
    }

    /// Asks a question that the server may refuse. In the snapshot's transaction a refusal, or a lock that stays,
    /// would end the snapshot: there it runs under a savepoint.
    pub(super) async fn attempt(&self, question: &str) -> Result<Option<Row>, tokio_postgres::Error> {
        if !self.in_transaction.load(Ordering::Relaxed) {
            return self.client.query_opt(question, &[]).await;
        }
        self.client.batch_execute("SAVEPOINT attempt").await?;
        let answer = self.client.query_opt(question, &[]).await;
        self.client
            .batch_execute("ROLLBACK TO SAVEPOINT attempt; RELEASE SAVEPOINT attempt")
            .await?;
        answer
    }
}

fn bytes(row: Option<Row>) -> Option<u64> {
    row?.try_get::<_, i64>(0).ok()?.try_into().ok()
}

/// The timeline in the name of a file of the log: its first eight hexadecimal digits.
fn timeline_of(file: &str) -> Option<u32> {
    u32::from_str_radix(file.get(..8)?, 16).ok()
}

/// `xmin:xmax:xip,xip,…`
pub(super) fn parse_snapshot(text: &str) -> Option<(u64, u64, Vec<u64>)> {
    let mut parts = text.split(':');
    let xmin = parts.next()?.parse().ok()?;
    let xmax = parts.next()?.parse().ok()?;
    let list = parts.next()?;
    let xip = list
        .split(',')
        .filter(|id| !id.is_empty())
        .map(|id| id.parse().ok())
        .collect::<Option<_>>()?;
    parts.next().is_none().then_some((xmin, xmax, xip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_read_with_and_without_running_transactions() {
        assert_eq!(parse_snapshot("100:104:100,102"), Some((100, 104, vec![100, 102])));
        assert_eq!(
            parse_snapshot("4294967396:4294967396:"),
            Some((4_294_967_396, 4_294_967_396, vec![]))
        );
        assert_eq!(parse_snapshot("100:104"), None);
        assert_eq!(parse_snapshot("100:104:x"), None);
        assert_eq!(parse_snapshot("1:2:3:4"), None);
    }
}
