//! What a user can ask of a restore.

use super::plan::Without;
use crate::job::moment::AskedMoment;

/// Which backup is restored, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreRequest {
    /// An exact id, or `latest`.
    pub backup: String,
    /// Of which database `latest` is, if the store holds several.
    pub database: Option<String>,
    /// As the user wrote them, `schema.table`. Empty: everything is restored.
    pub tables: Vec<String>,
    /// `SCHEMA` or `SCHEMA.NAME`, as the user wrote it: where the copies of the tables are made.
    pub into: Option<String>,
    /// Load only rows, into existing tables.
    pub data_only: bool,
    /// Make the target database.
    pub create: bool,
    /// First remove the objects that conflict with those of the backup.
    pub clean: bool,
    /// With `create` and `clean`: end the sessions of others in the database.
    pub force: bool,
    /// With `clean`: remove objects without first checking the bytes of the backup.
    pub no_verify: bool,
    /// Compare the restored rows with the backup. Single tables are compared also without this.
    pub check: bool,
    /// Do not compare the rows.
    pub no_check: bool,
    /// Continue after a failure, and report it.
    pub keep_going: bool,
    /// Restore everything in one transaction, or nothing.
    pub single_transaction: bool,
    /// Make the roles first.
    pub globals: bool,
    /// Give those roles the rights over the server that they have in the backup.
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
    /// Restore the database as it was at this moment: a full backup, and the changes since.
    pub moment: Option<AskedMoment>,
    /// Restore the moment also where it cannot be had exactly.
    pub allow_partial: bool,
    /// Only report what would be done.
    pub dry_run: bool,
    /// The SHA-256 that the manifest must have.
    pub expect_manifest: Option<[u8; 32]>,
}

impl RestoreRequest {
    /// Whether the rows are read again at the end. Rows that go into existing tables are instead compared before they
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
