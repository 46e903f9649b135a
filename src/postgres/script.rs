//! Runs psql: a plain dump is a script for it.
//!
//! psql obeys its own commands in a script. So it gets a script only after [`crate::format::script::Screen`] has
//! checked it, and in restricted mode, whose key only pgstow has. pgstow also begins and ends the transaction, and
//! its number shows afterwards how it ended.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::child::{Child, ChildCommand, Exit, Special, environment, quoted};
use super::passfile::Pass;
use super::redaction::without_values;
use super::scratch::behind_walls;
use super::{ConnectionInfo, Passfile, Psql, Redactor, Session};
use crate::error::{Code, Error, Result};
use crate::postgres::settings;

/// The number of lines that psql gets before the script's first.
const LINES_BEFORE: u64 = 7;
/// The longest line that psql answers.
const ANSWER: u64 = 256;
/// How long a transaction may take to end when its client is gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running psql, which stops at the first error. Dropping it kills it; it never outlives pgstow.
#[derive(Debug)]
pub struct Script {
    child: Child,
    key: String,
    inserted: Inserted,
    _pass: Pass,
}

/// The numbers of the inserted lines, after the first [`LINES_BEFORE`], in order.
type Inserted = Arc<Mutex<Vec<u64>>>;

fn lines(inserted: &Inserted) -> MutexGuard<'_, Vec<u64>> {
    inserted.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How the script's transaction ended, as the server reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionEnd {
    RolledBack,
    /// Its changes are permanent.
    Committed,
    Unknown,
}

impl Script {
    /// Connects to the database of `info` with the current password, and waits for input from [`ScriptInput`].
    pub async fn start(
        program: &Psql,
        info: &ConnectionInfo,
        passfile: Option<&Passfile>,
        settings: &settings::Postgres,
    ) -> Result<Script> {
        let pass = Pass::issue(info, passfile, program.major).await?;
        Self::start_with(program, pass, settings)
    }

    fn start_with(program: &Psql, pass: Pass, settings: &settings::Postgres) -> Result<Script> {
        let arguments: Vec<OsString> = vec![
            "--no-psqlrc".into(),
            "--quiet".into(),
            "--set=ON_ERROR_STOP=1".into(),
            "--no-password".into(),
            // The results of the script's queries are not needed.
            "--output=/dev/null".into(),
            "--file=-".into(),
            format!("--dbname={}", pass.info.to_conninfo()).into(),
        ];
        let failed =
            |error| Error::new(Code::RestoreErr, format!("cannot start {}", program.path.display())).source(error);
        let key = random_key().map_err(failed)?;
        let child = Child::start(ChildCommand {
            program: &program.path,
            arguments,
            environment: environment(&settings.child_env, Some(&pass)),
            redactor: Redactor::new(&pass.info),
            special: Special {
                stdin: true,
                confinement: behind_walls(&program.path, &pass, [], settings),
                ..Special::default()
            },
        })
        .map_err(failed)?;
        Ok(Script {
            child,
            key,
            inserted: Inserted::default(),
            _pass: pass,
        })
    }

    /// The script's input, once, for a blocking writer in a thread of its own.
    pub fn take_input(&mut self) -> Option<ScriptInput> {
        Some(ScriptInput {
            stdin: self.child.take_stdin()?,
            stdout: BufReader::new(self.child.take_stdout()?),
            key: self.key.clone(),
            passed: 0,
            inserted: Arc::clone(&self.inserted),
        })
    }

    /// Waits for the end and judges it; may be called again.
    pub async fn wait(&self) -> Result<()> {
        let exit = self.child.wait().await;
        judge(&exit, &lines(&self.inserted))
    }

    /// Ends it cleanly, or by force if it does not end; returns when it has ended.
    pub async fn stop(&self) {
        self.child.stop().await;
    }
}

/// psql runs what is written here, statement by statement, in one transaction: call [`ScriptInput::begin`] before and
/// [`ScriptInput::commit`] after. When psql has ended, each call fails with `BrokenPipe`, and [`Script::wait`] gives
/// the reason. Dropping it without `commit` undoes everything.
#[derive(Debug)]
pub struct ScriptInput {
    stdin: File,
    stdout: BufReader<File>,
    key: String,
    /// Lines since the beginning.
    passed: u64,
    inserted: Inserted,
}

impl Write for ScriptInput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.stdin.write(bytes)?;
        self.passed += memchr::memchr_iter(b'\n', &bytes[..written]).count() as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdin.flush()
    }
}

