//! What the end of pg_dump or pg_dumpall says: which kind of failure it was, and what helps.

use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::postgres::child::Exit;
use crate::postgres::refusal::{BYPASS_HINT, KIND_OF_SERVER, LOCKS, REPLAY, STARTUP, TWO_CONNECTIONS};

/// The meaning of a program's end.
pub(super) fn judge(program: &str, exit: &Exit, lock_wait: Duration) -> Result<()> {
    if exit.status.success() {
        return Ok(());
    }
    let words = exit.last_words();
    let with_words = |text: String| {
        if words.is_empty() {
            text
        } else {
            format!("{text}: {words}")
        }
    };
    if let Some(signal) = exit.signal_name() {
        let error = Error::new(Code::PgDumpErr, with_words(format!("{program} was ended by {signal}")));
        return Err(match signal.as_str() {
            "SIGKILL" => error.hint("look at the system's log: if no user killed it, the system ran out of memory"),
            _ => error,
        });
    }
    let code = exit.status.code().unwrap_or(-1);
    let text = with_words(format!("{program} failed with exit status {code}"));
    let (code, hint) = classify(&exit.stderr, lock_wait);
    let error = Error::new(code, text);
    Err(match hint {
        Some(hint) => error.hint(hint),
        None => error,
    })
}

const REFUSED_LOGIN: [&str; 5] = [
    "password authentication failed",
    "no password supplied",
    "authentication failed",
    "no pg_hba.conf entry",
    "is not permitted to log in",
];
/// libpq's own words.
const ANOTHER_KIND_OF_SERVER: [&str; 4] = [
    "session is read-only",
    "session is not read-only",
    "server is in hot standby mode",
    "server is not in hot standby mode",
];
/// The last are pg_dump 18's own words.
const LACKING_RIGHTS: [&str; 4] = [
    "permission denied for",
    "must be superuser",
    "must be owner",
    "may lack SELECT privilege",
];
const LOST_CONNECTION: [&str; 14] = [
    "server closed the connection",
    "terminating connection",
    "could not connect to",
    "connection to server",
    "could not receive data from server",
    "could not send data to server",
    "SSL connection has been closed",
    "SSL SYSCALL error",
    "no connection to the server",
    "could not translate host name",
    "Connection refused",
    "Connection reset",
    "the database system is",
    "lost synchronization with server",
];

/// The kind of failure that stderr describes. The program's own words are English (`LC_ALL=C`); the server's words
/// are in the server's language, so an unknown language gives `PG_DUMP_ERR` with the text.
fn classify(stderr: &str, lock_wait: Duration) -> (Code, Option<String>) {
    let says = |needles: &[&str]| needles.iter().any(|needle| stderr.contains(needle));
    if says(&["server version mismatch"]) {
        return (Code::Version, None);
    }
    if says(&["authentication method requirement", "; no answer was given"]) {
        let hint = "the server asked pg_dump for another proof than pgstow's own session: an attacker may be in \
                    between; use sslmode=verify-full, or see require_auth";
        return (Code::Auth, Some(hint.into()));
    }
    if says(&REFUSED_LOGIN) {
        return (Code::Auth, None);
    }
    if says(&ANOTHER_KIND_OF_SERVER) {
        return (Code::ConnErr, Some(KIND_OF_SERVER.into()));
    }
    if says(&["unsupported startup parameter"]) {
        return (Code::ConnErr, Some(STARTUP.into()));
    }
    if says(&["too many clients", "too many connections", "remaining connection slots"]) {
        return (Code::ConnErr, Some(TWO_CONNECTIONS.into()));
    }
    if says(&["row-level security"]) {
        return (Code::Permission, Some(BYPASS_HINT.into()));
    }
    if says(&LACKING_RIGHTS) {
        return (Code::Permission, None);
    }
    // If the server does not speak English, there is no other sign; other reasons why a lock can fail have words of
    // their own.
    let translated = says(&["query failed"]) && !says(&["ERROR:", "max_locks_per_transaction"]);
    if (translated || says(&["due to statement timeout", "due to lock timeout"])) && says(&["LOCK TABLE"]) {
        return (Code::PgDumpErr, Some(lock_timed_out(lock_wait)));
    }
    if says(&["max_locks_per_transaction"]) {
        return (Code::PgDumpErr, Some(LOCKS.into()));
    }
    if says(&["conflict with recovery"]) {
        return (Code::ConnErr, Some(REPLAY.into()));
    }
    if says(&["snapshot"]) && says(&["SET TRANSACTION SNAPSHOT"]) {
        let hint = "pg_dump reached another server than pgstow's own session, or that session was cut: connect to one \
                    server itself, not to a pooler or a balanced name";
        return (Code::ConnErr, Some(hint.into()));
    }
    if says(&LOST_CONNECTION) {
        return (Code::ConnErr, None);
    }
    (Code::PgDumpErr, None)
}

