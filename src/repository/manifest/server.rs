//! The database that was read: its server, the version of pg_dump, and the snapshot.

use serde::{Deserialize, Serialize};

use super::bounded;

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
    /// As PostgreSQL prints it: `0/1A2B3C4`.
    pub lsn: Option<String>,
    pub xmin: u64,
    pub xmax: u64,
    #[serde(deserialize_with = "bounded::list")]
    pub xip: Vec<u64>,
}
