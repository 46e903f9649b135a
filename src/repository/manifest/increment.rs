//! What the manifest of an increment says beside its files.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::SnapshotRecord;
use crate::format::Lsn;
use crate::format::changes::{IndexPlace, TableSummary};
use crate::repository::backup_id::BackupId;

/// The contents of an increment: the span of the stream that it holds, and what the span means for each table. In the
/// manifest's file these are fields beside the others.
#[derive(Debug, Clone, PartialEq)]
pub struct Increment {
    pub stream: Stream,
    /// How often each table was changed, in the order of the OIDs. Tables without changes are not listed.
    pub changes: Vec<TableChanges>,
    /// Every table of the database, in the order of the OIDs.
    pub coverage: Vec<TableCoverage>,
    /// The tables whose rows are in the dump of this increment.
    pub baselines: Vec<Baseline>,
    /// The positions of all sequences, read after the last change.
    pub sequences: Vec<SequenceState>,
    /// Whether large objects are covered, and why not. `None`: there are none.
    pub large_objects: Option<ObjectsCoverage>,
}

impl Increment {
    /// The first position at which the rows that a baseline has can be used. `None`: the table was not read.
    pub fn read_from(&self, oid: u32) -> Option<Lsn> {
        let baseline = self.baselines.iter().find(|one| one.oid == oid)?;
        let covered = self.coverage.iter().find(|one| one.oid == oid);
        let read = || baseline.snapshot.end.map_or(self.stream.to, |end| end.lsn);
        Some(covered.and_then(|covered| covered.from).unwrap_or_else(read))
    }

    /// All changes of all tables.
    pub fn count(&self) -> u64 {
        let counts = |table: &TableChanges| [table.inserts, table.updates, table.deletes, table.truncates];
        let counts = self.changes.iter().flat_map(counts);
        counts.fold(0, u64::saturating_add)
    }
}

/// A span of a slot's stream: after `from`, up to and including `to`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Names the stream: each `incremental start`, and each new slot, begins a new one.
    pub id: String,
    pub slot: String,
    pub system_identifier: String,
    pub timeline: u32,
    pub database_oid: u32,
    pub from: Lsn,
    pub to: Lsn,
    /// The increment whose `to` is this `from`. `None`: the first of the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predecessor: Option<BackupId>,
    /// The source's clock at the first and the last commit. `None`: there is no transaction in the span.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_commit: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_commit: Option<Timestamp>,
    /// A moment of the source's clock at which everything committed before it is in the stream up to `to`.
    pub seen_to: Timestamp,
    /// The source's clock after the server had reached `to`. `None`: an older pgstow made the increment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<Timestamp>,
    pub transactions: u64,
    /// The largest id of a transaction in the stream up to `to`, in this increment or an earlier one, as 64 bits like
    /// those of a snapshot. A full whose `xmin` is larger holds everything of the stream up to here. `None`: not known,
    /// so no full is taken to hold it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_xid: Option<u64>,
    /// The position of the stream's [`StreamBeginning`]: every increment of the stream repeats it. A full whose snapshot
    /// is earlier may lack transactions that the stream lacks too. `None`: not known, so no full from before the increment
    /// is taken to hold them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<Lsn>,
    /// All transactions with a smaller id had ended by then: every increment of the stream repeats it. A full whose
    /// `xmin` is smaller may lack transactions that the stream lacks too. `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_xid: Option<u64>,
    pub index: IndexRecord,
}

/// From where on a stream has everything. The full that is made for a new stream records it, when the transactions that
/// are older than the stream have ended.
///
/// A commit can be in the server's log before the stream's begin, and still be invisible, because it waits for a
/// synchronous standby. A full whose snapshot is taken at that time does not have it either, so such a full is no base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamBeginning {
    pub slot: String,
    /// Where the slot was.
    pub from: Lsn,
    /// Transactions with this id or a greater one had not begun yet: all that they change comes after `from`.
    pub xid: u64,
}

impl StreamBeginning {
    /// Whether the stream has every transaction that the snapshot does not see.
    pub fn precedes(&self, snapshot: &SnapshotRecord) -> bool {
        let position = snapshot.lsn.as_deref().and_then(|lsn| lsn.parse::<Lsn>().ok());
        position.is_some_and(|position| position >= self.from) && snapshot.xmin >= self.xid
    }
}

/// Where the index of the file of changes is in it. Its digest, together with the digests of the frames in the index,
/// lets a reader check any part of the file alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexRecord {
    pub offset: u64,
    pub length: u64,
    /// Hex digits.
    pub sha256: String,
    /// The earliest and the latest commit time in the file, which need not be those of the first and the last commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earliest: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<Timestamp>,
}

