//! How a table's rows came.

use serde::{Deserialize, Serialize};

/// By whom a table's rows were read. The bytes are the same whichever it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// pg_dump, in its one stream.
    #[default]
    PgDump,
    /// A COPY of ours, of the whole table.
    Copy,
    /// Several of ours, each of some of its pages.
    Ranges,
    /// At least in part the session that holds the locks, because somebody waited for this table's.
    Coordinator,
}
