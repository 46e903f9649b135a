//! What a download can be asked for.

use std::path::PathBuf;

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
