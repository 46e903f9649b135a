//! What lies between two runs.

use std::fmt;

use super::Run;
use crate::repository::backup_id::BackupId;

/// What no run holds: the changes after one run's last increment and before the next run's first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The last increment before it.
    pub after: BackupId,
    /// The first increment behind it.
    pub before: BackupId,
    pub why: String,
}

impl Gap {
    pub(super) fn between(earlier: &Run, later: &Run) -> Self {
        let (one, other) = (&earlier.last().stream, &later.first().stream);
        let why = if one.system_identifier != other.system_identifier {
            "another server begins".to_owned()
        } else if one.database_oid != other.database_oid {
            "another database of this name begins".to_owned()
        } else if one.timeline != other.timeline {
            format!(
                "the server changed from timeline {} to {}, as after a failover",
                one.timeline, other.timeline
            )
        } else {
            later.begins().to_string()
        };
        Self {
            after: earlier.last().id.clone(),
            before: later.first().id.clone(),
            why,
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "between {} and {}: {}", self.after, self.before, self.why)
    }
}
