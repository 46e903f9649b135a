//! What a face can ask for. Faces turn their input into a [`Command`]; `App::run` answers with a
//! report or an error.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::repository::backup_id::BackupId;
use crate::settings::{Trigger, Uses};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Backup(BackupRequest),
    Download(DownloadRequest),
    /// Try everything that a backup needs.
    Doctor,
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
    Verify(VerifyRequest),
    /// Make a key pair: the file for its secret half.
    Keygen {
        file: PathBuf,
    },
    Restore(RestoreRequest),
}

impl Command {
    /// The settings that it goes by.
    pub fn uses(&self) -> Uses {
        match self {
            Self::Backup(_) => Uses::Backup,
            Self::Doctor => Uses::Doctor,
            Self::Restore(_) => Uses::Restore,
            Self::Verify(request) if request.drill => Uses::Drill,
            Self::Verify(_) => Uses::Verify,
            Self::Prune(request) if request.dry_run => Uses::PrunePlan,
            Self::Prune(_) => Uses::Prune,
            Self::RetentionApply => Uses::Rules,
            Self::RetentionShow => Uses::RulesShown,
            Self::Status { .. } => Uses::Status,
            Self::Download(_) | Self::List { .. } => Uses::Store,
            Self::Keygen { .. } => Uses::Keys,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupRequest {
    pub trigger: Trigger,
    /// Identifies the event that asked for this backup: delivered twice, it makes one backup.
    pub event_id: Option<String>,
    /// The database that the event names, where it names one.
    pub database: Option<String>,
}

/// Whether a text may be an event's id: it goes into the manifest, so it is short and printable.
pub fn is_event_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= 256 && text.chars().all(|c| c.is_ascii_graphic())
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneRequest {
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
    /// Count verified backups alone among those that never expire.
    pub verified_only: bool,
    /// Delete in buckets too, which their lifecycle rules do otherwise.
    pub allow_delete: bool,
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
    /// The SHA-256 that the manifest must have.
    pub expect_manifest: Option<[u8; 32]>,
}

/// Which backups a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// An exact id, or `latest`.
    One(String),
    /// All of the store, or of one database; those made since a moment.
    All { since: Option<Timestamp> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyRequest {
    pub selection: Selection,
    /// Whose, where the store holds several databases.
    pub database: Option<String>,
    /// Restore it into a throwaway server as well, and compare.
    pub drill: bool,
    /// The SHA-256 that the manifest must have; of one backup alone.
    pub expect_manifest: Option<[u8; 32]>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreRequest {
    /// An exact id, or `latest`.
    pub backup: String,
    pub database: Option<String>,
    /// As the user wrote them, `schema.table`; none: everything.
    pub tables: Vec<String>,
    /// `SCHEMA` or `SCHEMA.NAME`, as the user wrote it: where copies of the tables go.
    pub into: Option<String>,
    /// Rows alone, into tables that are there.
    pub data_only: bool,
    /// Make the target database.
    pub create: bool,
    /// Remove what stands in the way first.
    pub clean: bool,
    /// With `create` and `clean`: end the sessions that others have in the database.
    pub force: bool,
    /// With `clean`: remove before the backup's bytes have been read and found right.
    pub no_verify: bool,
    /// Compare the rows with the backup when they are there; single tables are compared anyway.
    pub check: bool,
    /// Do not compare them.
    pub no_check: bool,
    /// Go on past what fails, and report it.
    pub keep_going: bool,
    /// Roles first.
    pub globals: bool,
    /// Those roles with the power over the server that they have in the backup.
    pub globals_privileged: bool,
    pub no_owner: bool,
    pub no_privileges: bool,
    pub no_tablespaces: bool,
    pub no_comments: bool,
    pub no_publications: bool,
    pub no_subscriptions: bool,
    /// `KIND` or `KIND:NAME`, as the user wrote them.
    pub exclude: Vec<String>,
    /// Say what would be done.
    pub dry_run: bool,
    /// The SHA-256 that the manifest must have.
    pub expect_manifest: Option<[u8; 32]>,
}

impl RestoreRequest {
    /// Whether rows are read again when all is made. Rows that go into tables that are there are compared before they
    /// are committed.
    pub fn compares(&self) -> bool {
        !self.no_check && !self.data_only && (self.check || !self.tables.is_empty())
    }
}

/// An exact id says itself whose backup it is: another name beside it contradicts it.
pub fn check_whose(backup: &str, database: Option<&str>) -> Result<()> {
    let (Some(name), Ok(id)) = (database, backup.parse::<BackupId>()) else {
        return Ok(());
    };
    if id.database() == name {
        return Ok(());
    }
    Err(Error::config(format!(
        "{backup} is no backup of the database {name:?}, which is named beside it"
    ))
    .hint("leave the name of the database out, or give latest in place of the id"))
}

/// The SHA-256 of a manifest as its report says it: 64 hex digits.
pub fn manifest_digest(text: &str) -> Option<[u8; 32]> {
    let text = text.trim();
    let mut digest = [0; 32];
    hex::decode_to_slice(text.strip_prefix("sha256:").unwrap_or(text), &mut digest).ok()?;
    Some(digest)
}
