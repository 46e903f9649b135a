//! Backups that nobody made: their files written by hand, as docs/FORMAT.md describes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::program::{Run, pgstow, run};

pub struct Folder {
    place: TempDir,
}

impl Folder {
    pub fn new() -> Self {
        Self {
            place: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self) -> PathBuf {
        self.place.path().join("backups")
    }

    /// A command line on this store; nothing that lies in the working folder is read.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = pgstow();
        command
            .args(args)
            .arg("--store")
            .arg(self.path())
            .current_dir(self.place.path());
        command
    }

    pub fn run(&self, args: &[&str]) -> Run {
        run(&mut self.command(args))
    }

    /// Runs with `--json`, to whatever exit code.
    pub fn json(&self, args: &[&str]) -> (Value, i32) {
        let run = run(self.command(args).arg("--json"));
        (run.json(), run.status.code().unwrap())
    }

    pub fn write(&self, key: &str, body: impl AsRef<[u8]>) {
        let path = self.path().join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, body).unwrap();
    }

    /// A whole backup, so many hours old, of this tier. Its id.
    pub fn plant(&self, database: &str, hours: i64, tier: &str) -> String {
        let id = id(database, hours);
        for (key, body) in files(&id, tier) {
            self.write(&key, body);
        }
        id
    }

    /// What `verify` or a drill would have said of it.
    pub fn judge(&self, id: &str, verify: Option<&str>, drill: Option<&str>) {
        let outcome = |status: &str| json!({"status": status, "at": Timestamp::now(), "tables": 1});
        let mut verification = json!({"schema": 1, "id": id});
        if let Some(status) = verify {
            verification["verify"] = outcome(status);
        }
        if let Some(status) = drill {
            verification["drill"] = outcome(status);
        }
        self.write(&format!("{id}/verification.json"), verification.to_string());
    }

    pub fn exists(&self, key: &str) -> bool {
        self.path().join(key).exists()
    }

    /// The files below, as keys.
    pub fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        walk(&self.path(), "", &mut keys);
        keys.sort();
        keys
    }
}

fn walk(folder: &Path, start: &str, keys: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let key = format!("{start}{}", entry.file_name().into_string().unwrap());
        if entry.path().is_dir() {
            walk(&entry.path(), &format!("{key}/"), keys);
        } else {
            keys.push(key);
        }
    }
}

/// The id of a backup that began so many hours ago.
pub fn id(database: &str, hours: i64) -> String {
    let at = Timestamp::now() - SignedDuration::from_hours(hours);
    format!("{database}/{}-full", at.strftime("%Y%m%dT%H%M%SZ"))
}

/// All files of a whole backup, by key.
pub fn files(id: &str, tier: &str) -> Vec<(String, Vec<u8>)> {
    let (database, stamp) = id.split_once('/').unwrap();
    let start = format!(
        "{}-{}-{}T{}:{}:{}Z",
        &stamp[..4],
        &stamp[4..6],
        &stamp[6..8],
        &stamp[9..11],
        &stamp[11..13],
        &stamp[13..15]
    );
    let start: Timestamp = start.parse().unwrap();
    let file = |name: &str| json!({"name": name, "bytes": 5, "sha256": "11".repeat(32)});
    let table = |name: &str, rows: u64| {
        json!({
            "schema": "public", "name": name, "rows": rows, "bytes": 1, "sha256": "22".repeat(32),
            "offset": 10, "length": 20
        })
    };
    let (dump, toc) = (format!("{database}.dump"), format!("{database}.toc"));
    let manifest = json!({
        "schema": 1,
        "id": id,
        "type": "full",
        "timestamp": start,
        "finished_at": start + SignedDuration::from_secs(42),
        "version": "0.1.0",
        "database": database,
        "trigger": "schedule",
        "server": {"version": "17.5", "version_num": 170_005, "encoding": "UTF8"},
        "pg_dump": {"version": "17.5", "archive_version": "1.16"},
        "format": "custom",
        "compression": {"algorithm": "zstd", "level": 3},
        "snapshot": {"lsn": "0/1A2B3C4", "xmin": 1, "xmax": 1, "xip": []},
        "tier": tier,
        "encryption": null,
        "files": {"dump": file(&dump), "toc": file(&toc), "globals": file("globals.sql")},
        "tables": [table("orders", 1000), table("items", 234)],
        "parts": [],
        "metadata": {},
        "checksums": {}
    });
    vec![
        (format!("{id}/{dump}"), b"PGDMP".to_vec()),
        (format!("{id}/{toc}"), b"PGDMP".to_vec()),
        (format!("{id}/globals.sql"), b"-- ok".to_vec()),
        (format!("{id}/SHA256SUMS"), b"1111\n".to_vec()),
        (format!("{id}/manifest.json"), manifest.to_string().into_bytes()),
    ]
}
