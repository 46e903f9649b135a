//! How a table's rows were read.

use serde::{Deserialize, Serialize};

/// Which program or session read a table's rows. The bytes are the same in each case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadBy {
    /// pg_dump, in its one stream.
    #[default]
    PgDump,
    /// One COPY by pgstow, of the whole table.
    Copy,
    /// Several COPYs by pgstow, each of some of its pages.
    Ranges,
    /// The session that holds the locks read at least a part, because another session waits for this table's lock.
    Coordinator,
}
