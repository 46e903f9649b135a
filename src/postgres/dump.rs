//! Runs pg_dump and pg_dumpall: their arguments, and the meaning of their end.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::child::{Child, ChildCommand, Exit, Special, quoted, reading_environment};
use super::globals::{Globals, Sieve};
use super::passfile::Pass;
use super::refusal::{BYPASS_HINT, KIND_OF_SERVER, LOCKS, REPLAY, STARTUP, TWO_CONNECTIONS};
use super::scratch::behind_walls;
use super::{ConnectionInfo, Passfile, Programs, Redactor};
use crate::error::{Code, Error, Result};
use crate::format::Format;
use crate::postgres::settings;
use crate::store::limits;

/// The most complaints that are kept of one run of pg_dump.
const COMPLAINTS: usize = 20;

/// The arguments of one pg_dump.
pub struct DumpOrder<'a> {
    pub programs: &'a Programs,
    /// Should be [`Session::info`] of the session that holds the snapshot, so that both reach the
    /// same server.
    ///
    /// [`Session::info`]: super::Session::info
    pub info: &'a ConnectionInfo,
    pub passfile: Option<&'a Passfile>,
    pub snapshot: &'a str,
    pub contents: Contents<'a>,
    /// How long it may wait for its locks; zero means for ever.
    pub lock_wait: Duration,
    pub settings: &'a settings::Postgres,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents<'a> {
    /// The whole database, uncompressed.
    Whole(Format),
    /// An archive of only the large objects. It locks no table.
    LargeObjects,
    /// An archive of these tables, with their definitions.
    Tables {
        /// See [`Session::dump_patterns`](super::Session::dump_patterns).
        patterns: &'a [Vec<u8>],
        /// All large objects too.
        with_large_objects: bool,
    },
    /// An archive of all definitions, without rows.
    Definitions,
}

impl Contents<'_> {
    fn arguments(self) -> Vec<OsString> {
        let archive = ["--format=custom", "--compress=0"];
        let options: &[&str] = match self {
            Contents::Whole(Format::Custom) | Contents::Tables { .. } => &[],
            Contents::Whole(Format::Plain) => return vec!["--format=plain".into()],
            Contents::LargeObjects => &["--data-only", "--exclude-table=*.*"],
            Contents::Definitions => &["--schema-only"],
        };
        let mut arguments: Vec<OsString> = archive.iter().chain(options).map(OsString::from).collect();
        if let Contents::Tables {
            patterns,
            with_large_objects,
        } = self
        {
            // A pattern without a table would otherwise be left out without a message.
            arguments.push("--strict-names".into());
            arguments.extend(with_large_objects.then(|| "--blobs".into()));
            for pattern in patterns {
                let mut argument = OsString::from("--table=");
                argument.push(OsStr::from_bytes(pattern));
                arguments.push(argument);
            }
        }
        arguments
    }
}

/// A running pg_dump. Dropping it kills it; it never outlives pgstow.
#[derive(Debug)]
pub struct Dump {
    child: Child,
    lock_wait: Duration,
    _pass: Pass,
}

impl Dump {
    /// Asks for the current password and starts pg_dump. Its output then comes from [`Dump::take_stdout`].
    pub async fn start(order: &DumpOrder<'_>) -> Result<Dump> {
        let pass = Pass::issue(order.info, order.passfile, order.programs.major).await?;
        Self::start_with(order, pass)
    }

    fn start_with(order: &DumpOrder<'_>, pass: Pass) -> Result<Dump> {
        let DumpOrder {
            programs,
            snapshot,
            lock_wait,
            ..
        } = *order;
        let mut arguments = order.contents.arguments();
        arguments.push("--no-password".into());
        arguments.push(format!("--snapshot={snapshot}").into());
        if !lock_wait.is_zero() {
            arguments.push(format!("--lock-wait-timeout={}", lock_wait.as_millis()).into());
        }
        arguments.push(format!("--dbname={}", pass.info.to_conninfo()).into());
        let child = Child::start(ChildCommand {
            program: &programs.pg_dump,
            arguments,
            environment: reading_environment(&order.settings.child_env, Some(&pass)),
            redactor: Redactor::new(&pass.info),
            special: Special {
                confinement: behind_walls(&programs.pg_dump, &pass, [], order.settings),
                ..Special::default()
            },
        })
        .map_err(|error| {
            Error::new(Code::PgDumpErr, format!("cannot start {}", programs.pg_dump.display())).source(error)
        })?;
        Ok(Dump {
            child,
            lock_wait,
            _pass: pass,
        })
    }

