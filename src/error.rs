//! The one error type, and the one table from what went wrong to what follows from it.

mod report;

use std::error::Error as StdError;
use std::fmt;

use crate::printable;

pub use report::{ErrorReport, Failure, FailureStatus};

/// What can fail with an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as a kind that a reader can act on. Scripts and dashboards rely on the names and exit codes: add
/// new ones, never change existing ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// A setting is missing, malformed or in conflict with another.
    Config,
    /// The database cannot be reached, or dropped the connection.
    ConnErr,
    /// The database refuses the login.
    Auth,
    /// The secret cannot be read or understood.
    Secret,
    /// The role may not read or do something that is needed.
    Permission,
    /// pg_dump or pg_dumpall failed, or its stream is not a whole archive.
    PgDumpErr,
    /// No program of PostgreSQL's fits the server's major version.
    Version,
    /// No byte came for the stall limit.
    Stalled,
    /// Tables were emptied or rewritten while they were read.
    Changed,
    /// The store refuses, or kept failing after the retries.
    Store,
    /// A folder store has no space.
    Enospc,
    /// A folder store gives no access.
    Eacces,
    /// The folder of a store is missing.
    Enoent,
    /// Stored bytes differ from the manifest.
    Integrity,
    /// A restore failed; the message says in which state the target is.
    RestoreErr,
    /// A verification or drill could not be carried out. It says nothing about the backup.
    NotProved,
    /// There is no such backup.
    NotFound,
    /// The replication slot is lost, missing or not pgstow's.
    Slot,
    /// The moment cannot be restored exactly.
    NotCovered,
    /// A signature is missing, wrong, or by a key that is not trusted.
    Signature,
    /// The backups in the store are of another database than this one.
    OtherDatabase,
    /// The task's time is about to run out.
    Deadline,
    /// Another run holds the lease, or what the run needs.
    Busy,
    /// A signal stopped the run.
    Interrupted(Signal),
    /// A fault in pgstow.
    Internal,
}

/// The signals that stop a run cleanly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

/// What follows from a code.
struct Consequence {
    name: &'static str,
    exit: u8,
    /// For errors that were made without a hint of their own. `ConnectionInfo::naming_the_role` replaces `<role>` by
    /// the role's name.
    hint: &'static str,
}

impl Code {
    /// Every code, in the order of their exit codes.
    pub const ALL: [Code; 25] = [
        Code::Config,
        Code::ConnErr,
        Code::Auth,
        Code::Secret,
        Code::Permission,
        Code::PgDumpErr,
        Code::Version,
        Code::Stalled,
        Code::Changed,
        Code::Store,
        Code::Enospc,
        Code::Eacces,
        Code::Enoent,
        Code::Integrity,
        Code::RestoreErr,
        Code::NotProved,
        Code::NotFound,
        Code::Slot,
        Code::NotCovered,
        Code::Signature,
        Code::OtherDatabase,
        Code::Deadline,
        Code::Busy,
        Code::Interrupted(Signal::Terminate),
        Code::Internal,
    ];

