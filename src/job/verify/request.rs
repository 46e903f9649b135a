//! The request for a verification.

use jiff::Timestamp;

use crate::job::moment::AskedMoment;

/// The backups that a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifySelection {
    /// An exact id, or `latest`.
    One(String),
    /// All backups of the store or of one database, or only those since a time.
    All { since: Option<Timestamp> },
}

/// Reads stored backups and compares them with their manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyRequest {
    /// Which backups.
    pub selection: VerifySelection,
    /// The database, if the store holds several.
    pub database: Option<String>,
    /// Restore it into a throwaway server as well, and compare.
    pub drill: bool,
    /// With a drill: restore the database as it was at this moment.
    pub moment: Option<AskedMoment>,
    /// Prove that the increments since the full backup before lead exactly to it.
    pub chain: bool,
    /// The SHA-256 that the manifest must have; only for one backup.
    pub expect_manifest: Option<[u8; 32]>,
}

/// Proofs besides reading every byte.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Proofs {
    /// Restore it into a throwaway server.
    pub drill: bool,
    /// Prove that the increments lead to it.
    pub chain: bool,
}

impl VerifyRequest {
    pub(super) fn proofs(&self) -> Proofs {
        Proofs {
            drill: self.drill,
            chain: self.chain,
        }
    }

    /// Of these backups, whatever their database, without a drill.
    pub fn of(selection: VerifySelection) -> Self {
        Self {
            selection,
            database: None,
            drill: false,
            moment: None,
            chain: false,
            expect_manifest: None,
        }
    }
}