    /// The stream, once: a blocking pipe, to be read in a thread of its own.
    pub fn take_stdout(&mut self) -> Result<File> {
        self.child
            .take_stdout()
            .ok_or_else(|| Error::internal("pg_dump's output was taken twice"))
    }

    /// Waits for the end and judges it: only exit status 0 is a success. Call it when the stream has been read to its
    /// end; it may be called again.
    pub async fn wait(&self) -> Result<()> {
        judge("pg_dump", &self.child.wait().await, self.lock_wait)
    }

    /// Ends it cleanly (it cancels its query on the server), or by force if it does not end; returns when it has
    /// ended.
    pub async fn stop(&self) {
        self.child.stop().await;
    }

    /// The warnings of a run that succeeded: call it when pg_dump has ended.
    pub async fn complaints(&self) -> Vec<String> {
        complaints(&self.child.wait().await.stderr)
    }

    /// Ends it because it has sent nothing for this time.
    pub async fn stalled(&self, limit: Duration) -> Error {
        self.stop().await;
        Error::new(
            Code::Stalled,
            format!("pg_dump has given no byte for {} s", limit.as_secs()),
        )
    }

    /// Why its stream ended before it gave anything usable; `None` if pg_dump reports success.
    pub async fn unbegun(&self, stall: Duration) -> Option<Unbegun> {
        match tokio::time::timeout(stall, self.wait()).await {
            Ok(Ok(())) => None,
            Ok(Err(told)) => Some(told.into()),
            Err(_) => Some(Unbegun::Failed(self.stalled(stall).await)),
        }
    }
}

/// The complaints in a program's error output, each in one line with its explanation. Repeated complaints are listed
/// once.
fn complaints(stderr: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in stderr.lines().filter(|line| !line.trim().is_empty()) {
        // pgstow itself asked it to end.
        if line.ends_with("terminated by user") {
            continue;
        }
        let words = line.strip_prefix("pg_dump: ").unwrap_or(line);
        let explains = words.starts_with(char::is_whitespace)
            || ["detail:", "hint:", "DETAIL:", "HINT:", "CONTEXT:"]
                .iter()
                .any(|start| words.starts_with(start));
        match found.last_mut().filter(|_| explains) {
            Some(last) => *last = format!("{last} | {}", words.trim()),
            None => found.push(line.trim().to_owned()),
        }
    }
    let mut told: Vec<String> = Vec::new();
    for one in found {
        let one = crate::printable::line(&quoted(&one));
        if !told.contains(&one) {
            told.push(one);
        }
        if told.len() > COMPLAINTS {
            told.pop();
            told.push("pg_dump printed more warnings than are listed here".into());
            break;
        }
    }
    told
}

/// How long pg_dump may wait for a lock on a table that pgstow already holds. If it takes longer, another session has
/// queued for a lock in between and waits for pgstow. A new attempt lets that session go first.
const BRIEFLY: Duration = Duration::from_secs(2);

/// Why a pg_dump gave nothing usable.
#[derive(Debug)]
pub enum Unbegun {
    /// It did not get its locks, although only pgstow can hold them.
    Crossed(Error),
    /// The server reports in another language than English why a query failed: perhaps a table was dropped in
    /// between. One more attempt shows it.
    Unclear(Error),
    /// The server's lock table has no room for pg_dump's locks beside pgstow's.
    NoRoom(Error),
    Failed(Error),
}

impl From<Unbegun> for Error {
    fn from(unbegun: Unbegun) -> Self {
        match unbegun {
            Unbegun::Crossed(error) | Unbegun::Unclear(error) | Unbegun::NoRoom(error) | Unbegun::Failed(error) => {
                error
            }
        }
    }
}

impl Unbegun {
    /// How long it may wait for a lock while pgstow holds all tables.
    pub fn briefly(lock_wait: Duration) -> Duration {
        match lock_wait {
            Duration::ZERO => BRIEFLY,
            wait => wait.min(BRIEFLY),
        }
    }
}

impl From<Error> for Unbegun {
    fn from(error: Error) -> Self {
        // These are pg_dump's own words, in English whatever language the server uses.
        let says = |words: &str| error.message().contains(words);
        let locks = error.code() != Code::Permission && says("LOCK TABLE");
        // An object was dropped while pg_dump ran, because pg_dump reads the catalog in its current state.
        let query = error.code() == Code::PgDumpErr && says("query failed");
        let dropped = query && (says("does not exist") || says("cache lookup failed"));
        let translated = query && !says("ERROR:");
        if (locks || dropped || translated) && says("max_locks_per_transaction") {
            Unbegun::NoRoom(error)
        } else if locks || dropped {
            Unbegun::Crossed(error)
        } else if translated {
            Unbegun::Unclear(error)
        } else {
            Unbegun::Failed(error)
        }
    }
}

