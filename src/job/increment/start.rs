//! Where a round begins.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::standing::{Full, Last};
use crate::format::Lsn;
use crate::repository::backup_id::BackupId;
use crate::repository::manifest::StreamBeginning;
use crate::repository::seen_catalog::SeenCatalog;

pub(super) struct Start {
    pub stream: String,
    pub from: Lsn,
    /// The increment that ends there. `None`: the round makes the first one of a stream.
    pub predecessor: Option<BackupId>,
    pub settled: Option<Lsn>,
    pub settled_xid: Option<u64>,
    pub newest_xid: Option<u64>,
    pub seen_to: Option<Timestamp>,
    pub catalog: Option<SeenCatalog>,
    /// Tables whose changes were not published for a moment since then.
    pub interrupted: BTreeSet<u32>,
}

impl Start {
    pub fn after(last: Last) -> Self {
        let Last { id, stream, catalog } = last;
        Self {
            stream: stream.id,
            from: stream.to,
            predecessor: Some(id),
            settled: stream.settled,
            settled_xid: stream.settled_xid,
            newest_xid: stream.newest_xid,
            seen_to: Some(stream.seen_to),
            catalog,
            interrupted: BTreeSet::new(),
        }
    }

    pub fn first(slot: &str, from: Lsn, beginning: &StreamBeginning, full: Full) -> Self {
        Self {
            stream: format!("{slot}@{from}"),
            from,
            predecessor: None,
            settled: Some(beginning.from),
            settled_xid: Some(beginning.xid),
            newest_xid: None,
            seen_to: None,
            catalog: full.catalog,
            interrupted: BTreeSet::new(),
        }
    }
}
