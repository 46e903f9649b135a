//! What a file holds, counted while it was written or checked.

use jiff::Timestamp;

use crate::format::Lsn;
use crate::format::pgoutput::Identity;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangesSummary {
    /// The end of the last transaction; without one, the position after which the file begins.
    pub position: Lsn,
    pub transactions: u64,
    /// The source's clock at the first and at the last commit, in their order. `None`: there is no transaction.
    pub commits: Option<(Timestamp, Timestamp)>,
    /// The tables with changes, in the order of their OIDs.
    pub tables: Vec<TableSummary>,
    /// The messages with their lengths: the decompressed size of the file.
    pub raw_bytes: u64,
    /// The size of the file.
    pub bytes: u64,
    pub index: IndexPlace,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSummary {
    pub oid: u32,
    /// As the last description of the table names it.
    pub schema: String,
    pub name: String,
    pub identity: Identity,
    pub inserts: u64,
    pub updates: u64,
    pub deletes: u64,
    pub truncates: u64,
}

impl TableSummary {
    pub fn changes(&self) -> u64 {
        self.inserts + self.updates + self.deletes + self.truncates
    }
}

/// Where the index is in the file, and its digest. The digests of the frames are in the index, so with these values from
/// the manifest every part of the file can be checked alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexPlace {
    pub offset: u64,
    pub length: u64,
    pub sha256: [u8; 32],
    /// The earliest and the latest commit time in the file: a reader of other times needs not even the index.
    pub times: Option<(Timestamp, Timestamp)>,
}
