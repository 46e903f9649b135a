//! The report on a backup, made from its manifest.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorReport};
use crate::format::Lsn;
use crate::job::verify::ChainProof;
use crate::postgres::{Omission, Slot};
use crate::repository::backup_id::{BackupId, BackupKind};
use crate::repository::lease::Previous;
use crate::repository::leftovers::LeftOver;
use crate::repository::manifest::{
    CompressionAlgorithm, CompressionRecord, FileRecord, Increment, Manifest, PgDump, Referring, Server,
    SnapshotRecord, Stream, TableChanges,
};
use crate::repository::retention::Tier;
use crate::repository::signature::KeyId;
use crate::repository::trigger::Trigger;
use crate::units::{count, human_bytes};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupStatus {
    Succeeded,
    Degraded,
}

/// A finished backup. `status` comes first, as in a failure's document.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct BackupReport {
    /// `succeeded`, or `degraded`: a copy failed.
    pub status: BackupStatus,
    pub id: BackupId,
    pub database: String,
    pub kind: BackupKind,
    pub trigger: Trigger,
    /// The event was delivered before, and made this backup then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
    pub tier: Tier,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub duration_seconds: f64,
    pub server: Server,
    pub pg_dump: PgDump,
    pub compression: CompressionRecord,
    pub snapshot: SnapshotRecord,
    pub tables: u64,
    pub rows: u64,
    pub large_objects: u64,
    /// With --nice: how often it paused, and for how long in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pauses: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused_seconds: Option<f64>,
    /// Bytes that pg_dump wrote, before compression.
    pub bytes_read: u64,
    /// All files of the backup together.
    pub bytes_stored: u64,
    pub files: BTreeMap<String, FileRecord>,
    /// The backup that has the tables which had not changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references: Option<Referring>,
    /// Missing files, by role, with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: BTreeMap<String, String>,
    /// Objects of the database that the backup does not hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<Omission>,
    /// The SHA-256 of the manifest in the primary store, for `--expect-manifest`. The manifest holds all other digests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest_sha256: Option<String>,
    /// The key that signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<KeyId>,
    pub stores: Vec<StoreReport>,
    /// The run that died while it held the lease, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_over: Option<Previous>,
    /// Left-overs of killed runs, and what pgstow did with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leftovers: Vec<LeftOver>,
    /// Warnings for people although the backup is good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notification: Option<Notification>,
    /// What an increment holds; `None` for a full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub increment: Option<IncrementReport>,
    /// The proof that the increments between the two newest full backups lead exactly from one to the other. It is made
    /// once for each full, as soon as the increments reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainProof>,
    /// Why this full was made although an increment was asked for: it begins a new chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed: Option<String>,
}

/// The span of the stream that an increment holds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct IncrementReport {
    pub from: Lsn,
    pub to: Lsn,
    /// Everything that was committed before this moment of the source's clock is stored.
    pub seen_to: Timestamp,
    pub transactions: u64,
    /// The tables with the most changes.
    pub changes: Vec<TableChanges>,
    /// How many tables were changed.
    pub changed_tables: u64,
    /// How many tables were read whole.
    pub baselines: u64,
    /// There was nothing to store, so the report is that of the last increment.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_idle: bool,
    /// It ended before the end of the server's log, for lack of time or because it is large: the next one goes on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_behind: bool,
    /// The slot after the run, as the server describes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,
}

/// The most tables that a report names.
const NAMED: usize = 10;

impl IncrementReport {
    fn of(increment: &Increment) -> Self {
        let Stream {
            from,
            to,
            seen_to,
            transactions,
            ..
        } = increment.stream;
        let count = |table: &TableChanges| table.inserts + table.updates + table.deletes + table.truncates;
        let mut changes = increment.changes.clone();
        changes.sort_by_key(|table| std::cmp::Reverse(count(table)));
        changes.truncate(NAMED);
        Self {
            from,
            to,
            seen_to,
            transactions,
            changes,
            changed_tables: increment.changes.len() as u64,
            baselines: increment.baselines.len() as u64,
            is_idle: false,
            is_behind: false,
            slot: None,
        }
    }
}

impl fmt::Display for IncrementReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_idle {
            return writeln!(
                f,
                "  nothing has changed since the last increment, so none was made; restorable up to {:.0}",
                self.seen_to
            );
        }
        writeln!(
            f,
            "  {} in {}, from {} to {}; restorable up to {:.0}",
            count(self.transactions, "transaction"),
            count(self.changed_tables, "table"),
            self.from,
            self.to,
            self.seen_to,
        )?;
        for table in &self.changes {
            let TableChanges {
                schema,
                name,
                inserts,
                updates,
                deletes,
                truncates,
                ..
            } = table;
            write!(
                f,
                "    {schema}.{name}: {inserts} inserted, {updates} updated, {deletes} deleted"
            )?;
            match truncates {
                0 => writeln!(f)?,
                times => writeln!(f, ", emptied {}", count(*times, "time"))?,
            }
        }
        if let Some(more @ 1..) = self.changed_tables.checked_sub(self.changes.len() as u64) {
            writeln!(f, "    and {}", count(more, "more table"))?;
        }
        if self.baselines > 0 {
            writeln!(f, "  {} read whole", count(self.baselines, "table"))?;
        }
        if self.is_behind {
            writeln!(f, "  there is more to read: the next increment goes on here")?;
        }
        Ok(())
    }
}

