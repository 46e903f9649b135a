//! What a restore did, or would do.

use std::fmt;

use serde::Serialize;

use super::plan::LeftOut;
use crate::backup_id::BackupId;
use crate::quantity::{count, human_bytes};
use crate::signature::KeyId;

/// `status` comes first, as in a failure's document.
#[derive(Debug, Clone, Serialize)]
pub struct RestoreReport {
    /// `restored`, or `planned` for a dry run.
    pub status: &'static str,
    pub id: BackupId,
    /// `user@host:port/database`.
    pub target: String,
    /// The store that it came from.
    pub store: String,
    pub manifest_sha256: String,
    /// Where signatures are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<KeyId>,
    pub created_database: bool,
    pub jobs: usize,
    pub pg_restore: String,
    pub tables: usize,
    pub rows: u64,
    pub large_objects: u64,
    /// Stored bytes of the data that was asked for.
    pub bytes_read: u64,
    pub definitions: usize,
    /// Indexes, constraints, triggers, grants.
    pub finishing: usize,
    pub duration_seconds: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// Tables whose rows were read again and are those of the backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared: Option<usize>,
    /// What single tables need and the target had: it stayed as it was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub already_there: Vec<String>,
    /// In a dry run: the steps, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl fmt::Display for RestoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.status == "planned" {
            "would restore"
        } else {
            "restored"
        };
        writeln!(f, "{verb} {} into {}", self.id, self.target)?;
        writeln!(
            f,
            "  {}, {}, {}, {} read from {}, {}, {:.1} s",
            count(self.tables, "table"),
            count(self.rows, "row"),
            count(self.large_objects, "large object"),
            human_bytes(self.bytes_read),
            self.store,
            count(self.jobs, "job"),
            self.duration_seconds
        )?;
        if let Some(compared) = self.compared {
            writeln!(
                f,
                "  {} read again: the rows are those of the backup",
                count(compared, "table")
            )?;
        }
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "  {}. {step}", number + 1)?;
        }
        for left in &self.left_out {
            writeln!(f, "  left out: {}: {}", left.what, left.why)?;
        }
        for there in &self.already_there {
            writeln!(f, "  was there, and stays as it is: {there}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "  warning: {warning}")?;
        }
        if self.status == "restored" {
            writeln!(f, "  run ANALYZE in the target: statistics are not part of a backup")?;
        }
        Ok(())
    }
}
