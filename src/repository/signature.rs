//! Signatures of the files that a restore trusts: a backup's manifest, and the results of verifying it.
//!
//! All digests are beside the files that they protect, so a person who can write to the store can correct them all.
//! They cannot make a signature. The files are in minisign's format: stock `minisign -V` checks them, and pgstow
//! accepts what stock `minisign -S` signs.

mod file;
mod key;
pub mod keygen;
mod keyring;
mod kms;
mod secret;
pub mod settings;
mod signer;
mod trust;

use jiff::Timestamp;

use crate::repository::backup_id::{BackupId, MANIFEST, VERIFICATION, signature_name};

pub use key::{KeyId, PublicKey};
pub use keyring::Keyring;
pub use signer::Signer;
pub use trust::{Flaw, SignatureState, Trust};

/// What a signature covers: one file of one backup. The trusted comment names it, so that a signature by pgstow is
/// valid for no other file and no other backup.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    id: &'a BackupId,
    file: &'static str,
}

impl<'a> Subject<'a> {
    pub fn manifest(id: &'a BackupId) -> Self {
        Self { id, file: MANIFEST }
    }

    pub fn verification(id: &'a BackupId) -> Self {
        Self { id, file: VERIFICATION }
    }

    pub fn file(&self) -> &'static str {
        self.file
    }

    /// The key of its signature in the store.
    pub fn signature_key(&self) -> String {
        self.id.key(&signature_name(self.file))
    }

    /// Printable ASCII on one line: newer versions of minisign refuse anything else.
    fn comment(&self, now: Timestamp) -> String {
        let seconds = Timestamp::from_second(now.as_second()).unwrap_or(now);
        format!("{}, signed {seconds}", self.named())
    }

    /// Whether a comment by pgstow names this file. A comment by stock minisign names no backup; then only the id in
    /// the signed file says where it belongs.
    fn fits(&self, comment: &str) -> bool {
        !comment.starts_with(OURS)
            || comment
                .strip_prefix(&self.named())
                .is_some_and(|rest| rest.starts_with(", "))
    }

    fn named(&self) -> String {
        format!("{OURS}{} of {}", self.file, self.id.ascii())
    }
}

const OURS: &str = "pgstow ";

#[cfg(test)]
mod tests;