/// The hint for [`SqlState::LOCK_NOT_AVAILABLE`] and for pg_dump's words for it.
///
/// [`SqlState::LOCK_NOT_AVAILABLE`]: tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE
pub(super) fn lock_timed_out(lock_wait: Duration) -> String {
    format!(
        "another session held a lock for longer than {} s: run the backup at a quieter time, or raise \
         BACKUP_LOCK_WAIT_SECONDS",
        lock_wait.as_secs()
    )
}

/// Roles, grants and settings of the whole cluster, without passwords. An ordinary role may not read all of them:
/// then the error says why, and the backup continues without them.
pub async fn globals(
    programs: &Programs,
    info: &ConnectionInfo,
    passfile: Option<&Passfile>,
    settings: &settings::Postgres,
    limit: Duration,
) -> Result<Globals> {
    let Some(program) = &programs.pg_dumpall else {
        return Err(Error::new(
            Code::PgDumpErr,
            format!("pg_dumpall is missing beside {}", programs.pg_dump.display()),
        ));
    };
    let pass = Pass::issue(info, passfile, programs.major).await?;
    let mut server = (*pass.info).clone();
    // pg_dumpall takes the database only from -l, and reads a value that looks like a connection string as one. So
    // pgstow passes every name inside a connection string: a hostile name then stays a name.
    let database = ConnectionInfo {
        dbname: server.dbname.take(),
        ..ConnectionInfo::default()
    };
    let mut child = Child::start(ChildCommand {
        program,
        arguments: vec![
            "--globals-only".into(),
            "--no-role-passwords".into(),
            "--no-password".into(),
            format!("--dbname={}", server.to_conninfo()).into(),
            format!("--database={}", database.to_conninfo()).into(),
        ],
        environment: reading_environment(&settings.child_env, Some(&pass)),
        redactor: Redactor::new(&pass.info),
        special: Special::default(),
    })
    .map_err(|error| Error::new(Code::PgDumpErr, format!("cannot start {}", program.display())).source(error))?;
    let stdout = child
        .take_stdout()
        .ok_or_else(|| Error::internal("pg_dumpall's output was taken twice"))?;
    let work = async {
        let sieved = tokio::task::spawn_blocking(move || sieved(stdout))
            .await
            .map_err(|error| Error::internal("reading pg_dumpall's output failed").source(error))?
            .map_err(|error| Error::new(Code::PgDumpErr, "cannot read pg_dumpall's output").source(error))?;
        let Some(globals) = sieved else {
            return Err(Error::new(Code::PgDumpErr, "pg_dumpall's output is absurdly long"));
        };
        judge("pg_dumpall", &child.wait().await, Duration::ZERO)?;
        Ok(globals)
    };
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => {
            child.stop().await;
            Err(Error::new(
                Code::PgDumpErr,
                format!("pg_dumpall did not end within {} s", limit.as_secs()),
            ))
        }
    }
}

/// `None` if there are more roles than any cluster has.
fn sieved(mut output: impl Read) -> std::io::Result<Option<Globals>> {
    let mut sieve = Sieve::default();
    let mut piece = vec![0; 64 << 10];
    loop {
        let count = match output.read(&mut piece) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            count => count?,
        };
        if count == 0 {
            let globals = sieve.end();
            return Ok((globals.sql.len() as u64 <= limits::GLOBALS).then_some(globals));
        }
        sieve.pass(&piece[..count]);
        if sieve.kept() as u64 > limits::GLOBALS {
            return Ok(None);
        }
    }
}

/// The meaning of a program's end.
fn judge(program: &str, exit: &Exit, lock_wait: Duration) -> Result<()> {
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
    if says(&[
        "password authentication failed",
        "no password supplied",
        "authentication failed",
        "no pg_hba.conf entry",
        "is not permitted to log in",
    ]) {
        return (Code::Auth, None);
    }
    // These are libpq's own words.
    let attributes = [
        "session is read-only",
        "session is not read-only",
        "server is in hot standby mode",
        "server is not in hot standby mode",
    ];
    if says(&attributes) {
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
    if says(&[
        "permission denied for",
        "must be superuser",
        "must be owner",
        // These are pg_dump 18's own words.
        "may lack SELECT privilege",
    ]) {
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
    if says(&[
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
    ]) {
        return (Code::ConnErr, None);
    }
    (Code::PgDumpErr, None)
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
