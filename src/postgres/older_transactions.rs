//! Waits for the transactions that began before this moment.
//!
//! A new slot, and a table that joins a publication, miss the changes of a transaction whose commit is already in the
//! log but not yet visible: it waits for a synchronous standby. A snapshot that is taken now misses them too. So the
//! first reading of the rows must wait until every such transaction has ended.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Session;
use crate::error::{Error, Result};
use crate::run::stop::Stop;

/// Between two looks: the first, and the longest.
const SHORTEST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(1);

/// The number of a transaction that begins and ends with this question. A snapshot's `xmax` is not enough: it is the
/// number of a transaction that still runs, if none with a greater number has ended.
const NEWEST: &str = "SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text";
/// The number of the oldest transaction that runs.
const OLDEST: &str = "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::pg_catalog.text";

/// How a wait ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OlderTransactions {
    /// All of them have ended: those with a smaller id than this.
    Ended(u64),
    /// The limit passed before the oldest one ended. As far as this role may see it.
    Running(OldestTransaction),
}

/// The oldest transaction that has changed something.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OldestTransaction {
    /// How to recognise it: the process and role, or the name of a prepared transaction. `None`: it cannot be seen.
    pub who: Option<String>,
    pub age: Option<Duration>,
}

impl fmt::Display for OldestTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            self.who
                .as_deref()
                .unwrap_or("a transaction that this role may not see"),
        )?;
        match self.age {
            Some(age) => write!(f, ", for {} s", age.as_secs()),
            None => Ok(()),
        }
    }
}

impl Session {
    /// Waits at most this long. The session must not have changed anything in its own transaction.
    pub async fn wait_for_older(&self, limit: Duration, stop: &Stop) -> Result<OlderTransactions> {
        let end = Instant::now() + limit;
        let newest = self.transaction(NEWEST).await?;
        let mut pause = SHORTEST;
        loop {
            if self.transaction(OLDEST).await? >= newest {
                return Ok(OlderTransactions::Ended(newest));
            }
            if Instant::now() >= end {
                return Ok(OlderTransactions::Running(
                    self.oldest_transaction().await?.unwrap_or_default(),
                ));
            }
            tokio::select! {
                reason = stop.requested() => return Err(reason.into()),
                () = sleep(pause.min(end.saturating_duration_since(Instant::now()))) => {}
            }
            pause = (pause * 2).min(LONGEST);
        }
    }

    /// `None`: there is none.
    pub async fn oldest_transaction(&self) -> Result<Option<OldestTransaction>> {
        let failed = |error| self.error("cannot look for the oldest transaction", &error);
        let question = "SELECT t.who, extract(epoch FROM pg_catalog.clock_timestamp() - t.since)::pg_catalog.float8
            FROM (SELECT pg_catalog.concat('process ', a.pid, ' of role ', a.usename, ' in database ', a.datname, ' (', a.state, ')'),
                         a.xact_start, pg_catalog.age(a.backend_xid)
                  FROM pg_catalog.pg_stat_activity a WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid()
                  UNION ALL
                  SELECT pg_catalog.concat('the prepared transaction ', pg_catalog.quote_literal(p.gid), ' of role ', p.owner),
                         p.prepared, pg_catalog.age(p.transaction) FROM pg_catalog.pg_prepared_xacts p
            ) AS t (who, since, age) ORDER BY t.age DESC LIMIT 1";
        let Some(row) = self.attempt(question).await.map_err(failed)? else {
            return Ok(None);
        };
        let seconds: Option<f64> = row.try_get(1).map_err(failed)?;
        Ok(Some(OldestTransaction {
            who: row.try_get(0).map_err(failed)?,
            age: seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        }))
    }

    async fn transaction(&self, question: &str) -> Result<u64> {
        let row = self.client.query_one(question, &[]).await;
        let text: String = row
            .and_then(|row| row.try_get(0))
            .map_err(|error| self.error("cannot look for older transactions", &error))?;
        text.parse()
            .map_err(|error| Error::internal("a transaction's number is not understood").source(error))
    }
}
