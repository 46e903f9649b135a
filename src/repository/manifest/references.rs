//! A backup by reference: tables that had not changed since an earlier full backup are not stored again.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{FileIndex, FileRange, FileRecord, Manifest, ManifestError};
use crate::repository::backup_id::BackupId;
use crate::units::{count, human_bytes};

/// The full backup that has the blocks of unchanged tables. It has no references itself.
///
/// Its own manifest differs from store to store, so this records its data file, which does not: another backup under the
/// same id has another digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct References {
    pub from: BackupId,
    /// Its data file.
    pub file: FileRecord,
    /// How many tables are there, and the bytes of their blocks as they are stored.
    pub tables: u64,
    pub bytes: u64,
}

/// The same for people: what a backup does not have itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Referring {
    pub from: BackupId,
    pub tables: u64,
    /// As they are stored there.
    pub bytes: u64,
}

impl From<&References> for Referring {
    fn from(references: &References) -> Self {
        Self {
            from: references.from.clone(),
            tables: references.tables,
            bytes: references.bytes,
        }
    }
}

impl fmt::Display for Referring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "by reference: {} ({}) that had not changed are in {}, which it needs; no point-in-time restore",
            count(self.tables, "table"),
            human_bytes(self.bytes),
            self.from
        )
    }
}

impl References {
    pub(super) fn check(&self, id: &BackupId) -> Result<(), ManifestError> {
        let shape = |what: &str| {
            Err(ManifestError::Shape(format!(
                "its `references` name {}: {what}",
                self.from
            )))
        };
        if self.from.database() != id.database() {
            return shape("a backup of another database");
        }
        if self.from.timestamp() >= id.timestamp() {
            return shape("a backup that is not older");
        }
        if !self.from.makes(&self.file.name) {
            return shape("a file that cannot be in its folder");
        }
        Ok(())
    }
}

impl Manifest {
    /// How places name the data file of the backup that this one refers to: after its own.
    pub fn referenced_file(&self) -> Option<FileIndex> {
        self.references.as_ref().map(|_| FileIndex(self.data_files.len()))
    }

    /// Whether the backup that this one refers to has the bytes.
    pub fn is_referenced(&self, place: FileRange) -> bool {
        Some(place.file) == self.referenced_file()
    }
}
