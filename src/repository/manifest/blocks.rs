//! What the manifest says of each block of the archive, or of a plain script's rows.

use serde::{Deserialize, Serialize};

use crate::dataflow::way::Way;

use super::Place;

/// One table's data. `bytes` and `sha256` are of its COPY text before compression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRecord {
    pub schema: String,
    pub name: String,
    /// Of the table, as the archive's table of contents, or the header in the script, says it.
    pub owner: Option<String>,
    /// Of the table in `pg_class`. Schema 1 and a script do not say it.
    pub oid: Option<u32>,
    pub rows: u64,
    pub bytes: u64,
    pub sha256: String,
    /// Of its block in the archive; of a plain script, of its rows.
    pub place: Place,
    /// How its rows were read.
    pub read: Way,
    /// Where the table is large and its block can be taken up in its middle: what it is made of,
    /// in order and without gaps.
    pub ranges: Vec<RangeRecord>,
}

/// Whole rows of a table in whole chunks of its block: they can be read without the others.
/// `rows` and `bytes` are of the COPY text; `offset` is in the block's data file; the digest is of what is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeRecord {
    pub rows: u64,
    pub bytes: u64,
    pub offset: u64,
    pub length: u64,
    pub stored_sha256: String,
}

/// A plain script, as it is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptRecord {
    pub bytes: u64,
    /// Parts that are none of data, each with a header of pg_dump's.
    pub definitions: u64,
}

/// One block of large objects, measured as a table's is. A plain script does not say its `dump_id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LargeObjectsRecord {
    pub dump_id: i64,
    pub count: u64,
    pub bytes: u64,
    pub sha256: String,
    /// Of its block in the archive; none in a plain script.
    pub place: Option<Place>,
}
