//! Runs pg_restore: its arguments, and the meaning of its end.

mod complaints;

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::child::{Child, ChildCommand, Exit, Special, environment};
use super::logins::Logins;
use super::passfile::Pass;
use super::scratch::behind_walls;
use super::{ConnectionInfo, Passfile, Redactor, RestoreProgram};
use crate::error::{Code, Error, Result};
use crate::format::archive::Section;
use crate::postgres::settings;
pub use complaints::Complaint;
use complaints::Complaints;

/// The source of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArchiveInput {
    /// Written into [`Restoring::take_stdin`].
    Stdin,
    /// Read by pg_restore itself, which is necessary for several jobs.
    File(PathBuf),
}

/// The arguments of one pg_restore.
#[derive(Debug, Clone)]
pub struct RestoreOrder<'a> {
    pub program: &'a RestoreProgram,
    /// The target database.
    pub info: &'a ConnectionInfo,
    pub passfile: Option<&'a Passfile>,
    pub settings: &'a settings::Postgres,
    pub archive: ArchiveInput,
    /// A file with the entries to restore, in order (`--use-list`).
    pub list: Option<PathBuf>,
    /// Only these sections; all if empty.
    pub sections: Vec<Section>,
    pub jobs: usize,
    pub single_transaction: bool,
    pub no_owner: bool,
    pub no_privileges: bool,
    pub no_tablespaces: bool,
    /// Otherwise errors of single entries become warnings.
    pub exit_on_error: bool,
    /// Entries, by dump ids, whose errors become warnings in any case.
    pub may_fail: HashSet<i64>,
    /// Write the statements to its output instead of sending them to the server.
    pub as_text: bool,
}

/// A running pg_restore. Dropping it kills it; it never outlives pgstow.
#[derive(Debug)]
pub struct Restoring {
    child: Child,
    complaints: Arc<Mutex<Complaints>>,
    exit_on_error: bool,
    _pass: Pass,
    logins: Option<Logins>,
}

/// The result of a pg_restore that finished.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreEnd {
    /// What it could not do, as far as the order let it go on.
    pub refused: Vec<Complaint>,
}

impl Restoring {
    /// Asks for the current password and starts pg_restore.
    pub async fn start(order: &RestoreOrder<'_>) -> Result<Restoring> {
        // Without a server, no password is needed.
        let passfile = order.passfile.filter(|_| !order.as_text);
        // With several jobs, pg_restore logs in again at the end, with the password that it was started with.
        let logins = passfile
            .filter(|_| order.jobs > 1 && order.info.keys.may_change())
            .and_then(|passfile| passfile.logins(order.info, order.settings));
        let pass = match &logins {
            Some(logins) => Pass::through(logins, order.info)?,
            None => Pass::issue(order.info, passfile, order.program.major).await?,
        };
        Self::start_with(order, pass, logins)
    }

    fn start_with(order: &RestoreOrder<'_>, pass: Pass, logins: Option<Logins>) -> Result<Restoring> {
        let tolerates = order.program.tolerates_transaction_timeout;
        if tolerates && order.single_transaction && !order.as_text {
            return Err(Error::new(
                Code::Version,
                format!(
                    "pg_restore {} sets transaction_timeout, which the target does not know and which would break a \
                     single transaction",
                    order.program.version
                ),
            )
            .hint("restore without a single transaction, or into PostgreSQL 17 or newer"));
        }
        let redactor = Redactor::new(&pass.info);
        let by_listening = order.exit_on_error && (tolerates || !order.may_fail.is_empty());
        let keeps_all = !order.exit_on_error || !order.may_fail.is_empty();
        let complaints = Complaints::new(redactor.clone(), tolerates, by_listening, keeps_all);
        let complaints = Arc::new(Mutex::new(complaints.except(order.may_fail.clone())));
        let heard = Arc::clone(&complaints);
        let archive = match &order.archive {
            ArchiveInput::File(path) => Some(path.as_path()),
            ArchiveInput::Stdin => None,
        };
        let files = archive.into_iter().chain(order.list.as_deref());
        let child = Child::start(ChildCommand {
            program: &order.program.pg_restore,
            arguments: arguments(order, &pass, logins.is_some()),
            environment: environment(&order.settings.child_env, Some(&pass)),
            redactor,
            special: Special {
                stdin: order.archive == ArchiveInput::Stdin,
                listener: Some(Box::new(move |line| {
                    heard.lock().unwrap_or_else(PoisonError::into_inner).hear(line)
                })),
                confinement: behind_walls(&order.program.pg_restore, &pass, files, order.settings),
                ..Special::default()
            },
        })
        .map_err(|error| {
            let program = order.program.pg_restore.display();
            Error::new(Code::RestoreErr, format!("cannot start {program}")).source(error)
        })?;
        Ok(Restoring {
            child,
            complaints,
            exit_on_error: order.exit_on_error,
            _pass: pass,
            logins,
        })
    }

