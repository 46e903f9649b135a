//! What a backup can be asked for.

use crate::repository::trigger::Trigger;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupRequest {
    pub trigger: Trigger,
    /// Identifies the event that asked for this backup: delivered twice, it makes one backup.
    pub event_id: Option<String>,
    /// The database that the event names, where it names one.
    pub database: Option<String>,
}
