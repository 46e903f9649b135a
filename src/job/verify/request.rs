//! The request for a verification.

use jiff::Timestamp;

/// The backups that a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// An exact id, or `latest`.
    One(String),
    /// All backups of the store or of one database, or only those since a time.
    All { since: Option<Timestamp> },
}

/// Reads stored backups and compares them with their manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyRequest {
    /// Which backups.
    pub selection: Selection,
    /// The database, if the store holds several.
    pub database: Option<String>,
    /// Restore it into a throwaway server as well, and compare.
    pub drill: bool,
    /// The SHA-256 that the manifest must have; only for one backup.
    pub expect_manifest: Option<[u8; 32]>,
}

impl VerifyRequest {
    /// Of these backups, whatever their database, without a drill.
    pub fn of(selection: Selection) -> Self {
        Self {
            selection,
            database: None,
            drill: false,
            expect_manifest: None,
        }
    }
}
