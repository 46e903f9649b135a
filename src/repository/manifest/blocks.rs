//! What the manifest says of each block of the archive, or of a plain script's rows.

use serde::{Deserialize, Serialize};

use crate::dataflow::read_by::ReadBy;

use super::{ColumnRecord, FileRange};

/// The data of one table. `bytes` and `sha256` are those of its COPY text before compression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRecord {
    pub schema: String,
    pub name: String,
    /// The table's owner, from the archive's table of contents or from the header in the script.
    pub owner: Option<String>,
    /// The table's OID in `pg_class`. Schema 1 and scripts do not have it.
    pub oid: Option<u32>,
    /// Its columns, in order, as they were when it was read. Empty: they were not recorded.
    pub columns: Vec<ColumnRecord>,
    pub rows: u64,
    pub bytes: u64,
    pub sha256: String,
    /// The place of its block in the archive; in a plain script, of its rows.
    pub place: FileRange,
    /// How its rows were read.
    pub read: ReadBy,
    /// The parts of the block, in order and without gaps, if the table is large and its block can be read from the
    /// middle.
    pub ranges: Vec<RangeRecord>,
}

/// Whole rows of a table in whole chunks of its block: a reader needs no other range. `rows` and `bytes` count the
/// COPY text; `offset` is in the block's data file; the digest is that of the stored bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeRecord {
    pub rows: u64,
    pub bytes: u64,
    pub offset: u64,
    pub length: u64,
    pub stored_sha256: String,
}

/// A plain script, decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptRecord {
    pub bytes: u64,
    /// Parts that hold no data, each with one of pg_dump's headers.
    pub definitions: u64,
}

/// One block of large objects, measured like a table's. A plain script has no `dump_id` for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LargeObjectsRecord {
    pub dump_id: i64,
    pub count: u64,
    pub bytes: u64,
    pub sha256: String,
    /// The place of its block in the archive; `None` in a plain script.
    pub place: Option<FileRange>,
}
