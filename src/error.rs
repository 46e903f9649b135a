//! The one error type, and the one table from what went wrong to what follows from it.

mod report;

use std::error::Error as StdError;
use std::fmt;

use crate::printable;

pub use report::{ErrorReport, Failure, FailureStatus};

/// What can fail with an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as something that a reader can act on. The names and exit codes are a
/// contract with scripts and dashboards: extend, never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    Config,
    ConnErr,
    Auth,
    Secret,
    Permission,
    PgDumpErr,
    Version,
    Stalled,
    Changed,
    Store,
    Enospc,
    Eacces,
    Enoent,
    Integrity,
    RestoreErr,
    NotProved,
    NotFound,
    Signature,
    OtherDatabase,
    Deadline,
    Busy,
    Interrupted(Signal),
    Internal,
}

/// The signals that end a run in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    Interrupt,
    Terminate,
}

/// What follows from a code.
struct Consequence {
    name: &'static str,
    exit: u8,
    /// What to do when the place that failed knows nothing better to say.
    hint: &'static str,
}

impl Code {
    /// Every code, in the order of their exit codes.
    pub const ALL: [Code; 23] = [
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
                "check host, port and network path (security group, pg_hba.conf), and that the server is up",
            ),
            Code::Auth => (
                "AUTH",
                11,
                "check the user and password; a rotated secret must match the database",
            ),
            Code::Secret => (
                "SECRET",
                12,
                "check the secret's id, region, format and the task's secretsmanager:GetSecretValue permission",
            ),
            Code::Permission => (
                "PERMISSION",
                13,
                "grant the role what it must read: GRANT pg_read_all_data TO <role>",
            ),
            Code::PgDumpErr => ("PG_DUMP_ERR", 20, "see pg_dump's message above; nothing was stored"),
            Code::Version => (
                "VERSION",
                21,
                "install the PostgreSQL client of the server's major version, or point BACKUP_PG_BIN at it",
            ),
            Code::Stalled => (
                "STALLED",
                22,
                "look for locks and load on the server; BACKUP_STALL_SECONDS sets the limit",
            ),
            Code::Changed => (
                "CHANGED",
                23,
                "run the backup at a quieter time; or let BACKUP_ON_CHANGED_TABLES=warn store the rest, and name them",
            ),
            Code::Store => (
                "STORE",
                30,
                "check the store's endpoint, credentials and permissions, then run again",
            ),
            Code::Enospc => ("ENOSPC", 31, "free space in the store's folder, or choose another"),
            Code::Eacces => ("EACCES", 32, "give this user write access to the store's folder"),
            Code::Enoent => ("ENOENT", 33, "create the folder, or correct --store"),
            Code::Integrity => (
                "INTEGRITY",
                40,
                "do not rely on this backup: use another one, as `pgstow list` shows them, and find the cause",
            ),
            Code::RestoreErr => ("RESTORE_ERR", 41, "see the message for the target's state"),
            Code::NotProved => (
                "NOT_PROVED",
                43,
                "this says nothing of the backup, and nothing was recorded: see the message, and try again",
            ),
            Code::NotFound => ("NOT_FOUND", 42, "use an exact id of a backup in the store"),
            Code::Signature => (
                "SIGNATURE",
                47,
                "use only what a key of BACKUP_VERIFY_KEYS has signed; find out who put the rest into the store",
            ),
            Code::OtherDatabase => (
                "OTHER_DATABASE",
                48,
                "give each server a prefix of its own; if it is the same database moved, say so once with --adopt",
            ),
            Code::Deadline => (
                "DEADLINE",
                50,
                "give the task more time, or run the backup as a container task",
            ),
            Code::Busy => (
                "BUSY",
                51,
                "wait until the other run has ended; its lease expires by itself if it died",
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

    /// The code of this name. A name does not say which signal interrupted a run: then it is the one that
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

/// The exit code of a backup that is good, and is not in all the stores in which it should be.
pub const DEGRADED: u8 = 3;
/// The exit code of a restore that went on past what failed.
pub const PARTIAL: u8 = 4;

/// Failures of the clean-up that are named although they have a reason that was told.
const TOLD_ALIKE: usize = 2;

/// A failure: its kind, what failed, what to do, and the cause below it. Secrets never enter:
/// whoever quotes foreign text (a child's stderr, a server's message) takes them out first.
#[derive(Debug)]
pub struct Error {
    code: Code,
    what: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    /// Failures of the clean-up that followed; the first error stays the first.
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

    /// Replaces the code's general hint by one that fits the case.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(printable::line(&hint.into()));
        self
    }

    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same failure, as one of what was being done: `what`, and then, after a colon, what it said so far. Code and
    /// hint stay, and what it knows of its causes.
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

    /// The failure, with that of the clean-up after it attached, where that failed too.
    #[must_use]
    pub fn with_clean_up(self, clean_up: Result<()>) -> Self {
        match clean_up {
            Ok(()) => self,
            Err(second) => self.also(second),
        }
    }

    /// Of several failures the first, with the others attached to it.
    #[must_use]
    pub fn first_of(failures: impl IntoIterator<Item = Error>) -> Option<Self> {
        failures.into_iter().reduce(Self::also)
    }

    /// The same failure, of another kind.
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

    /// Whether the place that failed knew a better hint than the code's.
    pub fn has_own_hint(&self) -> bool {
        self.hint.is_some()
    }

    /// The whole story in one line: what failed, each cause below it, and what the clean-up
    /// could not do. Whatever names and servers' messages are in it, it cannot steer a terminal.
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
        // `message` tells the chain already: a caller that walks it would say everything twice.
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
