//! The report of a download that succeeded.

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
    /// Set if signatures are required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<KeyId>,
    pub bytes: u64,
    /// Bytes that came from the store in this run; the rest is from an earlier run.
    pub bytes_fetched: u64,
    /// Whether the file has the offsets, for `pg_restore -j` and `-t`.
    pub offsets: bool,
    /// The digest of the file.
    pub sha256: String,
    /// The digest of the stored object, as in the manifest.
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
            writeln!(f, "  with offsets: pg_restore -j and -t can seek in it")?;
        }
        for warning in &self.warnings {
            writeln!(f, "  warning: {warning}")?;
        }
        Ok(())
    }
}
