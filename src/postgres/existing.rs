//! A database that will be dropped and made again, and what stands in the way of that.

use super::Session;
use crate::error::{Code, Error, Result};

/// How many sessions and other obstacles are described.
const NAMED: usize = 5;

#[derive(Debug)]
pub struct Existing {
    pub is_template: bool,
    /// The owner, if this role may not act as it, and so may not drop the database.
    stranger: Option<String>,
    /// Descriptions of the first few sessions of other clients.
    sessions: Vec<String>,
    /// Those that this role may not end.
    lasting: Vec<String>,
    /// Objects that even `--force` does not remove.
    obstacles: Vec<String>,
}

impl Existing {
    /// Fails if it cannot be dropped.
    pub fn check(&self, name: &str, force: bool) -> Result<()> {
        if let Some(owner) = &self.stranger {
            let what = format!("this role may not drop the database {name}: it belongs to {owner}");
            return Err(Error::new(Code::Permission, what).hint(format!(
                "restore as {owner}, or as a member of that role; or replace the objects in it with --clean, without \
                 --create"
            )));
        }
        let refused = |by: &[String]| {
            let what = format!("the database {name} cannot be dropped: it has {}", by.join(", "));
            Error::new(Code::RestoreErr, what)
        };
        if !self.obstacles.is_empty() {
            return Err(refused(&self.obstacles).hint(
                "end them first: ROLLBACK PREPARED, pg_drop_replication_slot, DROP SUBSCRIPTION; or restore into \
                 another database",
            ));
        }
        if !self.lasting.is_empty() {
            return Err(refused(&self.lasting).hint(
                "let them end: this role may not end them (sessions of superusers, or of roles that it is no member of \
                 without pg_signal_backend)",
            ));
        }
        if !self.sessions.is_empty() && !force {
            return Err(refused(&self.sessions).hint("let them end, or end them with --force"));
        }
        Ok(())
    }
}

impl Session {
    /// Whether no other client is in this database, and no prepared transaction waits in it.
    pub async fn is_alone(&self) -> Result<bool> {
        let question = "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity a
              WHERE a.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
                AND a.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
                AND coalesce(a.backend_type, '') OPERATOR(pg_catalog.<>) 'autovacuum worker')
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_prepared_xacts p
              WHERE p.database OPERATOR(pg_catalog.=) pg_catalog.current_database())";
        let failed = |error| self.error("cannot see who uses the database", &error);
        let row = self.client.query_one(question, &[]).await.map_err(failed)?;
        row.try_get(0).map_err(failed)
    }

    /// The database with this name, if it exists.
    pub async fn database(&self, name: &str) -> Result<Option<Existing>> {
        let question = format!(
            "WITH session AS (
               SELECT a.datid, a.pid, 'session ' || a.pid || coalesce(' of ' || a.usename, '')
                        || coalesce(' (' || nullif(a.application_name, '') || ')', '') || coalesce(', ' || a.state, '') AS told,
                      (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) current_user)
                        OR (NOT coalesce(o.rolsuper, false) AND (coalesce(pg_catalog.pg_has_role(a.usesysid, 'USAGE'), true)
                              OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE'))) AS ends
                 FROM pg_catalog.pg_stat_activity a
                 LEFT JOIN pg_catalog.pg_roles o ON o.oid OPERATOR(pg_catalog.=) a.usesysid
                WHERE a.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
                  AND coalesce(a.backend_type, 'client backend') OPERATOR(pg_catalog.=) 'client backend')
             SELECT d.datistemplate,
               CASE WHEN pg_catalog.pg_has_role(d.datdba, 'USAGE') THEN NULL
                    ELSE pg_catalog.pg_get_userbyid(d.datdba)::pg_catalog.text END,
               ARRAY(SELECT told FROM session s WHERE s.datid OPERATOR(pg_catalog.=) d.oid ORDER BY pid LIMIT {NAMED}),
               ARRAY(SELECT told FROM session s WHERE s.datid OPERATOR(pg_catalog.=) d.oid AND NOT ends ORDER BY pid LIMIT {NAMED}),
               ARRAY(SELECT 'the prepared transaction ' || pg_catalog.quote_literal(x.gid) || ' of ' || x.owner
                       FROM pg_catalog.pg_prepared_xacts x
                      WHERE x.database OPERATOR(pg_catalog.=) d.datname LIMIT {NAMED})
               || ARRAY(SELECT 'the replication slot ' || pg_catalog.quote_ident(s.slot_name)
                       FROM pg_catalog.pg_replication_slots s
                      WHERE s.database OPERATOR(pg_catalog.=) d.datname LIMIT {NAMED})
               || ARRAY(SELECT 'the subscription ' || pg_catalog.quote_ident(s.subname)
                       FROM pg_catalog.pg_subscription s WHERE s.subdbid OPERATOR(pg_catalog.=) d.oid LIMIT {NAMED})
             FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) $1"
        );
        let read = |row: tokio_postgres::Row| {
            Ok(Existing {
                is_template: row.try_get(0)?,
                stranger: row.try_get(1)?,
                sessions: row.try_get(2)?,
                lasting: row.try_get(3)?,
                obstacles: row.try_get(4)?,
            })
        };
        let row = self.client.query_opt(&question, &[&name]).await;
        row.and_then(|row| row.map(read).transpose())
            .map_err(|error| self.error("cannot look for the database", &error))
    }
}
