//! Whose signatures count, and what is wrong with one that does not.

use std::fmt;

use serde::Serialize;

use super::Subject;
use super::file::{LIMIT, SignatureFile};
use super::key::{KeyId, PublicKey};
use crate::error::{Code, Error, Result};
use crate::repository::backup_id::BackupId;
use crate::store::Store;

/// The keys of `BACKUP_VERIFY_KEYS`. Without any, nothing has to be signed.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    keys: Vec<PublicKey>,
}

/// How a file stands, where keys are set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Standing {
    Signed { key: KeyId },
    Unsigned,
    Bad { why: Flaw },
}

/// Why a signature does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("is not signed")]
    Missing,
    #[error("has a signature that cannot be read: {0}")]
    Unreadable(String),
    #[error("is signed by the key {0}, which is not among BACKUP_VERIFY_KEYS")]
    Untrusted(KeyId),
    #[error("has a signature by the key {0} that is not of these bytes: the file or the signature was changed")]
    Wrong(KeyId),
    #[error("has a signature by the key {0} whose trusted comment was changed")]
    Comment(KeyId),
    #[error("has a signature that is of something else: {0:?}")]
    Other(String),
}

impl Serialize for Flaw {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl From<Result<KeyId, Flaw>> for Standing {
    fn from(checked: Result<KeyId, Flaw>) -> Self {
        match checked {
            Ok(key) => Standing::Signed { key },
            Err(Flaw::Missing) => Standing::Unsigned,
            Err(why) => Standing::Bad { why },
        }
    }
}

impl Standing {
    pub fn is_signed(&self) -> bool {
        matches!(self, Standing::Signed { .. })
    }

    /// As the rest of a sentence about the file.
    pub fn said(&self) -> String {
        match self {
            Standing::Signed { key } => format!("is signed by the key {key}"),
            Standing::Unsigned => Flaw::Missing.to_string(),
            Standing::Bad { why } => why.to_string(),
        }
    }
}

/// As a cell of a table.
impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Standing::Signed { key } => key.fmt(f),
            Standing::Unsigned => f.write_str("not signed"),
            Standing::Bad { .. } => f.write_str("BAD"),
        }
    }
}

impl Flaw {
    /// For a command that must not use a backup whose manifest has this flaw.
    pub fn into_error(self, id: &BackupId, store: &str) -> Error {
        let hint = match self {
            Flaw::Missing => {
                "if it was made before manifests were signed, take it without BACKUP_VERIFY_KEYS and with \
                 --expect-manifest, its SHA-256 from the report of that backup; otherwise find out who put it there"
            }
            Flaw::Untrusted(_) => {
                "if that key is yours, add its public key to BACKUP_VERIFY_KEYS; otherwise find out who put the backup there"
            }
            _ => {
                "somebody has written to the store: do not use this backup; look for it in another store, or take an older one by its id"
            }
        };
        Error::new(Code::Signature, format!("backup {id} in {store}: manifest.json {self}")).hint(hint)
    }
}

impl Trust {
    pub fn new(keys: Vec<PublicKey>) -> Self {
        Self { keys }
    }

    /// Whether signatures are asked for.
    pub fn asks(&self) -> bool {
        !self.keys.is_empty()
    }

    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// The same, and the key of whoever signs here: what counts for one that makes backups. Where
    /// nobody signs and nothing has to be signed, everything does.
    #[must_use]
    pub fn and(&self, own: Option<&PublicKey>) -> Self {
        let own = own.cloned();
        Self {
            keys: self.keys.iter().cloned().chain(own).collect(),
        }
    }

    /// Looks at the signature that lies beside these bytes. The error is the store's.
    pub async fn look(&self, store: &dyn Store, subject: Subject<'_>, bytes: &[u8]) -> Result<Result<KeyId, Flaw>> {
        let key = subject.signature_key();
        // No more than there can be in one, whatever lies there.
        let signature = store.get_range(&key, 0, LIMIT + 1).await?;
        Ok(self.check(subject, bytes, signature.as_deref()))
    }

    /// Whether one of the keys has signed these bytes, as what they are.
    pub fn check(&self, subject: Subject<'_>, bytes: &[u8], signature: Option<&[u8]>) -> Result<KeyId, Flaw> {
        let signature = signature.ok_or(Flaw::Missing)?;
        let file = SignatureFile::parse(signature).map_err(Flaw::Unreadable)?;
        // Ids may collide, by chance or on purpose.
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
