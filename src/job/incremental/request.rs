//! The request about a stream of increments.

use crate::error::{Error, Result};
use crate::postgres::SlotName;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IncrementalRequest {
    Start {
        /// The slot may keep any amount of log.
        accept_unbounded_wal: bool,
        /// Only print what the owner of the tables has to run.
        print_sql: bool,
    },
    Stop {
        /// The stream, where a database has several. `None`: the stream of the primary store, or the only one.
        slot: Option<SlotName>,
    },
    Status,
}

impl IncrementalRequest {
    /// A stop of this slot, if one is named.
    pub fn stop(slot: Option<&str>) -> Result<Self> {
        let named = |name: &str| {
            SlotName::parse(name).ok_or_else(|| {
                Error::config(format!("--slot: {name:?} is not the name of a slot of pgstow's"))
                    .hint("`pgstow incremental status` shows the names, such as pgstow_0123456789abcdef")
            })
        };
        Ok(Self::Stop {
            slot: slot.map(named).transpose()?,
        })
    }
}
