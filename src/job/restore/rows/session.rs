//! A session of ours for rows: its settings, its statements, and the server's refusals.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::error::{Code, Error, Result};
use crate::format::archive::Item;
use crate::postgres::quoting::literal;
use crate::postgres::{Refusal, Wire};

/// How long a server may take to roll back.
const ROLLING_BACK: Duration = Duration::from_secs(30);

pub(in crate::job::restore) async fn execute(wire: &mut Wire, statement: &str) -> Result<()> {
    wire.execute(statement.as_bytes())
        .await
        .map_err(|refusal| refused(statement, refusal))
}

/// After an error that is already reported. If the server does not answer, it rolls back when the session ends.
pub(in crate::job::restore) async fn roll_back(wire: &mut Wire) {
    let _ = tokio::time::timeout(ROLLING_BACK, wire.execute(b"ROLLBACK")).await;
}

pub(in crate::job::restore) fn refused(what: &str, refusal: Refusal) -> Error {
    let hint = refusal.hint_of_rows();
    if refusal.is(&SqlState::LOCK_NOT_AVAILABLE) {
        return Error::new(Code::RestoreErr, format!("{what}: the lock was not granted in time"))
            .hint("end the transactions of other sessions, or wait longer: set BACKUP_LOCK_WAIT_SECONDS");
    }
    let (code, message) = match refusal {
        Refusal::Broken(error) => (error.code(), error.message()),
        Refusal::Server { state, error, .. } => match error.code() {
            Code::Permission => (Code::Permission, error.message()),
            // The end of the message quotes the value, which must not get into a log.
            _ if state.code().starts_with("22") => {
                let message = error.message();
                let told = message.rfind(": \"").map_or(&*message, |at| &message[..at]);
                (Code::RestoreErr, told.to_owned())
            }
            _ => (Code::RestoreErr, error.message()),
        },
    };
    let error = Error::new(code, format!("{what}: {message}"));
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// The encoding of the archive's text.
pub(in crate::job::restore) fn encoding(items: &[Item]) -> String {
    let set = items.iter().find(|item| item.entry.desc == "ENCODING");
    let quoted = set.and_then(|item| item.details.definition.split('\'').nth(1));
    quoted.unwrap_or("UTF8").to_owned()
}

/// Sets the session up as pg_dump and pg_restore do, so that text is as in the archive. It waits at most `wait` for a
/// lock.
pub(in crate::job::restore) async fn settle(wire: &mut Wire, encoding: &str, wait: Duration) -> Result<()> {
    let settings = format!(
        "SET client_min_messages = error; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
         SET row_security = off; SET xmloption = content; SET lock_timeout = {}; SET client_encoding = {}",
        wait.as_millis(),
        literal(encoding)
    );
    execute(wire, &settings).await
}