impl From<&IndexPlace> for IndexRecord {
    fn from(place: &IndexPlace) -> Self {
        Self {
            offset: place.offset,
            length: place.length,
            sha256: hex::encode(place.sha256),
            earliest: place.times.map(|(earliest, _)| earliest),
            latest: place.times.map(|(_, latest)| latest),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableChanges {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    /// Its replica identity: `default`, `index`, `full` or `nothing`.
    pub identity: String,
    pub inserts: u64,
    pub updates: u64,
    pub deletes: u64,
    pub truncates: u64,
}

impl From<&TableSummary> for TableChanges {
    fn from(table: &TableSummary) -> Self {
        Self {
            oid: table.oid,
            schema: table.schema.clone(),
            name: table.name.clone(),
            identity: table.identity.name().to_owned(),
            inserts: table.inserts,
            updates: table.updates,
            deletes: table.deletes,
            truncates: table.truncates,
        }
    }
}

/// How well the stream covers a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CoverageState {
    /// Every moment can be restored exactly.
    Exact,
    /// Without an identity: exact as long as rows are only inserted or the table is emptied, which the next full proves.
    Inserts,
    /// Without an identity, and read whole because rows were changed: as it was when it was read. Later moments are exact
    /// if the next increment finds that rows were only inserted since.
    Baseline,
    /// As in the fulls only.
    FullOnly,
}

/// Which moments of the increment's span can be restored exactly, for one table.
///
/// - Neither `from` nor `to`: all of them.
/// - `from` alone: those at or behind it. The changes since then are in the stream.
/// - `to` alone: those at or before it. What came later is lost, until a baseline in a later increment, or a full
///   whose snapshot is behind this increment.
/// - Both: the moments between `to` and `from` are a gap. If the increment has a baseline of the table, a restore to a
///   later moment takes the rows from it; if not, it replays through the gap. `from` may lie behind the increment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableCoverage {
    pub schema: String,
    pub name: String,
    pub oid: u32,
    pub state: CoverageState,
    /// The first exact position behind the gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Lsn>,
    /// The last exact position before the gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Lsn>,
    /// Why it is not exact throughout, with the statement that mends it if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// It was dropped in the gap: from `from` on it does not exist.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_gone: bool,
    /// It or columns of it got other names: the stream describes the same columns with other names since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub renamed: bool,
}

impl TableCoverage {
    /// Whether a position in the increment's span is outside the gap. What that means depends on the state.
    pub fn covers(&self, position: Lsn) -> bool {
        match (self.to, self.from) {
            (None, None) => true,
            (Some(to), None) => position <= to,
            (None, Some(from)) => position >= from,
            (Some(to), Some(from)) => position <= to || position >= from,
        }
    }
}

/// A table that the increment read whole. Its rows are in the dump; `tables` has their place, by the same OID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    /// The snapshot in which its rows were read. Changes of transactions that it sees are in the rows.
    pub snapshot: SnapshotRecord,
    /// How the moments of the gap before it can be proved exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<ReplayProof>,
    pub why: String,
}

/// What a restore may replay up to a baseline's snapshot. If the result equals the baseline's rows, all moments before
/// it are exact: nothing happened to the table that the stream does not have. A restore, or the proof of a chain,
/// decides it, because a replay costs more than a baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplayProof {
    /// The rows that the table had before this increment: it was rewritten, and perhaps no row changed (VACUUM FULL,
    /// CLUSTER).
    FromBase,
    /// An empty table: it is a new partition of a published table, and perhaps had no rows when it was attached.
    FromNothing,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceState {
    pub schema: String,
    pub name: String,
    pub oid: u32,
    pub last_value: i64,
    pub is_called: bool,
    /// Whether its numbers grow; if not, they fall. `None`: at its end it begins anew, or an older pgstow read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ascends: Option<bool>,
}

impl SequenceState {
    /// Whether it would give numbers again that it had given in this other state.
    pub fn is_behind(&self, other: &Self) -> bool {
        let place = |state: &Self| (i128::from(state.last_value), state.is_called);
        match self.ascends {
            Some(true) => place(self) < place(other),
            Some(false) => (-place(self).0, self.is_called) < (-place(other).0, other.is_called),
            None => false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectsCoverage {
    pub state: CoverageState,
    pub why: String,
}

/// A column, as the stream describes it: its rows are texts in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnRecord {
    pub name: String,
    /// As `format_type` prints it, with the schema of a type that is not built in.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Computed from other columns: neither COPY nor the stream has its values.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_generated: bool,
}

/// The settings of the session that read the rows, where they decide how values are written: by name.
pub type ReadSettings = BTreeMap<String, String>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_between_the_last_exact_position_and_the_next_one() {
        let covers = |to: Option<u64>, from: Option<u64>| {
            let coverage = TableCoverage {
                schema: "public".into(),
                name: "orders".into(),
                oid: 1,
                state: CoverageState::Exact,
                from: from.map(Lsn),
                to: to.map(Lsn),
                why: None,
                is_gone: false,
                renamed: false,
            };
            let covered = (1..=5).filter(|position| coverage.covers(Lsn(*position)));
            covered.collect::<Vec<u64>>()
        };
        assert_eq!(covers(None, None), [1, 2, 3, 4, 5]);
        assert_eq!(covers(Some(2), None), [1, 2]);
        assert_eq!(covers(None, Some(4)), [4, 5]);
        assert_eq!(covers(Some(2), Some(4)), [1, 2, 4, 5]);
        assert_eq!(covers(Some(3), Some(6)), [1, 2, 3]);
    }
}
