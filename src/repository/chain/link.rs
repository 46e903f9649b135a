//! An increment as a link, and the links that are joined.

use jiff::{SignedDuration, Timestamp};

use super::{Base, Break, Moment};
use crate::format::Lsn;
use crate::repository::backup_id::BackupId;
use crate::repository::manifest::Stream;

/// PostgreSQL's clock has this resolution.
const TICK: SignedDuration = SignedDuration::from_micros(1);

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
        let until = stream.last_commit.map_or(stream.seen_to, |last| last.max(stream.seen_to));
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

/// The largest id of a transaction up to each link, never smaller than the one before; the largest possible where it is
/// not known. A link's own value counts for all links before it too.
fn newest_xids(links: &[Link], is_beginning: bool) -> Vec<u64> {
    let mut newest: Vec<Option<u64>> = Vec::with_capacity(links.len());
    // Before the first of a stream there is no transaction.
    let mut before = is_beginning.then_some(0);
    for link in links {
        let known = match (link.stream.newest_xid, link.stream.transactions) {
            (Some(own), _) => Some(own.max(before.unwrap_or_default())),
            (None, 0) => before,
            (None, _) => None,
        };
        newest.push(known);
        before = known;
    }
    let mut after = u64::MAX;
    for newest in newest.iter_mut().rev() {
        after = newest.unwrap_or(after).min(after);
        *newest = Some(after);
    }
    newest.into_iter().map(|newest| newest.unwrap_or(u64::MAX)).collect()
}

/// Links without a hole between them, oldest first; never empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    links: Vec<Link>,
    /// Why the run begins here.
    begins: Break,
    /// The full backups from which its changes lead on, in the order of their positions.
    pub(super) bases: Vec<Base>,
}

impl Run {
    pub(super) fn new(mut links: Vec<Link>, begins: Break) -> Self {
        // A clock that was set back makes no moment earlier than one that the run has passed.
        for at in 1..links.len() {
            let (before, link) = (links[at - 1].until, &mut links[at].until);
            *link = before.max(*link);
        }
        let is_beginning = begins == Break::Beginning;
        let newest = newest_xids(&links, is_beginning);
        for (link, newest) in links.iter_mut().zip(newest) {
            link.newest_xid = newest;
        }
        Self {
            links,
            begins,
            bases: Vec::new(),
        }
    }

    pub fn links(&self) -> &[Link] {
        &self.links
    }

    pub fn first(&self) -> &Link {
        &self.links[0]
    }

    pub fn last(&self) -> &Link {
        &self.links[self.links.len() - 1]
    }

    pub fn begins(&self) -> &Break {
        &self.begins
    }

    /// The full backups that can be its base, in the order of their positions.
    pub fn bases(&self) -> &[Base] {
        &self.bases
    }

    pub fn bytes(&self) -> u64 {
        self.links.iter().map(|link| link.bytes).sum()
    }

    /// The last moment that it can restore, if it has a base.
    pub fn end(&self) -> Moment {
        let last = self.last();
        Moment {
            lsn: last.stream.to,
            // A transaction that was committed at exactly this moment may be in the next increment.
            time: last.until.checked_sub(TICK).unwrap_or(Timestamp::MIN),
        }
    }

    /// The first link that reaches the position.
    pub(crate) fn reaching(&self, lsn: Lsn) -> Option<usize> {
        let at = self.links.partition_point(|link| link.stream.to < lsn);
        (at < self.links.len()).then_some(at)
    }

    /// The first link that holds everything that was committed at this moment and before.
    pub(crate) fn covering(&self, time: Timestamp) -> Option<usize> {
        let at = self.links.partition_point(|link| link.until <= time);
        (at < self.links.len()).then_some(at)
    }

    /// Whether both have the same source at the same time in its life.
    pub(crate) fn has_source_of(&self, other: &Run) -> bool {
        let of = |run: &Run| {
            let stream = &run.links[0].stream;
            (
                stream.system_identifier.clone(),
                stream.timeline,
                stream.database_oid,
            )
        };
        of(self) == of(other)
    }

    pub(super) fn order(&self) -> (Timestamp, &BackupId) {
        (self.last().until, &self.last().id)
    }
}
