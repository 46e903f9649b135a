//! What a face can ask for. Faces turn their input into a [`Command`]; `App::run` answers with a
//! report or an error.

use crate::settings::Trigger;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Backup(BackupRequest),
    RetentionShow,
    RetentionApply,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupRequest {
    pub trigger: Trigger,
    /// Identifies the event that asked for this backup: delivered twice, it makes one backup.
    pub event_id: Option<String>,
    /// The database that the event names, where it names one.
    pub database: Option<String>,
}
