//! Which signatures are accepted, and why one is not.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Subject;
use super::file::{LIMIT, SignatureFile};
use super::key::{KeyId, PublicKey};
use crate::error::{Code, Error, Result};
use crate::repository::backup_id::BackupId;
use crate::store::Store;

/// The keys of `BACKUP_VERIFY_KEYS`. Without any, nothing needs a signature.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    keys: Vec<PublicKey>,
}

/// The state of a file's signature, if keys are set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SignatureState {
    Signed { key: KeyId },
    Unsigned,
    Bad { why: Flaw },
}

/// Why a signature is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("is not signed")]
    Missing,
    #[error("has a signature that cannot be read: {0}")]
    Unreadable(String),
    #[error("is signed by the key {0}, which is not among BACKUP_VERIFY_KEYS")]
    Untrusted(KeyId),
    #[error("has a signature by the key {0} that does not match its content: the file or the signature was changed")]
    Wrong(KeyId),
    #[error("has a signature by the key {0} whose trusted comment was changed")]
    Comment(KeyId),
    #[error("has a signature of another file: {0:?}")]
    Other(String),
    /// The text of a report, which has nothing else.
    #[error("{0}")]
    Told(String),
}

impl Serialize for Flaw {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Flaw {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Flaw::Told)
    }
}

impl From<Result<KeyId, Flaw>> for SignatureState {
    fn from(checked: Result<KeyId, Flaw>) -> Self {
        match checked {
            Ok(key) => SignatureState::Signed { key },
            Err(Flaw::Missing) => SignatureState::Unsigned,
            Err(why) => SignatureState::Bad { why },
        }
    }
}

impl SignatureState {
    pub fn is_signed(&self) -> bool {
        matches!(self, SignatureState::Signed { .. })
    }

    /// As the rest of a sentence about the file.
    pub fn said(&self) -> String {
        match self {
            SignatureState::Signed { key } => format!("is signed by the key {key}"),
            SignatureState::Unsigned => Flaw::Missing.to_string(),
            SignatureState::Bad { why } => why.to_string(),
        }
    }
}

/// As a cell of a table.
impl fmt::Display for SignatureState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignatureState::Signed { key } => key.fmt(f),
            SignatureState::Unsigned => f.write_str("not signed"),
            SignatureState::Bad { .. } => f.write_str("BAD"),
        }
    }
}

impl Flaw {
    /// For a command that must not use a backup whose manifest has this flaw.
    pub fn into_error(self, id: &BackupId, store: &str) -> Error {
        let hint = match self {
            Flaw::Missing => {
                "if the backup was made before you signed, use it without BACKUP_VERIFY_KEYS and give the manifest's \
                 SHA-256 from its report as --expect-manifest; otherwise find out who put it there"
            }
            Flaw::Untrusted(_) => {
                "if that key is yours, add its public key to BACKUP_VERIFY_KEYS; otherwise find out who put the backup \
                 there"
            }
            _ => {
                "do not use this backup, because a person has changed it in the store: use its copy in another store, \
                 or an older backup by its id"
            }
        };
        Error::new(Code::Signature, format!("backup {id} in {store}: manifest.json {self}")).hint(hint)
    }
}

impl Trust {
    pub fn new(keys: Vec<PublicKey>) -> Self {
        Self { keys }
    }

    /// Whether signatures are required.
    pub fn asks(&self) -> bool {
        !self.keys.is_empty()
    }

    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// These keys and the run's own signing key: the keys that a backup accepts. If there is neither, every file is
    /// accepted.
    #[must_use]
    pub fn and(&self, own: Option<&PublicKey>) -> Self {
        let own = own.cloned();
        Self {
            keys: self.keys.iter().cloned().chain(own).collect(),
        }
    }

    /// Checks the signature beside these bytes. The error is the store's.
    pub async fn look(&self, store: &dyn Store, subject: Subject<'_>, bytes: &[u8]) -> Result<Result<KeyId, Flaw>> {
        let key = subject.signature_key();
        // Reads no more than a signature can have.
        let signature = store.get_range(&key, 0, LIMIT + 1).await?;
        Ok(self.check(subject, bytes, signature.as_deref()))
    }

    /// Whether one of the keys has signed these bytes as this file.
    pub fn check(&self, subject: Subject<'_>, bytes: &[u8], signature: Option<&[u8]>) -> Result<KeyId, Flaw> {
        let signature = signature.ok_or(Flaw::Missing)?;
        let file = SignatureFile::parse(signature).map_err(Flaw::Unreadable)?;
        // Ids may be equal by chance or on purpose.
        let named: Vec<&PublicKey> = self.keys.iter().filter(|key| key.id == file.key).collect();
        if named.is_empty() {
            return Err(Flaw::Untrusted(file.key));
        }
        let Some(key) = named.into_iter().find(|key| file.is_of(bytes, key)) else {
            return Err(Flaw::Wrong(file.key));
        };
        if !file.vouches_for_comment(key) {
            return Err(Flaw::Comment(file.key));
        }
        if !subject.fits(&file.comment) {
            return Err(Flaw::Other(file.comment));
        }
        Ok(key.id)
    }
}
