//! Where a moment lies in the server's log.

use crate::format::Lsn;

/// Between the two positions the stream has no commit, so the rows that it leads to are those of any position there. But
/// a change that is not in the stream, of a definition for example, may lie there, before the moment or after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Every transaction before it belongs to the moment.
    pub earliest: Lsn,
    /// No transaction from there on belongs to it.
    pub latest: Lsn,
}

impl Place {
    /// The moment of a position.
    pub fn at(position: Lsn) -> Self {
        Self {
            earliest: position,
            latest: position,
        }
    }
}
