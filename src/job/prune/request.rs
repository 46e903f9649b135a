//! What `prune` can be asked for.

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneRequest {
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
    /// Count verified backups alone among those that never expire.
    pub verified_only: bool,
    /// Delete in buckets too, which their lifecycle rules do otherwise.
    pub allow_delete: bool,
    /// Of this database alone.
    pub database: Option<String>,
}
