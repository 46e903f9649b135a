//! The request for a download.

use std::path::PathBuf;

/// Which backup is fetched, and where it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadRequest {
    /// An exact id, or `latest`.
    pub backup: String,
    /// The database for `latest`, if it is not the one that the settings name.
    pub database: Option<String>,
    /// A file, or a folder for a file with the archive's own name. Default: the working folder.
    pub output: Option<PathBuf>,
    /// Write exactly the stored bytes, without the offsets.
    pub as_stored: bool,
    /// Replace an existing file.
    pub force: bool,
    /// The SHA-256 that the manifest must have.
    pub expect_manifest: Option<[u8; 32]>,
}
