//! What `download` says when it has succeeded.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::repository::backup_id::BackupId;
use crate::repository::signature::KeyId;
use crate::units::human_bytes;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DownloadStatus {
    Succeeded,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct DownloadReport {
    pub status: DownloadStatus,
    pub id: BackupId,
    pub store: String,
    pub file: PathBuf,
    pub manifest_sha256: String,
    /// Where signatures are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<KeyId>,
    pub bytes: u64,
    /// What came from the store in this run; the rest an earlier one had left.
    pub bytes_fetched: u64,
    /// Whether the offsets are laid in, for `pg_restore -j` and `-t`.
    pub offsets: bool,
    /// Of the file.
    pub sha256: String,
    /// Of the object, as the manifest says it.
    pub sha256_as_stored: String,
    pub duration_seconds: f64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl fmt::Display for DownloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.file.display())?;
        writeln!(f, "  {} from {}", self.id, self.store)?;
        write!(f, "  {}", human_bytes(self.bytes))?;
        if self.bytes_fetched < self.bytes {
            write!(
                f,
                ", {} of them there already",
                human_bytes(self.bytes - self.bytes_fetched)
            )?;
        }
        writeln!(f, ", {:.1} s, digest as in the manifest", self.duration_seconds)?;
        if self.offsets {
            writeln!(f, "  offsets laid in: pg_restore -j and -t can seek in it")?;
        }
        for warning in &self.warnings {
            writeln!(f, "  warning: {warning}")?;
        }
        Ok(())
    }
}
