//! The request for a backup.

use crate::repository::trigger::Trigger;

/// A full backup of the database that the settings name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackupRequest {
    /// Who asked for it: it is written into the manifest.
    pub trigger: Trigger,
    /// The event that asked for this backup. An event that is delivered twice makes one backup.
    pub event_id: Option<String>,
    /// The database that the event names, if it names one.
    pub database: Option<String>,
}
