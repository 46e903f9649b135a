//! What a backup can be asked for.

use crate::repository::trigger::Trigger;

/// A full backup of the database that the settings name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackupRequest {
    /// Who asked for it: it is written into the manifest.
    pub trigger: Trigger,
    /// Identifies the event that asked for this backup: delivered twice, it makes one backup.
    pub event_id: Option<String>,
    /// The database that the event names, where it names one.
    pub database: Option<String>,
}