    /// Its input, once, for a blocking writer in a thread of its own; dropping it ends the archive. When pg_restore
    /// has ended, writing fails with `BrokenPipe`, and [`Restoring::wait`] gives the reason.
    pub fn take_stdin(&mut self) -> Option<File> {
        self.child.take_stdin()
    }

    /// Its output, once, for a blocking reader.
    pub fn take_stdout(&mut self) -> Option<File> {
        self.child.take_stdout()
    }

    /// Waits for the end and judges it; may be called again. If it failed, `RESTORE_ERR` with the name of the entry.
    pub async fn wait(&self) -> Result<RestoreEnd> {
        let exit = self.child.wait().await;
        let complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        judge(&exit, &complaints, self.exit_on_error)
    }

    /// Ends it cleanly (it cancels its queries on the server), or by force if it does not end; returns when it has
    /// ended.
    pub async fn stop(&self) {
        self.child.stop().await;
        if let Some(logins) = &self.logins {
            logins.settle().await;
        }
    }
}

fn arguments(order: &RestoreOrder<'_>, pass: &Pass, by_our_logins: bool) -> Vec<OsString> {
    // Without `--verbose` it does not say which entry an error is about.
    let mut arguments: Vec<OsString> = match order.as_text {
        true => Vec::new(),
        false => vec!["--no-password".into(), "--verbose".into()],
    };
    let mut flag = |wanted: bool, name: &str| {
        if wanted {
            arguments.push(name.into());
        }
    };
    // `--exit-on-error` would also stop pg_restore at tolerated errors: the one about `transaction_timeout`, and those
    // of entries that may fail. In these cases the listener stops it at any other error.
    let tolerates = order.program.tolerates_transaction_timeout || !order.may_fail.is_empty();
    let stops = order.exit_on_error && !tolerates && !order.as_text;
    flag(stops, "--exit-on-error");
    flag(order.single_transaction, "--single-transaction");
    flag(order.no_owner, "--no-owner");
    flag(order.no_privileges, "--no-privileges");
    flag(order.no_tablespaces, "--no-tablespaces");
    for section in &order.sections {
        flag(
            true,
            match section {
                Section::PreData => "--section=pre-data",
                Section::Data => "--section=data",
                Section::PostData => "--section=post-data",
            },
        );
    }
    // The server would refuse its second login.
    if order.jobs > 1 && (by_our_logins || !order.info.keys.are_short_lived()) {
        arguments.push(format!("--jobs={}", order.jobs).into());
    }
    if let Some(list) = &order.list {
        let mut argument = OsString::from("--use-list=");
        argument.push(list);
        arguments.push(argument);
    }
    match order.as_text {
        true => arguments.push("--file=-".into()),
        false => arguments.push(format!("--dbname={}", pass.info.to_conninfo()).into()),
    }
    if let ArchiveInput::File(path) = &order.archive {
        arguments.push("--".into());
        arguments.push(path.into());
    }
    arguments
}

/// The meaning of its end. The exit status is the same for an end with ignored errors and for a failure; the last
/// line of its output shows the difference.
fn judge(exit: &Exit, complaints: &Complaints, exit_on_error: bool) -> Result<RestoreEnd> {
    let went_on = exit.status.code() == Some(1) && complaints.came_to_the_end();
    if exit.status.success() || (went_on && (!exit_on_error || complaints.count() == 0)) {
        return Ok(RestoreEnd {
            refused: complaints.all(),
        });
    }
    let why = match exit.signal_name() {
        Some(signal) => format!("was ended by {signal}"),
        None => format!("failed with exit status {}", exit.status.code().unwrap_or(-1)),
    };
    let words = complaints.first().unwrap_or_else(|| exit.last_words());
    Err(failure(&why, &words))
}

