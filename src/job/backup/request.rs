//! The request for a backup.

use std::time::Duration;

use crate::repository::backup_id::BackupKind;
use crate::repository::manifest::StreamBeginning;
use crate::repository::trigger::Trigger;

/// A backup of the database that the settings name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackupRequest {
    /// A full backup, or an increment.
    pub kind: BackupKind,
    /// Goes on making increments, one after each of these spans, until the run is stopped.
    pub every: Option<Duration>,
    /// Who asked for it: it is written into the manifest.
    pub trigger: Trigger,
    /// The event that asked for this backup. An event that is delivered twice makes one backup.
    pub event_id: Option<String>,
    /// The database that the event names, if it names one.
    pub database: Option<String>,
    /// The stream of changes for which this full backup is made, once the transactions that are older than it have ended.
    pub beginning: Option<StreamBeginning>,
}
