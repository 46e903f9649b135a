//! Who is in the way of a lock, in words.

use super::Session;
use super::hold::TABLES;
use crate::error::Result;

/// Named at most.
const NAMED: usize = 5;

/// Of a row `l` of pg_locks, with [`JOINED`]: a session as far as this role may see it, or a prepared transaction.
pub(super) const HOLDER: &str = "CASE WHEN l.pid IS NULL
     THEN 'the prepared transaction ' || coalesce(pg_catalog.quote_literal(x.gid) || ' of ' || x.owner, '')
     ELSE 'session ' || l.pid || coalesce(' of ' || a.usename, '')
          || coalesce(' (' || nullif(a.application_name, '') || ')', '') || coalesce(', ' || a.state, '')
          || coalesce(' for ' || pg_catalog.date_trunc('second', pg_catalog.clock_timestamp() - a.state_change), '')
     END";

pub(super) const JOINED: &str = "LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
   LEFT JOIN pg_catalog.pg_locks own ON l.pid IS NULL AND own.pid IS NULL AND own.locktype = 'transactionid'
     AND own.virtualtransaction = l.virtualtransaction
   LEFT JOIN pg_catalog.pg_prepared_xacts x ON x.transaction = own.transactionid";

/// The tables that nobody else can read at this moment, each with who holds or wants it: the server does not say for
/// which of many it has waited.
pub(super) fn in_the_way() -> String {
    format!(
        "SELECT n.nspname || '.' || c.relname || ' (' || {HOLDER}
                || CASE WHEN l.granted THEN '' ELSE ', which waits for it' END || ')'
           FROM pg_catalog.pg_locks l {JOINED}, {TABLES}
            AND l.relation = c.oid AND l.mode = 'AccessExclusiveLock'
            AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
          LIMIT {NAMED}"
    )
}

impl Session {
    /// The processes of sessions of this name that wait for locks of others, and who these are.
    pub(crate) async fn kept_waiting(&self, name: &str) -> Result<Vec<(i32, Vec<String>)>> {
        let failed = |error| self.error("cannot look for locks", &error);
        let question = "WITH own AS (
               SELECT s.pid, s.wait_event_type FROM pg_catalog.pg_stat_activity s
                WHERE s.application_name = $1 AND s.datname = pg_catalog.current_database()),
             blocked AS (
               SELECT own.pid, b.pid AS by FROM own, pg_catalog.unnest(pg_catalog.pg_blocking_pids(own.pid)) AS b (pid)
                WHERE own.wait_event_type = 'Lock' AND b.pid NOT IN (SELECT o.pid FROM own o))
             SELECT blocked.pid, pg_catalog.array_agg(DISTINCT CASE blocked.by WHEN 0 THEN 'a prepared transaction'
                      ELSE 'session ' || blocked.by || coalesce(' of ' || a.usename, '')
                        || coalesce(' (' || nullif(a.application_name, '') || ')', '') || coalesce(', ' || a.state, '') END)
               FROM blocked LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = blocked.by GROUP BY 1";
        let rows = self.client.query(question, &[&name]).await.map_err(failed)?;
        let read = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        read.collect::<std::result::Result<_, _>>().map_err(failed)
    }

    /// [`in_the_way`]; nothing if it cannot be known.
    pub(crate) async fn held_by_others(&self) -> Vec<String> {
        self.names(&in_the_way()).await.unwrap_or_default()
    }
}
