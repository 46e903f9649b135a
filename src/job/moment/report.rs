//! What a report says of the moment.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::format::Lsn;
use crate::format::changes::Transaction;
use crate::repository::backup_id::BackupId;
use crate::units::count;

/// A transaction of the source.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct CommitReport {
    /// Behind its commit record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lsn: Option<Lsn>,
    pub xid: u32,
    /// On the source's clock.
    pub time: Timestamp,
}

impl From<&Transaction> for CommitReport {
    fn from(transaction: &Transaction) -> Self {
        Self {
            lsn: transaction.end,
            xid: transaction.xid,
            time: transaction.time,
        }
    }
}

impl fmt::Display for CommitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transaction {}, committed at {}", self.xid, self.time)?;
        match self.lsn {
            Some(lsn) => write!(f, ", {lsn}"),
            None => Ok(()),
        }
    }
}

/// Something that is not as it was at the moment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct NotExact {
    /// A table, or `large objects`.
    pub what: String,
    pub why: String,
    /// The nearest positions for which it is exact. `None`: there is none in these increments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Lsn>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Lsn>,
}

impl fmt::Display for NotExact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)?;
        match (self.before, self.after) {
            (Some(before), Some(after)) => write!(f, "; it is exact up to {before} and from {after} on"),
            (Some(before), None) => write!(f, "; it is exact up to {before}"),
            (None, Some(after)) => write!(f, "; it is exact from {after} on"),
            (None, None) => Ok(()),
        }
    }
}

/// The moment that was restored, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct MomentReport {
    /// What was asked for.
    pub target: String,
    /// The full backup that it begins with.
    pub base: BackupId,
    pub increments: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_increment: Option<BackupId>,
    /// Every transaction that was committed before this position is in it, and none from there on.
    pub position: Lsn,
    /// The last transaction that is in it. `None`: there is none between the full and the moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stops_after: Option<CommitReport>,
    /// The first one that is not. `None`: it is not in the increments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stops_before: Option<CommitReport>,
    /// The definitions are those of this backup.
    pub definitions_of: BackupId,
    /// How many changes were applied, and to how many tables. `None`: a dry run does not read them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables_changed: Option<usize>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_exact: Vec<NotExact>,
}

impl fmt::Display for MomentReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let increments = count(self.increments, "increment");
        writeln!(f, "  as of {}: {} and {increments}", self.target, self.base)?;
        match &self.stops_after {
            Some(commit) => writeln!(f, "  stops after {commit}")?,
            None => writeln!(f, "  no transaction was committed between the full backup and {}", self.position)?,
        }
        if let Some(commit) = &self.stops_before {
            writeln!(f, "  the next one is {commit}")?;
        }
        if let (Some(changes), Some(tables)) = (self.changes, self.tables_changed) {
            writeln!(f, "  {} in {} applied", count(changes, "change"), count(tables, "table"))?;
        }
        for one in &self.not_exact {
            writeln!(f, "  NOT EXACT: {one}")?;
        }
        Ok(())
    }
}
