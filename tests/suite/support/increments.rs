//! Increments that no server made: their changes written by pgstow's own writer, their manifests by hand.

use std::fs;
use std::path::PathBuf;

use jiff::Timestamp;
use pgstow::format::Lsn;
use pgstow::format::changes::{Head, Writer};
use pgstow::repository::manifest::{IndexRecord, TableChanges};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::planted::Folder;
use super::stream::Transactions;
use super::wreck::reseal;

/// Where the first increment begins.
const FROM: u64 = 0x1_0000_0000;

/// The increments of one stream, in a folder store.
pub struct Increments {
    pub folder: Folder,
    database: String,
    /// What the next increment holds.
    pub next: Transactions,
    from: u64,
    last: Option<String>,
    minute: i64,
    /// In the manifests: `{schema, name, oid, state}`.
    pub coverage: Vec<Value>,
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

impl Increments {
    pub fn of(database: &str) -> Self {
        Self::within(Folder::new(), database)
    }

    pub fn within(folder: Folder, database: &str) -> Self {
        Self {
            folder,
            database: database.to_owned(),
            next: Transactions::after(FROM),
            from: FROM,
            last: None,
            minute: 0,
            coverage: Vec::new(),
        }
    }

    /// Stores what was added to `next`, as the increment of the next minute. Its id.
    pub fn store(&mut self) -> String {
        let messages = std::mem::take(&mut self.next.messages);
        self.minute += 1;
        let begun = Timestamp::from_second(1_738_328_400 + self.minute * 60).unwrap();
        let id = format!("{}/{}-incr", self.database, begun.strftime("%Y%m%dT%H%M%SZ"));
        let head = Head {
            system_identifier: 7,
            timeline: 1,
            database_oid: 5,
            from: Lsn(self.from),
        };
        let mut writer = Writer::new(&head, 3).unwrap();
        let mut file = Vec::new();
        for message in &messages {
            file.extend(writer.push(message).unwrap().unwrap_or_default());
        }
        let to = Lsn(self.next.position.max(self.from) + 0x10);
        let (end, summary) = writer.finish(to).unwrap();
        file.extend(end);
        let name = format!("{}.changes", self.database);
        let record = json!({"name": name, "bytes": file.len(), "sha256": sha256(&file)});
        let commits = summary.commits;
        let changes: Vec<TableChanges> = summary.tables.iter().map(Into::into).collect();
        let manifest = json!({
            "schema": 2, "id": id, "type": "incremental", "database": self.database, "trigger": "schedule",
            "timestamp": begun, "finished_at": begun, "version": "0.1.0", "digest_file": "manifest.json.sha256",
            "server": {"version": "17.5", "version_num": 170_005, "encoding": "UTF8", "system_identifier": "7"},
            "pg_dump": {"version": "17.5", "archive_version": "1.16"},
            "format": "custom", "compression": {"algorithm": "zstd", "level": 3},
            "snapshot": {"lsn": to, "xmin": 1, "xmax": 1, "xip": []},
            "tier": "increment", "encryption": null,
            "files": {"changes": record},
            "data_files": [{
                "role": "changes", "name": name, "bytes": file.len(), "digests": {"sha256": sha256(&file)},
                "parts": [], "encryption": null
            }],
            "checksums": {"changes": format!("sha256:{}", sha256(&file))},
            "tables": [], "metadata": {},
            "stream": {
                "id": "one", "slot": "pgstow_1", "system_identifier": "7", "timeline": 1, "database_oid": 5,
                "from": Lsn(self.from), "to": to, "predecessor": self.last,
                "first_commit": commits.map(|(first, _)| first), "last_commit": commits.map(|(_, last)| last),
                "seen_to": begun, "transactions": summary.transactions,
                "index": IndexRecord::from(&summary.index)
            },
            "changes": changes, "coverage": self.coverage, "baselines": [], "sequences": []
        });
        self.folder.write(&format!("{id}/{name}"), &file);
        self.put(&id, &manifest);
        self.from = to.0;
        self.next.position = to.0;
        self.last = Some(id.clone());
        id
    }

    pub fn path(&self, id: &str) -> PathBuf {
        self.folder.path().join(id)
    }

    /// The file of changes.
    pub fn changes(&self, id: &str) -> PathBuf {
        self.path(id).join(format!("{}.changes", self.database))
    }

    pub fn manifest(&self, id: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(id).join("manifest.json")).unwrap()).unwrap()
    }

    /// Changes the manifest, with its digest and the sums of all files.
    pub fn alter(&self, id: &str, change: impl FnOnce(&mut Value)) {
        let mut manifest = self.manifest(id);
        change(&mut manifest);
        self.put(id, &manifest);
    }

    /// One more file of the increment.
    pub fn add_file(&self, id: &str, role: &str, name: &str, body: &[u8]) {
        self.folder.write(&format!("{id}/{name}"), body);
        self.alter(id, |manifest| {
            manifest["files"][role] = json!({"name": name, "bytes": body.len(), "sha256": sha256(body)});
            manifest["checksums"][role] = format!("sha256:{}", sha256(body)).into();
        });
    }

    fn put(&self, id: &str, manifest: &Value) {
        let files = manifest["files"].as_object().unwrap().values();
        let line = |file: &Value| {
            format!(
                "{}  {}\n",
                file["sha256"].as_str().unwrap(),
                file["name"].as_str().unwrap()
            )
        };
        let sums: String = files.map(line).collect();
        self.folder.write(&format!("{id}/SHA256SUMS"), sums);
        self.folder.write(&format!("{id}/manifest.json"), manifest.to_string());
        reseal(&self.path(id));
    }
}
