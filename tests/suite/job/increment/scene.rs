//! A server with a database whose changes are streamed into a folder.

use std::path::PathBuf;
use std::process::Command;

use pgstow::format::Lsn;
use pgstow::format::pgoutput::Message;
use pgstow::postgres::SlotName;
use pgstow::repository::backup_id::BackupId;
use pgstow::repository::manifest::{Manifest, role};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::database::Database;
use crate::support::program::{Run, pgstow, run, succeed};
use crate::support::server::OwnServer;

/// What the file for Prometheus says of the one database in it.
pub fn metric(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find(|line| line.starts_with(&format!("{name}{{")));
    let line = line.unwrap_or_else(|| panic!("{name}: {metrics}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

pub struct Scene {
    pub database: Database,
    pub server: OwnServer,
    pub folder: TempDir,
}

impl Scene {
    pub fn fresh(major: u32) -> Self {
        Self::with(major, &[])
    }

    pub fn with(major: u32, settings: &[&str]) -> Self {
        let server = OwnServer::start_with(major, settings);
        let database = server.database("shop");
        Self {
            database,
            server,
            folder: TempDir::new().unwrap(),
        }
    }

    pub fn sql(&self, script: &str) -> String {
        self.database.sql(script)
    }

    pub fn store(&self) -> String {
        self.folder.path().display().to_string()
    }

    pub fn slot(&self) -> SlotName {
        SlotName::of(&self.store(), &self.database.name)
    }

    /// Makes publications, slot and the first full; returns its report.
    pub fn start(&self) -> Value {
        let mut start = self.pgstow(&["incremental", "start", "--accept-unbounded-wal", "--json"]);
        succeed(&mut start).json()["full"].clone()
    }

    pub fn pgstow(&self, arguments: &[&str]) -> Command {
        let mut command = pgstow();
        command
            .args(arguments)
            .env("DATABASE_URL", self.database.url())
            .env("BACKUP_STORE", self.store())
            .env("LOG_FORMAT", "text");
        command
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        self.pgstow(&[&["backup", "--json"], arguments].concat())
    }

    /// Makes a backup; returns its report.
    pub fn backup(&self, arguments: &[&str]) -> Value {
        succeed(&mut self.command(arguments)).json()
    }

    pub fn increment(&self) -> Value {
        self.backup(&["--kind", "incremental"])
    }

    /// An increment, and the file for Prometheus after it.
    pub fn increment_with_metrics(&self) -> (Run, String) {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("pgstow.prom");
        let mut command = self.command(&["--kind", "incremental", "--metrics-file"]);
        let run = run(command.arg(&file));
        (run, std::fs::read_to_string(file).unwrap())
    }

    pub fn try_increment(&self) -> Run {
        run(&mut self.command(&["--kind", "incremental"]))
    }

    /// Fails with this code; returns the error's text.
    pub fn refused(&self, code: &str) -> String {
        let run = self.try_increment();
        let document = run.json();
        assert_eq!(document["error"]["code"], code, "{document}\n{}", run.stderr);
        format!("{} {}", document["error"]["message"], document["error"]["hint"])
    }

    pub fn path(&self, id: &Value, file: &str) -> PathBuf {
        self.folder.path().join(id.as_str().unwrap()).join(file)
    }

    pub fn manifest(&self, report: &Value) -> Manifest {
        let id: BackupId = report["id"].as_str().unwrap().parse().unwrap();
        let bytes = std::fs::read(self.path(&report["id"], "manifest.json")).unwrap();
        Manifest::parse(&bytes, &id).unwrap()
    }

    /// The messages in the file of changes.
    pub fn messages(&self, report: &Value) -> Vec<Vec<u8>> {
        let manifest = self.manifest(report);
        let file = self.path(&report["id"], &manifest.files[role::CHANGES].name);
        let raw = zstd::decode_all(std::fs::File::open(file).unwrap()).unwrap();
        let mut rest = &raw[..];
        let mut messages = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (message, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            messages.push(message.to_vec());
            rest = after;
        }
        messages
    }

    /// The values of the first column of all inserted rows, in their order.
    pub fn inserted(&self, report: &Value) -> Vec<String> {
        let messages = self.messages(report);
        let inserted = messages
            .iter()
            .filter_map(|bytes| match Message::parse(bytes).unwrap() {
                Message::Insert { new, .. } => match new.values().next().unwrap() {
                    pgstow::format::pgoutput::Value::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
                    other => panic!("{other:?}"),
                },
                _ => None,
            });
        inserted.collect()
    }

    /// The ids of all increments in the store, oldest first.
    pub fn increments(&self) -> Vec<String> {
        let database = self.folder.path().join(&self.database.name);
        let folders = std::fs::read_dir(&database).unwrap().map(|entry| entry.unwrap());
        let finished = folders.filter(|entry| entry.path().join("manifest.json").exists());
        let mut ids: Vec<String> = finished
            .map(|entry| format!("{}/{}", self.database.name, entry.file_name().to_str().unwrap()))
            .filter(|id| id.ends_with("-incr"))
            .collect();
        ids.sort();
        ids
    }

    pub fn confirmed(&self) -> Lsn {
        let question = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{slot}'";
        let text = self.sql(&question.replace("{slot}", self.slot().slot()));
        text.parse().unwrap()
    }

    /// The chain of all increments is unbroken, and the slot is where it ends.
    pub fn assert_is_chained(&self) {
        let mut before = None;
        for id in self.increments() {
            let manifest = self.manifest(&serde_json::json!({ "id": id }));
            let stream = manifest.increment.unwrap().stream;
            if let Some((id, to)) = before {
                assert_eq!((stream.predecessor.as_ref(), stream.from), (Some(&id), to));
            }
            before = Some((manifest.id, stream.to));
        }
        assert_eq!(self.confirmed(), before.unwrap().1);
    }
}
