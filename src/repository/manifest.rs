//! `manifest.json`: the commit record of a backup. A backup exists if and only if its manifest
//! does; it holds everything that a restore or a check needs to know.

mod blocks;
mod bounded;
mod compression;
mod data_file;
mod error;
mod figures;
mod files;
mod increment;
mod metadata;
mod references;
mod schema;
mod server;
mod summary;
mod tagged;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::format::Format;
use crate::repository::backup_id::{BackupId, BackupKind};
use crate::repository::retention::Tier;
use crate::repository::trigger::Trigger;

pub use crate::dataflow::read_by::ReadBy;
pub use crate::postgres::{Collation, Extension, Omission};
pub use blocks::{LargeObjectsRecord, RangeRecord, ScriptRecord, TableRecord};
pub use compression::{CompressionAlgorithm, CompressionRecord};
pub use data_file::{DataFile, FileIndex, FileRange};
pub use error::ManifestError;
pub use figures::{ChangeTally, Count, CoverageTally, Figures, Kinds, Position, Tally};
pub use files::{FileRecord, checksums, role};
pub use increment::{
    Baseline, ColumnRecord, CoverageState, Increment, IndexRecord, ObjectsCoverage, ReadSettings, ReplayProof,
    SequenceState, Stream, StreamBeginning, TableChanges, TableCoverage,
};
pub use metadata::Metadata;
pub use references::{References, Referring};
pub use server::{PgDump, Server, SnapshotEnd, SnapshotRecord};
pub use summary::Summary;
pub use tagged::Tagged;

/// The newest schema that this program reads. It writes this one for a backup that refers to another, which older
/// programs could not restore, and [`WRITTEN`] for all others.
pub const SCHEMA: u32 = 3;
pub const WRITTEN: u32 = 2;

/// A backup, independent of its file's schema: see `schema`.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    pub id: BackupId,
    pub kind: BackupKind,
    /// When the run started: the id's time.
    pub timestamp: Timestamp,
    pub finished_at: Timestamp,
    /// The version of pgstow that made it.
    pub version: String,
    pub database: String,
    pub trigger: Trigger,
    /// The name of the file beside it with the manifest's own digest. `None`: there is no such file.
    pub digest_file: Option<String>,
    /// The newest backup of the database that this store held before. Each manifest records the digest of the one
    /// before it.
    pub predecessor: Option<Predecessor>,
    /// The store that it was made for. If it is found in another store, it was copied there.
    pub store: Option<String>,
    /// The run's primary, and the copies that held backups of the database before. If one of them has no later
    /// backup, it has lost them.
    pub stores: Vec<String>,
    /// The object tags of its files in that store. `None`: the store is a folder, or an older version did not record
    /// them.
    pub tags: Option<Tagged>,
    /// The event that asked for it. If the event is delivered again, the run finds this backup.
    pub event_id: Option<String>,
    pub server: Server,
    pub pg_dump: PgDump,
    pub format: Format,
    pub compression: CompressionRecord,
    pub snapshot: SnapshotRecord,
    pub tier: Tier,
    /// `null`: not encrypted.
    pub encryption: Option<serde_json::Value>,
    /// All files, by role.
    pub files: BTreeMap<String, FileRecord>,
    /// The files that hold rows: places refer to these. Most backups have one.
    pub data_files: Vec<DataFile>,
    /// What should have been saved beside the data but could not be, by role, with the reason.
    pub missing: BTreeMap<String, String>,
    /// What is in the database but not in the backup, as far as pgstow knows.
    pub left_out: Vec<Omission>,
    /// The database's extensions, by name. `None`: an older version did not record them, or the server did not list
    /// them.
    pub extensions: Option<Vec<Extension>>,
    /// The collations with versions that the database uses. `None`: an older version did not record them, or the
    /// server did not list them.
    pub collations: Option<Vec<Collation>>,
    /// What a person should check although the backup is good, as it was known at the commit.
    pub warnings: Vec<String>,
    /// The figures of a plain script, if it was counted while it was written. Older versions did not count: without
    /// these figures, the empty `tables` of a plain backup mean nothing.
    pub script: Option<ScriptRecord>,
    pub tables: Vec<TableRecord>,
    pub large_objects: Vec<LargeObjectsRecord>,
    /// The settings under which the rows were read. `None`: an older version did not record them.
    pub settings: Option<ReadSettings>,
    /// The backup that has the tables which had not changed. `None`: this one has everything.
    pub references: Option<References>,
    /// In a full that was made for a new stream of changes, behind its beginning.
    pub beginning: Option<StreamBeginning>,
    /// What an increment holds; `None` for a full.
    pub increment: Option<Increment>,
    pub metadata: Metadata,
    /// By role, `sha256:` and hex digits: [`checksums`] of `files`.
    pub checksums: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predecessor {
    pub id: BackupId,
    /// Hex digits.
    pub manifest_sha256: String,
}

impl Manifest {
    /// The file's bytes. The same manifest always gives the same bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::internal("cannot write the manifest as JSON").source(error))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads the manifest found in `id`'s folder.
    pub fn parse(bytes: &[u8], id: &BackupId) -> Result<Self, ManifestError> {
        error::parse::<schema::Json>(bytes)?.check(id)
    }
}

/// The type of the settings, spelled like the option.
pub(crate) mod format_name {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::format::Format;

    pub fn of(format: Format) -> &'static str {
        match format {
            Format::Custom => "custom",
            Format::Plain => "plain",
        }
    }

    pub fn serialize<S: Serializer>(format: &Format, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(of(*format))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Format, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "custom" => Ok(Format::Custom),
            "plain" => Ok(Format::Plain),
            other => Err(de::Error::unknown_variant(other, &["custom", "plain"])),
        }
    }
}

fn custom() -> Format {
    Format::Custom
}
