//! Our program and PostgreSQL's, run in an environment that holds nothing by accident.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, ExitStatus, Stdio};

use super::services::{MAJORS, postgres_bin};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a program did.
pub struct Run {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Run {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("{error} in: {}\nstderr: {}", self.text(), self.stderr))
    }
}

fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    // An AWS SDK without a home folder finds no profile there.
    command
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null());
    command
}

/// `pgstow`, with PostgreSQL's programs of every major at hand.
pub fn pgstow() -> Command {
    let mut command = clean(env!("CARGO_BIN_EXE_pgstow"));
    let folders: Vec<String> = MAJORS
        .iter()
        .map(|major| postgres_bin(*major).display().to_string())
        .collect();
    command.env("BACKUP_PG_BIN", folders.join(":"));
    // A place where nothing can be written: a run remembers nothing of the one before.
    command.env("BACKUP_STATE_DIR", "/dev/null/state");
    command
}

/// One of PostgreSQL's own programs.
pub fn stock(major: u32, name: &str) -> Command {
    clean(postgres_bin(major).join(name))
}

/// Any other program.
pub fn program(name: impl AsRef<OsStr>) -> Command {
    clean(name)
}

/// Runs to the end, whatever it is.
pub fn run(command: &mut Command) -> Run {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Run {
        status: output.status,
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs to the end with `input` on stdin.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Run {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        // A program that ends early closes the pipe: what it says then is what matters.
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().unwrap()
    });
    Run {
        status: output.status,
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs to success.
pub fn succeed(command: &mut Command) -> Run {
    let run = run(command);
    succeeded(command, run)
}

/// Runs to success with `input` on stdin.
pub fn succeed_with_input(command: &mut Command, input: &[u8]) -> Run {
    let run = run_with_input(command, input);
    succeeded(command, run)
}

fn succeeded(command: &Command, run: Run) -> Run {
    assert!(
        run.status.success(),
        "{command:?} ended with {}:\n{}\n{}",
        run.status,
        run.stderr,
        run.text()
    );
    run
}
