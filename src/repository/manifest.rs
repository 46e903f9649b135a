//! `manifest.json`: the commit record of a backup. A backup exists if and only if its manifest
//! does; everything that a restore or a proof needs to know stands in it.

mod blocks;
mod bounded;
mod broken;
mod compression;
mod data_file;
mod figures;
mod files;
mod metadata;
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
use crate::repository::backup_id::{BackupId, Kind};
use crate::repository::retention::Tier;
use crate::repository::trigger::Trigger;

pub use crate::dataflow::way::Way;
pub use crate::postgres::{Collation, Extension, LeftOut};
pub use blocks::{LargeObjectsRecord, RangeRecord, ScriptRecord, TableRecord};
pub use broken::Broken;
pub use compression::{Algorithm, Compression};
pub use data_file::{DataFile, FileIndex, Place};
pub use figures::{Count, Figures, Kinds, Tally};
pub use files::{FileRecord, checksums, role};
pub use metadata::Metadata;
pub use server::{PgDump, Server, Snapshot};
pub use summary::Summary;
pub use tagged::Tagged;

/// The schema that this program writes, and the newest that it reads.
pub const SCHEMA: u32 = 2;

/// A backup, whichever schema its file has: see `schema`.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    pub id: BackupId,
    pub kind: Kind,
    /// When the run started; the id's time.
    pub timestamp: Timestamp,
    pub finished_at: Timestamp,
    /// Of the pgstow that made it.
    pub version: String,
    pub database: String,
    pub trigger: Trigger,
    /// The file beside it that holds its own digest: whether there must be one.
    pub digest_file: Option<String>,
    /// The newest backup of the database that this store held before: each manifest vouches for the one
    /// before it.
    pub predecessor: Option<Predecessor>,
    /// The store that it was made for: in another, it was copied there.
    pub store: Option<String>,
    /// The run's primary, and the copies that held backups of the database before: one that is found without
    /// any later has lost them.
    pub stores: Vec<String>,
    /// The object tags of its files in that store. `None`: a folder, or an older version did not say.
    pub tags: Option<Tagged>,
    /// The event that asked for it: delivered again, it finds this backup.
    pub event_id: Option<String>,
    pub server: Server,
    pub pg_dump: PgDump,
    pub format: Format,
    pub compression: Compression,
    pub snapshot: Snapshot,
    pub tier: Tier,
    /// `null`: not encrypted.
    pub encryption: Option<serde_json::Value>,
    /// All files, by role.
    pub files: BTreeMap<String, FileRecord>,
    /// Those of them that hold rows: places are in these. Most backups have one.
    pub data_files: Vec<DataFile>,
    /// What should have been saved beside the data and could not be, by role, and why.
    pub missing: BTreeMap<String, String>,
    /// What is in the database and not in the backup, as far as that is known.
    pub left_out: Vec<LeftOut>,
    /// The database's, by name. `None`: an older version, or a server, did not say.
    pub extensions: Option<Vec<Extension>>,
    /// Those that the database uses and that have versions. `None`: an older version, or a server, did not say.
    pub collations: Option<Vec<Collation>>,
    /// What a person should look at although the backup is good, as it was known at the commit.
    pub warnings: Vec<String>,
    /// Of a plain script that was counted as it was written. Without it, as older versions wrote them, a plain
    /// backup's `tables` are empty and say nothing.
    pub script: Option<ScriptRecord>,
    pub tables: Vec<TableRecord>,
    pub large_objects: Vec<LargeObjectsRecord>,
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
    /// The file's bytes: the same manifest always gives the same ones.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::internal("cannot write the manifest as JSON").source(error))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads the manifest found in `id`'s folder.
    pub fn parse(bytes: &[u8], id: &BackupId) -> Result<Self, Broken> {
        broken::parse::<schema::Json>(bytes)?.check(id)
    }
}

/// The settings' own type, spelled as the option spells it.
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
