//! Why a manifest cannot be used.

use serde::Deserialize;

use super::SCHEMA;
use crate::error::{Code, Error};
use crate::repository::backup_id::BackupId;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("{0}")]
    Unreadable(String),
    #[error("manifest.json is not JSON: {0}")]
    NotJson(String),
    #[error("manifest.json has schema {0}, this pgstow reads up to {SCHEMA}: a newer pgstow made this backup")]
    NewerSchema(u64),
    #[error("manifest.json is not a manifest: {0}")]
    Shape(String),
    #[error("manifest.json belongs to the backup {claimed}: it was copied or moved")]
    OtherBackup { claimed: BackupId },
    #[error("{0}")]
    Altered(String),
    #[error("manifest.json names a file that cannot be in its folder: {0:?}")]
    FileName(String),
}

impl ManifestError {
    /// For a command that needs exactly this backup.
    pub fn into_error(self, id: &BackupId) -> Error {
        let hint = match self {
            ManifestError::NewerSchema(_) => Some("use the version of pgstow that made it, or a newer one"),
            ManifestError::Altered(_) => Some(
                "use another backup, or a copy of this one; if the report, the message or the log of the run that \
                 made it has this digest (`manifest_sha256`), the manifest is good: give the digest as \
                 --expect-manifest",
            ),
            _ => None,
        };
        let error = Error::new(Code::Integrity, format!("cannot use backup {id}")).source(self);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    /// This is not the manifest of the backup in whose folder it is.
    pub(super) fn unless_of(folder: &BackupId, claimed: &BackupId) -> Result<(), Self> {
        if folder == claimed {
            return Ok(());
        }
        Err(ManifestError::OtherBackup {
            claimed: claimed.clone(),
        })
    }
}

/// Reads a file with a schema that this version knows.
pub(super) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ManifestError> {
    #[derive(Deserialize)]
    struct Schema {
        schema: u64,
    }
    // This check is first, because a newer schema may have any other shape.
    let schema: Schema = serde_json::from_slice(bytes).map_err(|error| broken(&error))?;
    if schema.schema > u64::from(SCHEMA) {
        return Err(ManifestError::NewerSchema(schema.schema));
    }
    serde_json::from_slice(bytes).map_err(|error| broken(&error))
}

fn broken(error: &serde_json::Error) -> ManifestError {
    match error.classify() {
        serde_json::error::Category::Data => ManifestError::Shape(error.to_string()),
        _ => ManifestError::NotJson(error.to_string()),
    }
}