/// The hint for [`SqlState::LOCK_NOT_AVAILABLE`] and for pg_dump's words for it.
///
/// [`SqlState::LOCK_NOT_AVAILABLE`]: tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE
pub(in crate::postgres) fn lock_timed_out(lock_wait: Duration) -> String {
    format!(
        "another session held a lock for longer than {} s: run the backup at a quieter time, or raise \
         BACKUP_LOCK_WAIT_SECONDS",
        lock_wait.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn verdict(raw_status: i32, stderr: &str) -> Error {
        let exit = Exit {
            status: ExitStatus::from_raw(raw_status),
            stderr: stderr.into(),
        };
        judge("pg_dump", &exit, Duration::from_secs(60)).unwrap_err()
    }

    #[test]
    fn pg_dumps_words_decide_the_code() {
        let cases = [
            (
                "pg_dump: error: query failed: ERROR:  permission denied for table t\npg_dump: detail: Query was: LOCK TABLE public.t IN ACCESS SHARE MODE",
                Code::Permission,
            ),
            (
                "pg_dump: error: query failed: ERROR:  query would be affected by row-level security policy for table \"t\"",
                Code::Permission,
            ),
            (
                "pg_dump: error: aborting because of server version mismatch\npg_dump: detail: server version: 17.11; pg_dump version: 15.18",
                Code::Version,
            ),
            (
                "pg_dump: error: connection to server at \"h\" failed: FATAL:  password authentication failed for user \"u\"",
                Code::Auth,
            ),
            (
                "pg_dump: error: connection to server at \"h\", port 1 failed: authentication method requirement \"!md5\" failed: server requested a hashed password",
                Code::Auth,
            ),
            (
                "pg_dump: error: connection to server at \"h\" (::1), port 1 failed: Connection refused",
                Code::ConnErr,
            ),
            (
                "pg_dump: error: Dumping the contents of table \"t\" failed: PQgetCopyData() failed.\npg_dump: detail: Error message from server: server closed the connection unexpectedly",
                Code::ConnErr,
            ),
            (
                "pg_dump: error: query failed: ERROR:  canceling statement due to statement timeout\npg_dump: detail: Query was: LOCK TABLE public.t IN ACCESS SHARE MODE",
                Code::PgDumpErr,
            ),
            (
                "pg_dump: error: could not write to output file: No space left on device",
                Code::PgDumpErr,
            ),
            ("", Code::PgDumpErr),
        ];
        for (stderr, code) in cases {
            assert_eq!(verdict(1 << 8, stderr).code(), code, "{stderr}");
        }
    }

    #[test]
    fn a_signal_is_named() {
        let error = verdict(9, "");
        assert_eq!(error.code(), Code::PgDumpErr);
        assert!(error.message().contains("SIGKILL"), "{error}");
        assert!(verdict(11, "").message().contains("SIGSEGV"));
    }

    #[test]
    fn the_telling_lines_are_quoted_and_no_more() {
        let noise = "pg_dump: warning: there are circular foreign-key constraints\n".repeat(30);
        let error = verdict(1 << 8, &format!("{noise}pg_dump: error: this\npg_dump: detail: that\n"));
        assert!(
            error
                .message()
                .ends_with("pg_dump: error: this | pg_dump: detail: that"),
            "{error}"
        );
        assert!(verdict(1 << 8, &"é".repeat(50_000)).message().len() < 3000);
    }
}