    fn consequence(self) -> Consequence {
        let (name, exit, hint) = match self {
            Code::Config => (
                "CONFIG",
                2,
                "correct the setting; `pgstow backup --help` lists them all",
            ),
            Code::ConnErr => (
                "CONN_ERR",
                10,
                "check that the server runs, its host and port, and the network path (security group, pg_hba.conf)",
            ),
            Code::Auth => (
                "AUTH",
                11,
                "check the user and the password; after a rotation, the secret must hold the new password",
            ),
            Code::Secret => (
                "SECRET",
                12,
                "check the secret's id, region and format, and that the task may call secretsmanager:GetSecretValue",
            ),
            Code::Permission => (
                "PERMISSION",
                13,
                "grant the role the right that the error is about: GRANT pg_read_all_data TO <role> for tables and sequences, \
                 GRANT SELECT ON LARGE OBJECT for a large object, BYPASSRLS for row-level security",
            ),
            Code::PgDumpErr => (
                "PG_DUMP_ERR",
                20,
                "correct the cause that pg_dump reports, then run the backup again; nothing was stored",
            ),
            Code::Version => (
                "VERSION",
                21,
                "install the PostgreSQL client of the server's major version, or set BACKUP_PG_BIN to its bin folder",
            ),
            Code::Stalled => (
                "STALLED",
                22,
                "look for locks and load on the server, or raise the limit, BACKUP_STALL_SECONDS",
            ),
            Code::Changed => (
                "CHANGED",
                23,
                "run the backup at a quieter time, or set BACKUP_ON_CHANGED_TABLES=warn to store it with a warning",
            ),
            Code::Store => (
                "STORE",
                30,
                "check the store's endpoint, credentials and permissions, then run again",
            ),
            Code::Enospc => (
                "ENOSPC",
                31,
                "free space on the disk of the store's folder, or choose another folder",
            ),
            Code::Eacces => ("EACCES", 32, "give this user write access to the store's folder"),
            Code::Enoent => ("ENOENT", 33, "create the folder, or correct --store"),
            Code::Integrity => (
                "INTEGRITY",
                40,
                "do not rely on this backup: use another one (`pgstow list` shows them), and find the cause",
            ),
            Code::RestoreErr => ("RESTORE_ERR", 41, "see the message for the target's state"),
            Code::NotProved => (
                "NOT_PROVED",
                43,
                "correct the cause, and try again; it says nothing of the backup, so no result was recorded",
            ),
            Code::NotFound => ("NOT_FOUND", 42, "use an exact id of a backup in the store"),
            Code::Slot => (
                "SLOT",
                44,
                "`pgstow incremental status` shows the slot; `pgstow incremental start` makes a new one",
            ),
            Code::NotCovered => (
                "NOT_COVERED",
                45,
                "choose one of the exact moments that the message names; `pgstow list` shows the recovery window",
            ),
            Code::Signature => (
                "SIGNATURE",
                47,
                "use only backups that a key of BACKUP_VERIFY_KEYS has signed; find out who put this one there",
            ),
            Code::OtherDatabase => (
                "OTHER_DATABASE",
                48,
                "give each server its own prefix; if this is the same database after a move, pass --adopt once",
            ),
            Code::Deadline => (
                "DEADLINE",
                50,
                "give the task more time, or run the backup as a container task",
            ),
            Code::Busy => (
                "BUSY",
                51,
                "wait until the other run has ended; if it died, its lease expires by itself",
            ),
            Code::Interrupted(Signal::Interrupt) => ("INTERRUPTED", 130, "run it again"),
            Code::Interrupted(Signal::Terminate) => ("INTERRUPTED", 143, "run it again"),
            Code::Internal => (
                "INTERNAL",
                70,
                "this is a bug in pgstow: please report it with the command and this message",
            ),
        };
        Consequence { name, exit, hint }
    }

    /// As it is printed, such as `PG_DUMP_ERR`.
    pub fn name(self) -> &'static str {
        self.consequence().name
    }

    /// Of the program `pgstow`, 2 to 143.
    pub fn exit_code(self) -> u8 {
        self.consequence().exit
    }

    /// The code with this name. The name does not say which signal interrupted a run: SIGTERM is assumed, which
    /// schedulers send.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The exit code of a backup that is good but is missing in at least one of its stores.
pub const DEGRADED: u8 = 3;
/// The exit code of a restore that continued after errors.
pub const PARTIAL: u8 = 4;

/// How many failures of the clean-up are named if their reason is already in the message.
const TOLD_ALIKE: usize = 2;

/// A failure: its kind, what failed, what to do, and its cause. It never holds secrets: code that quotes foreign text
/// (a child's stderr, a server's message) removes them first.
#[derive(Debug)]
pub struct Error {
    code: Code,
    what: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    /// Failures of the clean-up afterwards; the first error stays the main one.
    also: Vec<Error>,
}