/// One store in a run: it holds the backup, or the error says why not.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct StoreReport {
    pub url: String,
    pub primary: bool,
    pub holds_backup: bool,
    /// The SHA-256 of this store's own manifest, which differs because it has the store's own checksum of the archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Notification {
    pub sent: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl BackupReport {
    pub fn is_degraded(&self) -> bool {
        self.failed_copies().next().is_some() || self.broken_chain().is_some()
    }

    /// Set if the increments do not lead to the newest full backup.
    pub fn broken_chain(&self) -> Option<Error> {
        self.chain.as_ref().and_then(ChainProof::error)
    }

    /// Notes the proof. A chain that is not proved does not make this backup a bad one.
    pub fn proved(&mut self, proof: ChainProof) {
        self.chain = Some(proof);
        if self.is_degraded() {
            self.status = BackupStatus::Degraded;
        }
    }

    /// The stores that do not hold the backup, with the error.
    pub fn failed_copies(&self) -> impl Iterator<Item = (&str, &ErrorReport)> {
        let failed = |store: &'_ StoreReport| store.error.is_some();
        let failed = self.stores.iter().filter(move |store| failed(store));
        failed.filter_map(|store| Some((store.url.as_str(), store.error.as_ref()?)))
    }
}

impl BackupReport {
    /// What a run says that had nothing to store: the last increment stays the last one, and its figures are not this
    /// run's.
    pub(in crate::job) fn idle(mut self) -> Self {
        (self.tables, self.rows, self.large_objects) = (0, 0, 0);
        (self.bytes_read, self.bytes_stored, self.duration_seconds) = (0, 0, 0.0);
        self.files = BTreeMap::new();
        self.increment = self.increment.map(|last| IncrementReport {
            from: last.to,
            transactions: 0,
            changes: Vec::new(),
            changed_tables: 0,
            baselines: 0,
            is_idle: true,
            is_behind: false,
            ..last
        });
        self.repeated = false;
        self
    }

    fn print_sizes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_idle = self.increment.as_ref().is_some_and(|increment| increment.is_idle);
        let note = match (self.repeated, is_idle) {
            (true, _) => "  (made earlier for the same event)",
            (false, true) => "  (the last increment)",
            (false, false) => "",
        };
        writeln!(f, "{}{note}", self.id)?;
        if is_idle {
            return Ok(());
        }
        let level = self.compression.level;
        let compression = match self.compression.algorithm {
            CompressionAlgorithm::None => "not compressed".to_owned(),
            CompressionAlgorithm::Gzip => format!("gzip {level}"),
            CompressionAlgorithm::Zstd => format!("zstd {level}"),
        };
        writeln!(
            f,
            "  {}, {}, {} read, {} stored ({}), {:.1} s, tier {}",
            count(self.tables, "table"),
            count(self.rows, "row"),
            human_bytes(self.bytes_read),
            human_bytes(self.bytes_stored),
            compression,
            self.duration_seconds,
            self.tier.name(),
        )
    }
}

impl fmt::Display for BackupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.print_sizes(f)?;
        if let Some(referring) = &self.references {
            writeln!(f, "  {referring}")?;
        }
        if let Some(why) = &self.renewed {
            writeln!(
                f,
                "  a full backup instead of an increment, because the chain could not go on: {why}"
            )?;
        }
        if let Some(increment) = &self.increment {
            write!(f, "{increment}")?;
        }
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
        if let Some(proof) = &self.chain {
            write!(f, "{proof}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "  warning: {warning}")?;
        }
        Ok(())
    }
}

/// The report for a manifest.
pub(in crate::job) fn of(manifest: &Manifest, stores: Vec<StoreReport>) -> BackupReport {
    let degraded = stores.iter().any(|store| store.error.is_some());
    BackupReport {
        status: match degraded {
            true => BackupStatus::Degraded,
            false => BackupStatus::Succeeded,
        },
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
        references: manifest.references.as_ref().map(Referring::from),
        missing: manifest.missing.clone(),
        left_out: manifest.left_out.clone(),
        manifest_sha256: None,
        signed_by: None,
        stores,
        took_over: None,
        leftovers: Vec::new(),
        warnings: manifest.warnings.clone(),
        notification: None,
        increment: manifest.increment.as_ref().map(IncrementReport::of),
        chain: None,
        renewed: None,
    }
}
