//! One transaction, as it is told.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::format::Lsn;
use crate::format::pgoutput::Relation;
use crate::repository::backup_id::BackupId;

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct TransactionChanges {
    /// The source's clock at the commit.
    pub time: Timestamp,
    /// What is restored to this position has all transactions before this one.
    pub before: Lsn,
    /// What is restored to this position has this transaction as the last one.
    pub lsn: Lsn,
    pub xid: u32,
    /// The increment that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub increment: Option<BackupId>,
    /// Of the tables that were asked for.
    pub inserts: u64,
    pub updates: u64,
    pub deletes: u64,
    pub truncates: u64,
    pub tables: Vec<ChangedTable>,
    /// How many more tables it changed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_tables: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct ChangedTable {
    pub oid: u32,
    /// The names at the time of the change.
    pub schema: String,
    pub name: String,
    pub inserts: u64,
    pub updates: u64,
    pub deletes: u64,
    pub truncates: u64,
}

impl ChangedTable {
    pub(super) fn new(oid: u32, relation: Option<&Relation>) -> Self {
        let (schema, name) = relation.map(Relation::names).unwrap_or_default();
        Self {
            oid,
            schema,
            name,
            inserts: 0,
            updates: 0,
            deletes: 0,
            truncates: 0,
        }
    }
}
