//! The request for a backup.

use crate::repository::trigger::Trigger;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupRequest {
    pub trigger: Trigger,
    /// The event that asked for this backup. An event that is delivered twice makes one backup.
    pub event_id: Option<String>,
    /// The database that the event names, if it names one.
    pub database: Option<String>,
}
