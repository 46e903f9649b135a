//! Databases that a restore makes beside those that they are to replace: whose they are, and whether a run still works at
//! one.

use super::Session;
use crate::error::Result;

/// The first half of the advisory locks by which a run holds what it makes: "pgst".
const CLASS: i32 = 0x7067_7374;

/// One that bears the name of such a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfinished {
    pub name: String,
    /// None where not even that was set, and nothing could log in yet.
    pub comment: Option<String>,
    /// Clients are in it.
    pub is_used: bool,
}

impl Session {
    /// Those whose names begin so and end with eight hex digits, and that bear one of these comments, or none while they
    /// let nothing in.
    pub(crate) async fn unfinished(&self, beginning: &str, comments: &[&str]) -> Result<Vec<Unfinished>> {
        let failed = |error| self.error("cannot look for databases that an earlier restore has left", &error);
        let question = "SELECT d.datname::pg_catalog.text, s.comment,
                EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.datid OPERATOR(pg_catalog.=) d.oid
                  AND coalesce(a.backend_type, 'client backend') OPERATOR(pg_catalog.=) 'client backend')
           FROM pg_catalog.pg_database d,
                LATERAL (SELECT pg_catalog.shobj_description(d.oid, 'pg_database') AS comment) s
          WHERE pg_catalog.starts_with(d.datname::pg_catalog.text, $1)
            AND pg_catalog.substr(d.datname::pg_catalog.text, $2) OPERATOR(pg_catalog.~) '^[0-9a-f]{8}$'
            AND (s.comment OPERATOR(pg_catalog.=) ANY ($3) OR (s.comment IS NULL AND NOT d.datallowconn))
          ORDER BY 1";
        let after = i32::try_from(beginning.chars().count())
            .unwrap_or(i32::MAX)
            .saturating_add(1);
        let rows = self.client.query(question, &[&beginning, &after, &comments]).await;
        let rows = rows.map_err(failed)?;
        let read = rows.iter().map(|row| {
            Ok(Unfinished {
                name: row.try_get(0)?,
                comment: row.try_get(1)?,
                is_used: row.try_get(2)?,
            })
        });
        read.collect::<Result<_, tokio_postgres::Error>>().map_err(failed)
    }

    /// Holds the name for as long as the session lasts; says no where another run's session does.
    pub(crate) async fn claim(&self, name: &str) -> Result<bool> {
        let question = "SELECT pg_catalog.pg_try_advisory_lock($1, pg_catalog.hashtext($2))";
        let row = self.client.query_one(question, &[&CLASS, &name]).await;
        row.and_then(|row| row.try_get(0))
            .map_err(|error| self.error("cannot hold the name of a database", &error))
    }

    /// Lets go of it.
    pub(crate) async fn let_go(&self, name: &str) -> Result<()> {
        let question = "SELECT pg_catalog.pg_advisory_unlock($1, pg_catalog.hashtext($2))";
        let row = self.client.query_one(question, &[&CLASS, &name]).await;
        row.map(drop)
            .map_err(|error| self.error("cannot let go of the name of a database", &error))
    }
}
