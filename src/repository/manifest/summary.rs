//! What lists, plans and tags need from a manifest. The reader skips the tables, because there may be thousands.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use super::error::parse;
use super::files::check_names;
use super::{FileRecord, Manifest, ManifestError, Metadata, References, bounded};
use crate::repository::backup_id::{BackupId, BackupKind};
use crate::repository::retention::Tier;

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Summary {
    pub id: BackupId,
    #[serde(rename = "type")]
    pub kind: BackupKind,
    pub timestamp: Timestamp,
    pub finished_at: Timestamp,
    pub tier: Tier,
    #[serde(default)]
    pub event_id: Option<String>,
    #[serde(default)]
    pub digest_file: Option<String>,
    #[serde(default)]
    pub store: Option<String>,
    /// The backup that has the tables which had not changed. `None`: this one has everything.
    #[serde(default)]
    pub references: Option<References>,
    #[serde(deserialize_with = "bounded::few")]
    pub files: BTreeMap<String, FileRecord>,
    #[serde(default)]
    pub metadata: Metadata,
}

impl Summary {
    /// Reads these fields of the manifest found in `id`'s folder.
    pub fn parse(bytes: &[u8], id: &BackupId) -> Result<Self, ManifestError> {
        let summary: Self = parse(bytes)?;
        ManifestError::unless_of(id, &summary.id)?;
        check_names(&summary.files)?;
        Ok(summary)
    }
}

impl Manifest {
    pub fn summary(&self) -> Summary {
        Summary {
            id: self.id.clone(),
            kind: self.kind,
            timestamp: self.timestamp,
            finished_at: self.finished_at,
            tier: self.tier,
            event_id: self.event_id.clone(),
            digest_file: self.digest_file.clone(),
            store: self.store.clone(),
            references: self.references.clone(),
            files: self.files.clone(),
            metadata: self.metadata.clone(),
        }
    }
}
