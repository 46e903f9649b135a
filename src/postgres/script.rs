//! psql at work: a plain dump is a script for it.

use std::ffi::OsString;
use std::fs::File;

use super::child::{Child, Exit, Order, Special, environment, quoted};
use super::passfile::way;
use super::restoring::without_values;
use super::{ConnectionInfo, Passfile, Psql, Redactor};
use crate::error::{Code, Error, Result};
use crate::settings;

/// A running psql, which stops at the first error. Dropping it kills it; it never outlives us.
#[derive(Debug)]
pub struct Script {
    child: Child,
}

impl Script {
    /// What is written into [`Script::take_stdin`] is run on the database of `info`, in one
    /// transaction if that is wanted: then all of it is done or nothing.
    pub fn start(
        program: &Psql,
        info: &ConnectionInfo,
        passfile: Option<&Passfile>,
        settings: &settings::Postgres,
        single_transaction: bool,
    ) -> Result<Script> {
        let mut arguments: Vec<OsString> = vec![
            "--no-psqlrc".into(),
            "--quiet".into(),
            "--set=ON_ERROR_STOP=1".into(),
            "--no-password".into(),
            // Answers of the script's queries are nobody's.
            "--output=/dev/null".into(),
            "--file=-".into(),
            format!("--dbname={}", way(info, passfile, program.major)?.to_conninfo()).into(),
        ];
        if single_transaction {
            arguments.push("--single-transaction".into());
        }
        let child = Child::start(Order {
            program: &program.path,
            arguments,
            environment: environment(&settings.child_env, passfile),
            redactor: Redactor::new(info),
            special: Special {
                stdin: true,
                ..Special::default()
            },
        })
        .map_err(|error| {
            Error::new(Code::RestoreErr, format!("cannot start {}", program.path.display())).source(error)
        })?;
        Ok(Script { child })
    }

    /// The script's way in, once, for a blocking writer in a thread of its own; dropping it is the
    /// script's end. When psql is gone, writing is an error (`BrokenPipe`), and [`Script::wait`]
    /// says why it went.
    pub fn take_stdin(&mut self) -> Option<File> {
        self.child.take_stdin()
    }

    /// Waits for the end and judges it; may be asked again.
    pub async fn wait(&self) -> Result<()> {
        judge(&self.child.wait().await)
    }

    /// Ends it in order, or else by force; returns when it is gone.
    pub async fn stop(&self) {
        self.child.stop().await;
    }
}

fn judge(exit: &Exit) -> Result<()> {
    if exit.status.success() {
        return Ok(());
    }
    let why = match exit.signal_name() {
        Some(signal) => format!("was ended by {signal}"),
        None => format!("failed with exit status {}", exit.status.code().unwrap_or(-1)),
    };
    let words = telling(&exit.stderr);
    let text = if words.is_empty() {
        format!("psql {why}")
    } else {
        format!("psql {why}: {words}")
    };
    Err(Error::new(Code::RestoreErr, text))
}

/// The last error, which is the one that ended it, with its details.
fn telling(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().collect();
    let is_error = |line: &&str| {
        line.starts_with("psql:") && ["ERROR: ", "FATAL: ", "error: "].iter().any(|word| line.contains(word))
    };
    let at = lines.iter().rposition(is_error);
    let Some(at) = at.or_else(|| lines.iter().rposition(|line| line.starts_with("psql:"))) else {
        return quoted(stderr.trim());
    };
    let details = lines[at + 1..].iter().filter(|line| {
        let details = ["DETAIL: ", "HINT: ", "CONTEXT: "];
        details.iter().any(|start| line.starts_with(start))
    });
    let words: Vec<String> = std::iter::once(lines[at].to_owned())
        .chain(details.map(|line| without_values(line)))
        .collect();
    quoted(&words.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_that_ended_it_is_told_without_the_row() {
        let words = telling(
            "psql:<stdin>:3: NOTICE:  quiet\npsql:<stdin>:9: ERROR:  duplicate key\nDETAIL:  Key (a)=(secret) already exists.\n\
             CONTEXT:  COPY t, line 1\nLINE 1: secret",
        );
        assert_eq!(
            words,
            "psql:<stdin>:9: ERROR:  duplicate key | DETAIL:  Key (a)=(…) already exists. | CONTEXT:  COPY t, line 1"
        );
        assert_eq!(telling("no psql at all\n"), "no psql at all");
    }
}
