//! A backup in a folder of the test's own, and the ways back out of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::database::Database;
use crate::support::program::{Run, pgstow, program, stock, succeed};

pub struct Backup {
    /// What `pgstow backup --json` printed.
    pub report: Value,
    pub manifest: Value,
    /// The backup's own folder.
    pub folder: PathBuf,
    /// The major of its server, whose programs restore it.
    pub major: u32,
    store: TempDir,
}

impl Backup {
    pub fn of(source: &Database, options: &[&str]) -> Self {
        Self::by(
            pgstow().env("DATABASE_URL", source.url()).arg("backup").args(options),
            source.major,
        )
    }

    /// By a command that lacks only its store.
    pub fn by(command: &mut Command, major: u32) -> Self {
        let store = tempfile::tempdir().unwrap();
        let run = succeed(
            command
                .arg("--json")
                .arg("--store")
                .arg(store.path())
                .current_dir(store.path()),
        );
        Self::made(&run.json(), store, major)
    }

    /// One that a finished run has put into `store`.
    pub fn made(report: &Value, store: TempDir, major: u32) -> Self {
        assert_eq!(report["status"], "succeeded");
        assert_eq!(report["warnings"], Value::Null, "{report}");
        let folder = store.path().join(report["id"].as_str().unwrap());
        let manifest = fs::read(folder.join("manifest.json")).unwrap();
        Self {
            report: report.clone(),
            manifest: serde_json::from_slice(&manifest).unwrap(),
            folder,
            major,
            store,
        }
    }

    pub fn store(&self) -> &Path {
        self.store.path()
    }

    /// The file of a role of the manifest.
    pub fn file(&self, role: &str) -> PathBuf {
        let name = self.manifest["files"][role]["name"].as_str();
        self.folder
            .join(name.unwrap_or_else(|| panic!("no {role} in {}", self.manifest["files"])))
    }

    /// The archive with the table of contents laid over its head, as docs/FORMAT.md says.
    pub fn seekable(&self) -> PathBuf {
        let copy = self.store.path().join("seekable.dump");
        fs::copy(self.file("dump"), &copy).unwrap();
        let (from, to) = (operand("if", &self.file("toc")), operand("of", &copy));
        succeed(program("dd").args([from, to, "conv=notrunc".into(), "status=none".into()]));
        assert_eq!(
            fs::metadata(&copy).unwrap().len(),
            fs::metadata(self.file("dump")).unwrap().len()
        );
        copy
    }

    /// Stock pg_restore, stopping at the first error.
    pub fn pg_restore(&self) -> Command {
        let mut command = stock(self.major, "pg_restore");
        command.arg("--exit-on-error");
        command
    }

    /// The contents of `archive`, restored whole into a new database.
    pub fn restored(&self, archive: &Path) -> Database {
        let target = Database::fresh(self.major);
        succeed(self.pg_restore().args(["-d", &target.url()]).arg(archive));
        target
    }
}

fn operand(name: &str, path: &Path) -> std::ffi::OsString {
    let mut operand = std::ffi::OsString::from(format!("{name}="));
    operand.push(path);
    operand
}

/// `first | second`, both to success; returns what the second did.
pub fn piped(first: &mut Command, second: &mut Command) -> Run {
    let mut feeder = first.stdout(Stdio::piped()).spawn().unwrap();
    let run = succeed(second.stdin(feeder.stdout.take().unwrap()));
    assert!(feeder.wait().unwrap().success(), "{first:?}");
    run
}

/// A new database with the fixture in which everything occurs.
pub fn rich(major: u32) -> Database {
    Database::loaded(major, "rich.sql")
}

/// SQL without the token that pg_dump and pg_restore make up anew for every run.
pub fn without_token(sql: &[u8]) -> Vec<u8> {
    sql.split_inclusive(|byte| *byte == b'\n')
        .filter(|line| !line.starts_with(b"\\restrict ") && !line.starts_with(b"\\unrestrict "))
        .flatten()
        .copied()
        .collect()
}

/// Panics with the first line that differs, not with megabytes.
pub fn assert_same_text(mine: &[u8], theirs: &[u8]) {
    let (mine, theirs) = (without_token(mine), without_token(theirs));
    if mine == theirs {
        return;
    }
    for (number, (mine, theirs)) in mine
        .split(|b| *b == b'\n')
        .zip(theirs.split(|b| *b == b'\n'))
        .enumerate()
    {
        let shown = |line: &[u8]| String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
        assert!(
            mine == theirs,
            "line {number}: {:?} against {:?}",
            shown(mine),
            shown(theirs)
        );
    }
    panic!("{} bytes against {}", mine.len(), theirs.len());
}
