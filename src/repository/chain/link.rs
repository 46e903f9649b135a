//! An increment as a link.

use jiff::Timestamp;

use crate::repository::backup_id::BackupId;
use crate::repository::manifest::Stream;

#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    pub id: BackupId,
    pub stream: Stream,
    /// The size of all its files.
    pub bytes: u64,
    /// On the source's clock: what was committed before this moment is in the run up to here. Never earlier than that
    /// of the link before.
    pub until: Timestamp,
    /// The largest id of a transaction in the stream up to here; the largest possible if it is not known.
    pub newest_xid: u64,
}

impl Link {
    pub fn new(id: BackupId, stream: Stream, bytes: u64) -> Self {
        let until = stream
            .last_commit
            .map_or(stream.seen_to, |last| last.max(stream.seen_to));
        let newest_xid = stream.newest_xid.unwrap_or(u64::MAX);
        Self {
            id,
            stream,
            bytes,
            until,
            newest_xid,
        }
    }
}
