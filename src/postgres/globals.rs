//! `globals.sql` on its way back: roles, memberships and their settings, statement by statement,
//! each by itself, since a part of them may be there already.

mod split;

use super::Session;
use super::connection::classify;
use crate::error::Result;

pub use split::{Statement, statements};

/// Which of the statements are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Tablespaces are folders on the server's disk: of another machine, or in use by the source.
    WithoutTablespaces,
    Everything,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppliedGlobals {
    pub done: usize,
    /// Roles and the like that were there.
    pub existing: usize,
    /// What could not be done, and why.
    pub notes: Vec<String>,
}

const EXISTS: &str = "42710";

impl Session {
    /// Runs the statements, but for settings of their own session, and for changes to the role
    /// that we are: it might lose what it needs for the rest. A statement that fails becomes a
    /// note; only a lost connection is an error.
    pub async fn apply_globals(&self, statements: &[Statement], scope: Scope) -> Result<AppliedGlobals> {
        let mut applied = AppliedGlobals::default();
        let mut encoding = "UTF8".to_owned();
        // The role's own default may forbid writing.
        self.execute("SET default_transaction_read_only = off").await?;
        for statement in statements {
            if let Some(set) = statement.client_encoding() {
                encoding = set;
            }
            if statement.is_setting()
                || statement.alters_role(&self.server.user)
                || (scope == Scope::WithoutTablespaces && statement.is_about_tablespace())
            {
                continue;
            }
            let text = match self.decoded(statement, &encoding).await? {
                Ok(text) => text,
                Err(why) => {
                    applied.notes.push(format!("{}: {why}", statement.summary()));
                    continue;
                }
            };
            match self.client.batch_execute(&text).await {
                Ok(()) => applied.done += 1,
                Err(error) if self.client.is_closed() => {
                    return Err(self.error("the connection was lost while roles were made", &error));
                }
                Err(error) if error.code().is_some_and(|state| state.code() == EXISTS) => applied.existing += 1,
                Err(error) => applied.notes.push(format!(
                    "{}: {}",
                    statement.summary(),
                    classify(&error, &self.redactor).message()
                )),
            }
        }
        Ok(applied)
    }

    /// pg_dumpall writes in the encoding of the database that it was connected to.
    async fn decoded(&self, statement: &Statement, encoding: &str) -> Result<Result<String, String>> {
        let bytes = statement.bytes();
        if let Ok(text) = std::str::from_utf8(bytes) {
            return Ok(Ok(text.to_owned()));
        }
        let row = self
            .client
            .query_one(
                "SELECT pg_catalog.convert_from($1, $2::pg_catalog.text)",
                &[&bytes, &encoding],
            )
            .await;
        match row.and_then(|row| row.try_get::<_, String>(0)) {
            Ok(text) => Ok(Ok(text)),
            Err(error) if self.client.is_closed() => {
                Err(self.error("the connection was lost while roles were made", &error))
            }
            Err(error) => Ok(Err(classify(&error, &self.redactor).message())),
        }
    }
}
