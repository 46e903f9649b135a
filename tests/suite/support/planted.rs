//! Backups that no run made: tests write their files by hand, as docs/FORMAT.md describes them.

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

    /// A full backup that increments can follow, whose snapshot was taken so many minutes ago. Its id.
    pub fn plant_base(&self, database: &str, minutes: i64, tier: &str) -> String {
        let id = stamped(database, minutes, "full");
        for (key, body) in files(&id, tier) {
            let body = match key.ends_with("manifest.json") {
                true => as_base(&body, minutes),
                false => body,
            };
            self.write(&key, body);
        }
        id
    }

    /// The increment with the changes since `from` minutes ago and up to `to` minutes ago. Its id.
    pub fn plant_increment(&self, database: &str, (from, to): (i64, i64), is_first: bool) -> String {
        let id = stamped(database, to, "incr");
        let predecessor = (!is_first).then(|| stamped(database, from, "incr"));
        let at = |minutes: i64| (Timestamp::now() - SignedDuration::from_mins(minutes)).to_string();
        let (_, manifest) = files(&stamped(database, to, "full"), "increment").pop().unwrap();
        let mut manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let changes = format!("{database}.changes");
        manifest["schema"] = json!(2);
        manifest["id"] = json!(id);
        manifest["type"] = json!("incremental");
        manifest["tables"] = json!([]);
        manifest["files"] = json!({"changes": {"name": changes, "bytes": 5, "sha256": "11".repeat(32)}});
        manifest["stream"] = json!({
            "id": "one",
            "slot": "pgstow_1",
            "system_identifier": "7",
            "timeline": 1,
            "database_oid": 5,
            "from": position(from),
            "to": position(to),
            "predecessor": predecessor,
            "seen_to": at(to),
            "transactions": 3,
            "newest_xid": xid(to) - 1,
            "settled": "0/1",
            "index": {"offset": 44, "length": 1, "sha256": "00".repeat(32)},
        });
        self.write(&format!("{id}/{changes}"), "chang");
        self.write(&format!("{id}/manifest.json"), manifest.to_string());
        id
    }

    /// Increments of so many minutes each, the last of which ends now. Their ids, oldest first.
    pub fn plant_chain(&self, database: &str, minutes: i64, count: i64) -> Vec<String> {
        let spans = (0..count).rev().map(|at| ((at + 1) * minutes, at * minutes));
        spans
            .map(|span| self.plant_increment(database, span, span.0 == count * minutes))
            .collect()
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

/// The id of a backup of this kind that began so many minutes ago.
pub fn stamped(database: &str, minutes: i64, kind: &str) -> String {
    let at = Timestamp::now() - SignedDuration::from_mins(minutes);
    format!("{database}/{}-{kind}", at.strftime("%Y%m%dT%H%M00Z"))
}

/// The end of the source's log so many minutes ago.
fn position(minutes: i64) -> String {
    format!("1/{:X}", 100 * (10_000_000 - minutes))
}

/// The next transaction's id so many minutes ago.
fn xid(minutes: i64) -> i64 {
    10 * (10_000_000 - minutes)
}

/// The manifest of a full backup, with what increments need of it.
fn as_base(manifest: &[u8], minutes: i64) -> Vec<u8> {
    let mut manifest: Value = serde_json::from_slice(manifest).unwrap();
    manifest["server"]["system_identifier"] = json!("7");
    manifest["server"]["database_oid"] = json!(5);
    let at = Timestamp::now() - SignedDuration::from_mins(minutes);
    manifest["snapshot"] = json!({
        "lsn": position(minutes),
        "xmin": xid(minutes),
        "xmax": xid(minutes),
        "xip": [],
        "end": {"lsn": position(minutes), "at": at.to_string(), "timeline": 1},
    });
    manifest.to_string().into_bytes()
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