impl ScriptInput {
    /// Begins the transaction, and returns its number. From then on psql obeys none of its own commands.
    ///
    /// It sets the search path first, so that no name here can refer to an object of the database's owner.
    pub fn begin(&mut self) -> io::Result<i64> {
        write!(
            self.stdin,
            "SELECT pg_catalog.set_config('search_path', '', false);\n\
             SET standard_conforming_strings = on;\n\
             BEGIN READ WRITE;\n\
             SELECT pg_catalog.txid_current() AS pgstow \\gset\n\
             \\echo :pgstow\n\
             \\unset pgstow\n\
             \\restrict {}\n",
            self.key
        )?;
        let mut line = String::new();
        Read::by_ref(&mut self.stdout).take(ANSWER).read_line(&mut line)?;
        if line.is_empty() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let number = line.trim_end().parse();
        number.map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "psql does not report its transaction's number",
            )
        })
    }

    /// Writes lines that are not in the script, so the script's line numbers leave them out.
    pub fn insert(&mut self, sql: &str) -> io::Result<()> {
        self.write_all(sql.as_bytes())?;
        if sql.ends_with('\n') {
            lines(&self.inserted).push(self.passed);
        }
        Ok(())
    }

    /// Commits the transaction, if it still is the one with this number, and waits until psql confirms it.
    pub fn commit(mut self, transaction: i64) -> io::Result<()> {
        write!(
            self.stdin,
            "\nSELECT pg_catalog.int4div(1, CASE WHEN pg_catalog.txid_current() OPERATOR(pg_catalog.=) {transaction} \
             THEN 1 ELSE 0 END);\n\
             COMMIT;\n\
             \\unrestrict {0}\n\
             \\echo {0}\n",
            self.key
        )?;
        drop(self.stdin);
        let mut line = String::new();
        self.stdout.take(ANSWER).read_line(&mut line)?;
        if line.trim_end() == self.key {
            Ok(())
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
}

/// A key that no script can contain.
fn random_key() -> io::Result<String> {
    let mut random = [0_u8; 32];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(hex::encode(random))
}

/// Asks the server in a separate session how a transaction ended whose client is gone.
pub async fn transaction_end(info: &ConnectionInfo, settings: &settings::Postgres, number: i64) -> TransactionEnd {
    let asking = async {
        let session = Session::connect(info, settings).await.ok()?;
        loop {
            let row = session
                .client
                .query_one("SELECT pg_catalog.txid_status($1)", &[&number])
                .await;
            match row.ok()?.try_get::<_, Option<String>>(0).ok()?.as_deref() {
                Some("committed") => return Some(TransactionEnd::Committed),
                Some("aborted") => return Some(TransactionEnd::RolledBack),
                Some(_) => tokio::time::sleep(PATIENCE / 50).await,
                None => return None,
            }
        }
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(Some(end)) => end,
        _ => TransactionEnd::Unknown,
    }
}

fn judge(exit: &Exit, inserted: &[u64]) -> Result<()> {
    if exit.status.success() {
        return Ok(());
    }
    let why = match exit.signal_name() {
        Some(signal) => format!("was ended by {signal}"),
        None => format!("failed with exit status {}", exit.status.code().unwrap_or(-1)),
    };
    let words = telling(&exit.stderr, inserted);
    let text = if words.is_empty() {
        format!("psql {why}")
    } else {
        format!("psql {why}: {words}")
    };
    Err(Error::new(Code::RestoreErr, text))
}

/// The last error, which ended the script, with its details.
fn telling(stderr: &str, inserted: &[u64]) -> String {
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
    let words: Vec<String> = std::iter::once(in_the_script(lines[at], inserted))
        .chain(details.map(|line| without_values(line)))
        .collect();
    quoted(&words.join(" | "))
}

/// psql counts the lines of its input; the script has fewer.
fn in_the_script(line: &str, inserted: &[u64]) -> String {
    let numbered = line.strip_prefix("psql:<stdin>:").and_then(|rest| rest.split_once(':'));
    let number = numbered.and_then(|(number, _)| number.parse::<u64>().ok());
    match (numbered, number.and_then(|number| number.checked_sub(LINES_BEFORE))) {
        (Some((_, words)), Some(number)) if number > 0 => {
            let number = number - inserted.iter().filter(|line| **line < number).count() as u64;
            format!("line {number} of the script:{words}")
        }
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_that_ended_it_is_told_without_the_row() {
        let words = telling(
            "psql:<stdin>:3: NOTICE:  quiet\npsql:<stdin>:9: ERROR:  duplicate key\nDETAIL:  Key (a)=(secret) already exists.\n\
             CONTEXT:  COPY t, line 1\nLINE 1: secret",
            &[],
        );
        assert_eq!(
            words,
            "line 2 of the script: ERROR:  duplicate key | DETAIL:  Key (a)=(…) already exists. | CONTEXT:  COPY t, line 1"
        );
        let counted = |line: u64| telling(&format!("psql:<stdin>:{line}: ERROR:  x"), &[2, 5]);
        let lines: Vec<String> = (8..14).map(counted).collect();
        let expected = [1, 2, 2, 3, 4, 4].map(|line| format!("line {line} of the script: ERROR:  x"));
        assert_eq!(lines, expected);
        assert_eq!(telling("no psql at all\n", &[]), "no psql at all");
    }
}
