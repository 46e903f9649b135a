//! Who is in the way of a lock, in words.

use super::Session;
use super::hold::TABLES;

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
    /// [`in_the_way`]; nothing if it cannot be known.
    pub(super) async fn held_by_others(&self) -> Vec<String> {
        self.names(&in_the_way()).await.unwrap_or_default()
    }
}
