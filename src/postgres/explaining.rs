//! Why something of ours, or one of PostgreSQL's programs, was refused, where the words do not tell: the server is asked.

use tokio_postgres::Client;

use super::Session;
use super::quoting::identifier;
use super::server::Language;
use crate::error::{Code, Error};

impl Session {
    /// pg_dump, like the server, stops at the first thing that the role may not read; the server can name them all, and
    /// the GRANT. And what the server says may be in any language: what our own sessions are told, they are told by SQLSTATE.
    pub async fn explain(&self, error: Error) -> Error {
        if matches!(error.code(), Code::Permission | Code::PgDumpErr) {
            match self.check_privileges().await {
                Err(named) if named.code() == Code::Permission => return named,
                // Our own session is gone too: it was not pg_dump's fault.
                Err(gone) if gone.code() == Code::ConnErr && error.code() == Code::PgDumpErr => {
                    let hint = gone.hint_text().to_owned();
                    return error.with_code(Code::ConnErr).hint(hint);
                }
                _ => {}
            }
        }
        if error.code() == Code::Permission && !error.has_own_hint() {
            return match closed_by_somebody(&self.client).await {
                Ok(Some(hint)) => error.hint(hint),
                _ => error,
            };
        }
        // PgBouncer's own words.
        if error.code() == Code::ConnErr && error.message().contains("unsupported startup parameter") {
            return self.explain_settings(error).await;
        }
        // pg_dump's own words.
        if error.code() == Code::PgDumpErr && error.has_own_hint() && error.message().contains("LOCK TABLE") {
            return match self.held_by_others().await.as_slice() {
                [] => error,
                held => {
                    let text = format!("{}; others hold or want {}", error.message(), held.join(", "));
                    Error::new(error.code(), text).hint(error.hint_text())
                }
            };
        }
        if self.server.language != Language::English && matches!(error.code(), Code::ConnErr | Code::PgDumpErr) {
            return self.explain_foreign(error).await;
        }
        error
    }

    /// What the program's session would have had to be started with.
    async fn explain_settings(&self, error: Error) -> Error {
        let mut resets = Vec::new();
        for option in &self.server.to_settle {
            let name = option.split('=').next().unwrap_or_default();
            resets.extend(self.resetting(name).await.ok().flatten());
        }
        if resets.is_empty() {
            return error;
        }
        error.hint(format!(
            "PgBouncer does not pass on what a session is started with, which this role's or database's settings make \
             necessary: {}; or connect to the server itself",
            resets.join("; ")
        ))
    }

    /// Another session is refused as pg_dump's was.
    async fn explain_foreign(&self, error: Error) -> Error {
        match self.connect_again().await {
            Ok(session) => {
                session.close().await;
                error
            }
            Err(refused) => {
                let hint = refused.hint_text().to_owned();
                error.with_code(refused.code()).hint(hint)
            }
        }
    }
}

/// Functions of PostgreSQL's own that everybody may call, unless somebody has taken it from this role: with what gives
/// it back. Asked also where the search path is not ours yet: so each operator is named in full.
pub(super) async fn closed_by_somebody(client: &Client) -> Result<Option<String>, tokio_postgres::Error> {
    const NAMED: i64 = 20;
    let rows = client
        .query(
            "SELECT pg_catalog.format('%I.%I(%s)', n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)),
                    current_user::pg_catalog.text
             FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
             WHERE n.nspname OPERATOR(pg_catalog.=) 'pg_catalog' AND p.proacl IS NOT NULL
               AND NOT pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
               AND NOT EXISTS (
                 SELECT FROM pg_catalog.pg_init_privs i
                 WHERE i.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
                   AND i.objoid OPERATOR(pg_catalog.=) p.oid)
             ORDER BY n.nspname, p.proname LIMIT $1::pg_catalog.int8",
            &[&NAMED],
        )
        .await?;
    let mut grants = Vec::new();
    for row in rows {
        let (function, role): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        grants.push(format!("GRANT EXECUTE ON FUNCTION {function} TO {}", identifier(&role)));
    }
    Ok((!grants.is_empty()).then(|| {
        format!(
            "somebody has closed functions of PostgreSQL's to this role, of which one is needed: {}",
            grants.join("; ")
        )
    }))
}