fn failure(why: &str, words: &str) -> Error {
    let text = match words.is_empty() {
        true => format!("pg_restore {why}"),
        false => format!("pg_restore {why}: {words}"),
    };
    let error = Error::new(Code::RestoreErr, text);
    match hint(words) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

impl Complaint {
    /// The error, if pg_restore had not gone on after it.
    pub fn into_error(self) -> Error {
        failure("failed with exit status 1", &self.text())
    }
}

/// The server's words are in its own language; only English ones are understood.
fn hint(words: &str) -> Option<&'static str> {
    let says = |needles: &[&str]| needles.iter().any(|needle| words.contains(needle));
    Some(if says(&["already exists"]) {
        "restore into an empty database, or let --clean drop the existing objects"
    } else if says(&["is not available", "extension control file"]) {
        "install the extension's package on the target's machine"
    } else if says(&["No space left on device"]) {
        "free space on the target's disk"
    } else if says(&[
        "permission denied",
        "must be superuser",
        "must be owner",
        "must be member",
    ]) {
        "restore as a role that may create these objects; --no-owner and --no-privileges leave the rest out"
    } else if says(&["unsupported version", "did not find magic string", "input file"]) {
        "the archive is incomplete, or this pg_restore cannot read it"
    } else {
        return None;
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    const IGNORED: &str = "pg_restore: warning: errors ignored on restore: 1\n";
    const TIMEOUT: &str = "pg_restore: while INITIALIZING:\npg_restore: error: could not execute query: \
        ERROR:  unrecognized configuration parameter \"transaction_timeout\"\nCommand was: SET transaction_timeout = 0;\n\n";
    const EXISTS: &str = "pg_restore: while PROCESSING TOC:\npg_restore: from TOC entry 215; 1259 16385 TABLE t postgres\n\
        pg_restore: error: could not execute query: ERROR:  relation \"t\" already exists\nCommand was: CREATE TABLE public.t (\n\
        );\n\n\n";

    fn verdict(raw_status: i32, stderr: &str, tolerates: bool, exit_on_error: bool) -> Result<RestoreEnd> {
        let mut complaints = Complaints::new(Redactor::default(), tolerates, tolerates && exit_on_error, false);
        for line in stderr.lines() {
            complaints.hear(line);
        }
        let exit = Exit {
            status: ExitStatus::from_raw(raw_status),
            stderr: stderr.into(),
        };
        judge(&exit, &complaints, exit_on_error)
    }

    #[test]
    fn an_end_with_ignored_errors_is_told_from_a_failure() {
        assert_eq!(verdict(0, "", false, true).unwrap(), RestoreEnd::default());
        let end = verdict(1 << 8, &(EXISTS.to_owned() + IGNORED), false, false).unwrap();
        assert_eq!(end.refused.len(), 1);
        assert!(end.refused[0].text().contains("TABLE t postgres"), "{end:?}");
        let error = verdict(1 << 8, EXISTS, false, false).unwrap_err();
        assert_eq!(error.code(), Code::RestoreErr);
        let error = verdict(
            1 << 8,
            "pg_restore: error: could not read from input file: end of file",
            false,
            false,
        );
        assert!(error.unwrap_err().message().contains("end of file"));
        assert!(verdict(9, "", false, false).unwrap_err().message().contains("SIGKILL"));
    }

    #[test]
    fn only_the_one_known_error_is_tolerated_and_only_where_it_may_be() {
        let only = TIMEOUT.to_owned() + IGNORED;
        assert_eq!(verdict(1 << 8, &only, true, true).unwrap(), RestoreEnd::default());
        assert!(verdict(1 << 8, &only, false, true).is_err());
        let more = TIMEOUT.to_owned() + EXISTS + IGNORED;
        let error = verdict(1 << 8, &more, true, true).unwrap_err();
        assert!(error.message().contains("already exists") && !error.message().contains("transaction_timeout"));
        assert_eq!(verdict(1 << 8, &more, true, false).unwrap().refused.len(), 1);
    }
}