impl Error {
    /// `what` says what failed and, after a colon, why, in one line.
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Self {
            code,
            what: what.into(),
            hint: None,
            source: None,
            also: Vec::new(),
        }
    }

    /// An error of the code `CONFIG`: a setting or an option is wrong.
    pub fn config(what: impl Into<String>) -> Self {
        Self::new(Code::Config, what)
    }

    /// An error of the code `INTERNAL`: a bug of this program.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(Code::Internal, what)
    }

    /// Replaces the code's general hint with one that fits the case.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(printable::line(&hint.into()));
        self
    }

    /// The error that caused this one. Its text follows in the message, after a colon.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same failure within a larger task: the message is `what`, a colon, and the message so far. Code, hint and
    /// causes stay.
    #[must_use]
    pub fn context(mut self, what: impl Into<String>) -> Self {
        Self {
            code: self.code,
            what: what.into(),
            hint: self.hint.take(),
            source: Some(Box::new(self)),
            also: Vec::new(),
        }
    }

    /// Attaches a failure of the clean-up without losing the first error.
    #[must_use]
    pub fn also(mut self, second: Error) -> Self {
        self.also.push(second);
        self
    }

    /// The failure, and the clean-up's failure attached to it if there is one.
    #[must_use]
    pub fn with_clean_up(self, clean_up: Result<()>) -> Self {
        match clean_up {
            Ok(()) => self,
            Err(second) => self.also(second),
        }
    }

    /// The first of several failures, with the others attached to it.
    #[must_use]
    pub fn first_of(failures: impl IntoIterator<Item = Error>) -> Option<Self> {
        failures.into_iter().reduce(Self::also)
    }

    /// The same failure with another code.
    pub fn with_code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }

    /// The kind of failure.
    pub fn code(&self) -> Code {
        self.code
    }

    /// What helps: the error's own hint, else that of its code.
    pub fn hint_text(&self) -> &str {
        self.hint.as_deref().unwrap_or(self.code.consequence().hint)
    }

    /// Whether the hint was made for this case, and is not the code's general one.
    pub fn has_own_hint(&self) -> bool {
        self.hint.is_some()
    }

    /// The whole failure in one line: what failed, each cause, and what the clean-up could not do. Names and servers'
    /// messages in it cannot steer a terminal.
    pub fn message(&self) -> String {
        let mut text = self.what.clone();
        let mut cause = self.source.as_deref().map(|source| source as &dyn StdError);
        while let Some(error) = cause {
            let part = error.to_string();
            // Many library errors repeat their cause in their own text.
            if !part.is_empty() && !text.ends_with(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            cause = error.source();
        }
        let (mut told, mut alike) = (0, 0);
        for second in self.also.iter().map(Error::message) {
            if text.contains(&second) {
                continue;
            }
            match second.split_once(": ").filter(|(_, why)| text.contains(why)) {
                None => text.push_str(&format!("; and then: {second}")),
                Some((what, _)) if told < TOLD_ALIKE => {
                    told += 1;
                    text.push_str(&format!("; and then: {what}, for the same reason"));
                }
                Some(_) => alike += 1,
            }
        }
        if alike > 0 {
            text.push_str(&format!("; and {alike} more for the same reason"));
        }
        printable::line(&text)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        // `message` contains the causes already: a caller that walks the chain would print them twice.
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_keeps_code_hint_and_what_was_said() {
        let inner = Error::new(Code::Store, "cannot tag a").source(std::io::Error::other("refused"));
        let error = inner.hint("ask for it").also(Error::new(Code::Store, "no answer"));
        let error = error.context("cannot clear b");
        assert_eq!((error.code(), error.hint_text()), (Code::Store, "ask for it"));
        assert_eq!(
            error.message(),
            "cannot clear b: cannot tag a: refused; and then: no answer"
        );
        let general = Error::new(Code::Store, "no answer").context("cannot list c");
        assert!(!general.has_own_hint());
        assert_eq!(general.hint_text(), Error::new(Code::Store, "").hint_text());
    }

    #[test]
    fn one_reason_is_told_once_however_much_fails_of_it() {
        let failed = |what: &str| Error::new(Code::Store, format!("cannot tag {what} in s3://b: refused: (HTTP 400)"));
        let mut error = failed("a").also(failed("a"));
        for key in ["b", "c", "d", "e"] {
            error = error.also(failed(key));
        }
        let error = error.also(Error::new(Code::Store, "no answer"));
        assert_eq!(
            error.message(),
            "cannot tag a in s3://b: refused: (HTTP 400); and then: cannot tag b in s3://b, for the same reason; and \
             then: cannot tag c in s3://b, for the same reason; and then: no answer; and 2 more for the same reason"
        );
    }
}
