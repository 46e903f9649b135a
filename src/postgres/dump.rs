//! Runs pg_dump and pg_dumpall: their arguments, and the meaning of their end.

mod cluster;
mod exit;
mod unbegun;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::child::{Child, ChildCommand, Special, quoted, reading_environment};
use super::passfile::Pass;
use super::scratch::behind_walls;
use super::{ConnectionInfo, Passfile, Programs, Redactor};
use crate::error::{Code, Error, Result};
use crate::format::Format;
use crate::postgres::settings;

pub use cluster::globals;
use exit::judge;
pub(super) use exit::lock_timed_out;
pub use unbegun::Unbegun;

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
