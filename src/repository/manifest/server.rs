//! The database that was read: its server, the version of pg_dump, and the snapshot.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::bounded;
use crate::format::Lsn;
use crate::postgres::Snapshot;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    pub version: String,
    pub version_num: u32,
    pub encoding: String,
    /// The system identifier, if the role may read it. As text: not every JSON reader keeps 64 bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// The database's OID; useful if the system identifier cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_oid: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PgDump {
    pub version: String,
    /// The archive's version, such as `1.16`; `None` for a plain script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_version: Option<String>,
}

/// The exported snapshot that pg_dump read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// As PostgreSQL prints it: `0/1A2B3C4`. Read before the snapshot was taken.
    pub lsn: Option<String>,
    pub xmin: u64,
    pub xmax: u64,
    #[serde(deserialize_with = "bounded::list")]
    pub xip: Vec<u64>,
    /// `None`: an older version did not read it, or the service hides the position of its log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<SnapshotEnd>,
}

/// Where the log was after the snapshot had been taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotEnd {
    /// The commits that the snapshot holds are all at or before this position.
    pub lsn: Lsn,
    /// The source's clock, read after the position: what was committed up to the position was committed before this
    /// moment. `None`: a standby was read, whose clock is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// `None`: a standby was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<u32>,
}

impl SnapshotRecord {
    /// Whether transactions ran that it does not name: a standby keeps them in a place that `pg_current_snapshot` does
    /// not show, so `xip` is empty. What such a transaction changed is not in the rows, although it seems to be.
    pub fn hides_transactions(&self) -> bool {
        hides_transactions(self.end, self.xmin, self.xmax)
    }
}

pub(super) fn hides_transactions(end: Option<SnapshotEnd>, xmin: u64, xmax: u64) -> bool {
    end.is_some_and(|end| end.timeline.is_none()) && xmin < xmax
}

impl From<&Snapshot> for SnapshotRecord {
    fn from(snapshot: &Snapshot) -> Self {
        Self {
            lsn: snapshot.lsn.clone(),
            xmin: snapshot.xmin,
            xmax: snapshot.xmax,
            xip: snapshot.xip.clone(),
            end: snapshot.end.map(|end| SnapshotEnd {
                lsn: end.lsn,
                at: end.at,
                timeline: end.timeline,
            }),
        }
    }
}
