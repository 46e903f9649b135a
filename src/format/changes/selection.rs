//! What a reader wants of a file.

use std::collections::BTreeSet;

use jiff::Timestamp;

/// Which messages are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only changes of these tables. The other messages of a transaction are read as well. `None`: of all tables.
    pub relids: Option<BTreeSet<u32>>,
    /// Only transactions with a commit time not before this.
    pub since: Option<Timestamp>,
    /// Only transactions with a commit time not after this.
    pub until: Option<Timestamp>,
}

impl Selection {
    pub(super) fn wants_time(&self, time: Timestamp) -> bool {
        self.since.is_none_or(|since| since <= time) && self.until.is_none_or(|until| time <= until)
    }
}
