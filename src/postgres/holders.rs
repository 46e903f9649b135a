//! Describes the sessions that hold a lock.

use super::Session;
use super::tables::{CHOSEN, Names, TABLES};
use crate::error::Result;

/// The most that are named.
const NAMED: usize = 5;

/// The holder in a row `l` of pg_locks, with [`JOINED`]: a session, as far as this role may see it, or a prepared
/// transaction.
const HOLDER: &str = "CASE WHEN l.pid IS NULL
     THEN 'the prepared transaction ' || coalesce(pg_catalog.quote_literal(x.gid) || ' of ' || x.owner, '')
     ELSE 'session ' || l.pid || coalesce(' of ' || a.usename, '')
          || coalesce(' (' || nullif(a.application_name, '') || ')', '') || coalesce(', ' || a.state, '')
          || coalesce(' for ' || pg_catalog.date_trunc('second', pg_catalog.clock_timestamp() - a.state_change), '')
     END";

const JOINED: &str = "LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
   LEFT JOIN pg_catalog.pg_locks own ON l.pid IS NULL AND own.pid IS NULL AND own.locktype = 'transactionid'
     AND own.virtualtransaction = l.virtualtransaction
   LEFT JOIN pg_catalog.pg_prepared_xacts x ON x.transaction = own.transactionid";

/// The tables that other sessions cannot read at this moment, each with the sessions that hold or want it: the server
/// does not report for which of many tables a statement has waited.
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

/// Sessions that hold locks on objects other than tables (functions, types, schemas), and sessions that are changing
/// the catalogs and so keep others from removing what they change: as far as this role may see them.
fn of_objects(major: u32) -> String {
    // On older servers the function fails for an object that no longer exists.
    let object = if major < 14 {
        "'an object'"
    } else {
        "coalesce(pg_catalog.pg_describe_object(l.classid, l.objid, l.objsubid), 'an object')"
    };
    format!(
        "SELECT held.who || ' on ' || pg_catalog.array_to_string((pg_catalog.array_agg(DISTINCT held.what))[1:{NAMED}], ', ')
           FROM (SELECT {HOLDER} AS who, CASE l.locktype WHEN 'object' THEN {object}
                          ELSE 'the catalog ' || c.relname END AS what
                   FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_class c
                     ON c.oid = l.relation AND l.locktype = 'relation' {JOINED}
                  WHERE l.granted AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
                    AND l.database IN (0, (SELECT d.oid FROM pg_catalog.pg_database d
                                            WHERE d.datname = pg_catalog.current_database()))
                    AND coalesce(a.backend_type, 'client backend') = 'client backend'
                    AND (l.locktype = 'object'
                         OR (c.relkind = 'r' AND c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace
                             AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'ShareUpdateExclusiveLock')))
                  LIMIT 1000) AS held
          GROUP BY held.who ORDER BY 1 LIMIT {NAMED}"
    )
}

impl Session {
    /// The processes of sessions of this name that wait for locks of others, and descriptions of those others.
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

    /// [`in_the_way`]; empty if it cannot be found out.
    pub(crate) async fn held_by_others(&self) -> Vec<String> {
        self.names(&in_the_way()).await.unwrap_or_default()
    }

    /// The sessions that may block a statement, if the missing lock is not known: the holders of these tables, or
    /// else of other tables; and the holders of objects that are not tables.
    pub(crate) async fn in_its_way(&self, tables: &Names) -> Vec<String> {
        let mut held = self.holders(tables).await;
        if held.is_empty() {
            held = self.held_by_others().await;
        }
        held.extend(self.names(&of_objects(self.server.major)).await.unwrap_or_default());
        held.truncate(NAMED);
        held
    }

    /// The holders of these tables, and those that wait for them, as far as this role may see them: sessions and
    /// prepared transactions.
    pub(crate) async fn holders(&self, tables: &Names) -> Vec<String> {
        let question = format!(
            "WITH named AS ({CHOSEN}), chosen AS (
               SELECT oid FROM named UNION SELECT t.relid FROM named, pg_catalog.pg_partition_tree(named.oid) t)
             SELECT {HOLDER} || ' on ' || pg_catalog.format('%I.%I', n.nspname, c.relname)
               FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace {JOINED}
              WHERE l.granted AND l.relation IN (SELECT oid FROM chosen) AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
                AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
                AND coalesce(a.backend_type, 'client backend') = 'client backend'
              GROUP BY 1 ORDER BY pg_catalog.bool_and(l.mode = 'ShareUpdateExclusiveLock'), 1 LIMIT {NAMED}"
        );
        let (schemas, names): (Vec<&str>, Vec<&str>) = tables
            .iter()
            .map(|(schema, name)| (schema.as_str(), name.as_str()))
            .unzip();
        let rows = self.client.query(&question, &[&schemas, &names]).await;
        let rows = rows.unwrap_or_default();
        rows.iter().filter_map(|row| row.try_get(0).ok()).collect()
    }
}
