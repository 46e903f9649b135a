//! The report on a backup: what its manifest says.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use crate::error::ErrorReport;
use crate::postgres::LeftOut;
use crate::repository::backup_id::{BackupId, Kind};
use crate::repository::lease::Previous;
use crate::repository::leftovers::LeftOver;
use crate::repository::manifest::{Algorithm, Compression, FileRecord, Manifest, PgDump, Server, Snapshot};
use crate::repository::retention::Tier;
use crate::repository::signature::KeyId;
use crate::repository::trigger::Trigger;
use crate::units::{count, human_bytes};

/// A finished backup. `status` comes first, as in a failure's document.
#[derive(Debug, Clone, Serialize)]
pub struct BackupReport {
    /// `succeeded`, or `degraded`: a copy failed.
    pub status: &'static str,
    pub id: BackupId,
    pub database: String,
    pub kind: Kind,
    pub trigger: Trigger,
    /// The event was delivered before, and this is the backup that it made then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
    pub tier: Tier,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub duration_seconds: f64,
    pub server: Server,
    pub pg_dump: PgDump,
    pub compression: Compression,
    pub snapshot: Snapshot,
    pub tables: u64,
    pub rows: u64,
    pub large_objects: u64,
    /// With --nice: how often it paused, and for how long in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pauses: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused_seconds: Option<f64>,
    /// What pg_dump wrote, before compression.
    pub bytes_read: u64,
    /// All files of the backup together.
    pub bytes_stored: u64,
    pub files: BTreeMap<String, FileRecord>,
    /// Files that should be there and are not, by role, and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: BTreeMap<String, String>,
    /// What is in the database and not in the backup.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// The SHA-256 of the manifest in the primary store, for `--expect-manifest`: all other digests stand in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest_sha256: Option<String>,
    /// The key that has signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<KeyId>,
    pub stores: Vec<StoreReport>,
    /// The run that died while it held the lease, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_over: Option<Previous>,
    /// What killed runs had left, and what was done about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub leftovers: Vec<LeftOver>,
    /// What a person should look at although the backup is good.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notification: Option<Notification>,
}

/// One store's part in a run: it holds the backup, or why it does not.
#[derive(Debug, Clone, Serialize)]
pub struct StoreReport {
    pub url: String,
    pub primary: bool,
    pub holds_backup: bool,
    /// Of its own manifest, which says how the store itself sums the archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Notification {
    pub sent: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl BackupReport {
    pub fn is_degraded(&self) -> bool {
        self.failed_copies().next().is_some()
    }

    /// The stores that do not hold it, and why.
    pub fn failed_copies(&self) -> impl Iterator<Item = (&str, &ErrorReport)> {
        let failed = |store: &'_ StoreReport| store.error.is_some();
        let failed = self.stores.iter().filter(move |store| failed(store));
        failed.filter_map(|store| Some((store.url.as_str(), store.error.as_ref()?)))
    }
}

impl fmt::Display for BackupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}{}",
            self.id,
            if self.repeated {
                "  (this event's backup, made before)"
            } else {
                ""
            }
        )?;
        let algorithm = match self.compression.algorithm {
            Algorithm::None => "not compressed,",
            Algorithm::Gzip => "gzip",
            Algorithm::Zstd => "zstd",
        };
        writeln!(
            f,
            "  {}, {}, {} read, {} stored ({} {}), {:.1} s, tier {}",
            count(self.tables, "table"),
            count(self.rows, "row"),
            human_bytes(self.bytes_read),
            human_bytes(self.bytes_stored),
            algorithm,
            self.compression.level,
            self.duration_seconds,
            self.tier.name(),
        )?;
        if let (Some(pauses @ 1..), Some(seconds)) = (self.pauses, self.paused_seconds) {
            let pauses = count(pauses, "time");
            writeln!(f, "  paused {pauses}, {seconds:.1} s in all, to spare the server")?;
        }
        if let Some(sha256) = &self.manifest_sha256 {
            let signed = self
                .signed_by
                .map_or(String::new(), |key| format!(", signed by the key {key}"));
            writeln!(f, "  manifest SHA-256 {sha256}{signed}")?;
        }
        for store in &self.stores {
            match &store.error {
                None => writeln!(f, "  stored in {}", store.url)?,
                Some(error) => writeln!(f, "  NOT stored in {}: {}: {}", store.url, error.code, error.message)?,
            }
        }
        for (role, why) in &self.missing {
            writeln!(f, "  missing {role}: {why}")?;
        }
        for leftover in &self.leftovers {
            writeln!(
                f,
                "  left over from a killed run: {} ({})",
                leftover.key,
                leftover.outcome.name()
            )?;
        }
        for warning in &self.warnings {
            writeln!(f, "  warning: {warning}")?;
        }
        Ok(())
    }
}

/// What a manifest says, as a report.
pub(super) fn of(manifest: &Manifest, stores: Vec<StoreReport>) -> BackupReport {
    let degraded = stores.iter().any(|store| store.error.is_some());
    BackupReport {
        status: if degraded { "degraded" } else { "succeeded" },
        id: manifest.id.clone(),
        database: manifest.database.clone(),
        kind: manifest.kind,
        trigger: manifest.trigger,
        repeated: false,
        tier: manifest.tier,
        started_at: manifest.timestamp,
        finished_at: manifest.finished_at,
        duration_seconds: manifest.finished_at.duration_since(manifest.timestamp).as_secs_f64(),
        server: manifest.server.clone(),
        pg_dump: manifest.pg_dump.clone(),
        compression: manifest.compression,
        snapshot: manifest.snapshot.clone(),
        tables: manifest.tables.len() as u64,
        rows: manifest.tables.iter().map(|table| table.rows).sum(),
        large_objects: manifest.large_objects.iter().map(|block| block.count).sum(),
        pauses: manifest.metadata.pauses,
        paused_seconds: manifest.metadata.paused_seconds,
        bytes_read: manifest.metadata.bytes_read.unwrap_or(0),
        bytes_stored: manifest.files.values().map(|file| file.bytes).sum(),
        files: manifest.files.clone(),
        missing: manifest.missing.clone(),
        left_out: manifest.left_out.clone(),
        manifest_sha256: None,
        signed_by: None,
        stores,
        took_over: None,
        leftovers: Vec::new(),
        warnings: manifest.warnings.clone(),
        notification: None,
    }
}
