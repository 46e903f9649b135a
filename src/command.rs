//! The commands that a face can ask for. A face turns its input into a [`Command`]; `App::run` answers with a report or
//! an error.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::repository::backup_id::BackupId;
use crate::settings::Uses;

pub use crate::job::backup::BackupRequest;
pub use crate::job::changes::ChangesRequest;
pub use crate::job::download::{DownloadRequest, FileChoice};
pub use crate::job::incremental::IncrementalRequest;
pub use crate::job::moment::AskedMoment;
pub use crate::job::prune::PruneRequest;
pub use crate::job::restore::RestoreRequest;
pub use crate::job::verify::{VerifyRequest, VerifySelection};

/// A request that pgstow can carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Make a full backup, or increments.
    Backup(BackupRequest),
    /// The transactions in the increments.
    Changes(ChangesRequest),
    /// Fetch one backup as one file.
    Download(DownloadRequest),
    /// Try everything that a backup needs.
    Doctor,
    /// The lifecycle rules that the retention asks for.
    RetentionShow,
    /// Install these rules in the bucket.
    RetentionApply,
    /// The backups in the store: of one database, or of all.
    List {
        /// `None`: of all databases.
        database: Option<String>,
    },
    /// Whether a person has to act.
    Status {
        /// `None`: of all databases.
        database: Option<String>,
    },
    /// Remove the backups that the retention no longer keeps.
    Prune(PruneRequest),
    /// Compare stored backups with their manifests, or restore them into a throwaway server.
    Verify(VerifyRequest),
    /// Make a key pair: the file for its secret half.
    Keygen {
        /// `.pub` is added for the public half.
        file: PathBuf,
    },
    /// Restore a backup, or some of its tables, into a database.
    Restore(RestoreRequest),
    /// What increments need on the server.
    Incremental(IncrementalRequest),
}

impl Command {
    /// The settings that the command uses.
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
            Self::Changes(_) | Self::Download(_) | Self::List { .. } => Uses::Store,
            Self::Keygen { .. } => Uses::Keys,
            Self::Incremental(IncrementalRequest::Stop { .. }) => Uses::Slot,
            Self::Incremental(IncrementalRequest::Start { .. } | IncrementalRequest::Status) => Uses::Backup,
        }
    }
}

/// Whether a text may be an event's id: it goes into the manifest, so it is short and printable.
pub fn is_event_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= 256 && text.chars().all(|c| c.is_ascii_graphic())
}

/// An exact id names its database, so another name beside it is a contradiction.
pub fn check_whose(backup: &str, database: Option<&str>) -> Result<()> {
    let (Some(name), Ok(id)) = (database, backup.parse::<BackupId>()) else {
        return Ok(());
    };
    if id.database() == name {
        return Ok(());
    }
    Err(Error::config(format!(
        "{backup} is no backup of the database {name:?}, which the command names too"
    ))
    .hint("leave out the name of the database, or give latest instead of the id"))
}

/// The SHA-256 of a manifest as in the backup's report: 64 hex digits.
pub fn manifest_digest(text: &str) -> Option<[u8; 32]> {
    let text = text.trim();
    let mut digest = [0; 32];
    hex::decode_to_slice(text.strip_prefix("sha256:").unwrap_or(text), &mut digest).ok()?;
    Some(digest)
}
