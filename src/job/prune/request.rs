//! The request for a prune.

/// What a prune may remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneRequest {
    /// Show what would be done, and do nothing.
    pub dry_run: bool,
    /// Also keep the newest verified backups.
    pub verified_only: bool,
    /// Delete in buckets too, where otherwise their lifecycle rules do it.
    pub allow_delete: bool,
    /// Of this database alone.
    pub database: Option<String>,
}
