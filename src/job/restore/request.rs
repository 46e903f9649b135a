//! What a restore can be asked for.

use super::plan::Without;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreRequest {
    /// An exact id, or `latest`.
    pub backup: String,
    /// Of which database `latest` is, if the store holds several.
    pub database: Option<String>,
    /// As the user wrote them, `schema.table`; none: everything.
    pub tables: Vec<String>,
    /// `SCHEMA` or `SCHEMA.NAME`, as the user wrote it: where copies of the tables go.
    pub into: Option<String>,
    /// Rows alone, into tables that are there.
    pub data_only: bool,
    /// Make the target database.
    pub create: bool,
    /// Remove what stands in the way first.
    pub clean: bool,
    /// With `create` and `clean`: end the sessions that others have in the database.
    pub force: bool,
    /// With `clean`: remove before the backup's bytes have been read and found right.
    pub no_verify: bool,
    /// Compare the rows with the backup when they are there; single tables are compared anyway.
    pub check: bool,
    /// Do not compare them.
    pub no_check: bool,
    /// Go on past what fails, and report it.
    pub keep_going: bool,
    /// All of it in one transaction, or nothing.
    pub single_transaction: bool,
    /// Roles first.
    pub globals: bool,
    /// Those roles with the power over the server that they have in the backup.
    pub globals_privileged: bool,
    /// Everything belongs to the role that restores.
    pub no_owner: bool,
    /// Leave out grants.
    pub no_privileges: bool,
    /// Everything goes into the target's default tablespace.
    pub no_tablespaces: bool,
    /// Leave out comments.
    pub no_comments: bool,
    /// Leave out publications.
    pub no_publications: bool,
    /// Leave out subscriptions.
    pub no_subscriptions: bool,
    /// `KIND` or `KIND:NAME`, as the user wrote them.
    pub exclude: Vec<String>,
    /// Say what would be done.
    pub dry_run: bool,
    /// The SHA-256 that the manifest must have.
    pub expect_manifest: Option<[u8; 32]>,
}

impl RestoreRequest {
    /// Whether rows are read again when all is made. Rows that go into tables that are there are compared before they
    /// are committed.
    pub fn compares(&self) -> bool {
        !self.no_check && !self.data_only && (self.check || !self.tables.is_empty())
    }

    pub(super) fn without(&self) -> Without {
        Without {
            owners: self.no_owner,
            grants: self.no_privileges,
            definitions: self.data_only,
            parts: self.keep_going,
        }
    }
}
