//! The links that are joined.

use jiff::{SignedDuration, Timestamp};

use super::{Base, Break, Link, Moment, NotABase};
use crate::format::Lsn;
use crate::repository::backup_id::BackupId;

/// PostgreSQL's clock has this resolution.
const TICK: SignedDuration = SignedDuration::from_micros(1);

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
    /// The full backups that are not, oldest first.
    pub(super) refused: Vec<(BackupId, NotABase)>,
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
            refused: Vec::new(),
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

    /// The full backups that cannot be its base, with the reason, oldest first.
    pub fn refused(&self) -> &[(BackupId, NotABase)] {
        &self.refused
    }

    /// Why it has no base: the newest full backup, and its reason.
    pub fn no_base(&self) -> Option<&(BackupId, NotABase)> {
        self.refused.last().filter(|_| self.bases.is_empty())
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
            (stream.system_identifier.clone(), stream.timeline, stream.database_oid)
        };
        of(self) == of(other)
    }

    /// The increment before its first, if there should be one that could be joined.
    pub fn hole(&self) -> Option<&BackupId> {
        match &self.begins {
            Break::Beginning => None,
            Break::Missing(id)
            | Break::Unusable(id, _)
            | Break::Apart { id, .. }
            | Break::OtherStream(id)
            | Break::Forked(id) => Some(id),
            Break::Backwards => Some(&self.links[0].id),
        }
    }

    /// Whether both are parts of one stream.
    pub(crate) fn has_stream_of(&self, other: &Run) -> bool {
        self.has_source_of(other) && self.links[0].stream.id == other.links[0].stream.id
    }

    pub(super) fn order(&self) -> (Timestamp, &BackupId) {
        (self.last().until, &self.last().id)
    }
}
