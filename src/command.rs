//! What a face can ask for. Faces turn their input into a [`Command`]; `App::run` answers with a
//! report or an error.

use std::path::PathBuf;

use crate::settings::Trigger;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Backup(BackupRequest),
    Download(DownloadRequest),
    RetentionShow,
    RetentionApply,
    /// The backups in the store: of one database, or of all.
    List {
        database: Option<String>,
    },
    Status {
        database: Option<String>,
    },
    Prune(PruneRequest),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupRequest {
    pub trigger: Trigger,
    /// Identifies the event that asked for this backup: delivered twice, it makes one backup.
    pub event_id: Option<String>,
    /// The database that the event names, where it names one.
    pub database: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneRequest {
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
    /// Count verified backups alone among those that never expire.
    pub verified_only: bool,
    pub database: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadRequest {
    /// An exact id, or `latest`.
    pub backup: String,
    /// Whose latest, where it is not the source's.
    pub database: Option<String>,
    /// A file, or a folder for a file of the archive's own name; else the working folder.
    pub output: Option<PathBuf>,
    /// Bit for bit as in the store: the offsets are not laid in.
    pub as_stored: bool,
    /// Replace a file that is there.
    pub force: bool,
}
