//! Asks the server why pgstow's own session, or one of PostgreSQL's programs, was refused, if the error does not say
//! it.

use super::Session;
use super::refusal::REPLAY;
use super::server::Language;
use crate::error::{Code, Error, Result};

impl Session {
    /// pg_dump, like the server, stops at the first object that the role may not read; the catalogs can name all of
    /// them, and the GRANT. The server's words may also be in any language; pgstow's own sessions get an SQLSTATE.
    pub async fn explain(&self, error: Error) -> Error {
        let words = error.message();
        if matches!(error.code(), Code::Permission | Code::PgDumpErr) {
            let asked = if error.code() == Code::Permission || may_be_refusal(&words) {
                self.check_refusal(&words).await
            } else {
                self.answers().await
            };
            if let Err(own) = asked {
                if own.code() == Code::Permission {
                    return own;
                }
                // If pgstow's own session has ended too, pg_dump was not the cause. A session whose transaction
                // failed has not ended.
                if error.code() == Code::PgDumpErr && (own.hint_text() == REPLAY || self.answers().await.is_err()) {
                    let hint = own.hint_text().to_owned();
                    return error.with_code(Code::ConnErr).hint(hint);
                }
            }
        }
        if error.code() == Code::Permission {
            let hint = self.info().naming_the_role(error.hint_text());
            return error.hint(hint);
        }
        // These are PgBouncer's own words.
        if error.code() == Code::ConnErr && error.message().contains("unsupported startup parameter") {
            return self.explain_settings(error).await;
        }
        // These are pg_dump's own words.
        if error.code() == Code::PgDumpErr && error.has_own_hint() && error.message().contains("LOCK TABLE") {
            return match self.held_by_others().await.as_slice() {
                [] => error,
                held => {
                    let text = format!("{}; other sessions hold or want {}", error.message(), held.join(", "));
                    Error::new(error.code(), text).hint(error.hint_text())
                }
            };
        }
        if self.server.language != Language::English && matches!(error.code(), Code::ConnErr | Code::PgDumpErr) {
            return self.explain_foreign(error).await;
        }
        error
    }

    /// Whether the server still answers this session. The query is empty, so it also works in a failed transaction.
    pub(crate) async fn answers(&self) -> Result<()> {
        let answered = self.client.batch_execute("").await;
        answered.map_err(|error| self.error("the server does not answer", &error))
    }

    /// The settings that the program's session would have had to start with.
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
            "PgBouncer does not pass on the start-up options that this role's or database's settings make \
             necessary: {}; or connect to the server itself",
            resets.join("; ")
        ))
    }

    /// A new session of pgstow's is refused like pg_dump's, but with an SQLSTATE.
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

/// Whether pg_dump quotes the server here in another language than English: English words have been judged already.
fn may_be_refusal(words: &str) -> bool {
    let quotes = ["query failed", "Error message from server", "large object"];
    quotes.iter().any(|start| words.contains(start)) && !words.contains("ERROR:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_in_another_language_than_english_is_looked_into() {
        let german = "query failed: FEHLER:  keine Berechtigung für Funktion lo_open | pg_dump: detail: Query was: SELECT \
                      pg_catalog.pg_get_viewdef('1')";
        assert!(may_be_refusal(german));
        assert!(!may_be_refusal(
            "query failed: ERROR:  canceling statement due to lock timeout"
        ));
        assert!(!may_be_refusal("pg_dump was ended by SIGKILL"));
    }
}
