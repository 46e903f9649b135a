//! Databases that a restore makes beside those that it will replace: which restore made them, and whether a run still
//! uses them.

use super::Session;
use crate::error::Result;

/// The first half of the advisory lock with which a run claims a database's name: "pgst".
const CLASS: i32 = 0x7067_7374;

/// A database with such a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfinished {
    pub name: String,
    /// `None` if the run died before it set the comment; then the database does not allow logins either.
    pub comment: Option<String>,
    /// Clients are connected to it.
    pub is_used: bool,
}

impl Session {
    /// Databases whose names begin so and end with eight hex digits, and that have one of these comments, or no
    /// comment and do not allow logins.
    pub(crate) async fn unfinished(&self, beginning: &str, comments: &[&str]) -> Result<Vec<Unfinished>> {
        let failed = |error| self.error("cannot look for databases that an earlier restore has left", &error);
        let question = "SELECT d.datname::pg_catalog.text, s.comment,
                EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.datid OPERATOR(pg_catalog.=) d.oid
                  AND coalesce(a.backend_type, 'client backend') OPERATOR(pg_catalog.=) 'client backend')
           FROM pg_catalog.pg_database d
           CROSS JOIN LATERAL (SELECT pg_catalog.shobj_description(d.oid, 'pg_database') AS comment) s
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

    /// Claims the name for the life of the session; `false` if another run's session has claimed it.
    pub(crate) async fn claim(&self, name: &str) -> Result<bool> {
        let question = "SELECT pg_catalog.pg_try_advisory_lock($1, pg_catalog.hashtext($2))";
        let row = self.client.query_one(question, &[&CLASS, &name]).await;
        row.and_then(|row| row.try_get(0))
            .map_err(|error| self.error("cannot claim the name of a database", &error))
    }

    /// Gives the name up.
    pub(crate) async fn let_go(&self, name: &str) -> Result<()> {
        let question = "SELECT pg_catalog.pg_advisory_unlock($1, pg_catalog.hashtext($2))";
        let row = self.client.query_one(question, &[&CLASS, &name]).await;
        row.map(drop)
            .map_err(|error| self.error("cannot give up the name of a database", &error))
    }
}
