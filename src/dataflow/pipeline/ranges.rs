//! Splits a large table's block into ranges that each hold whole rows and whole chunks, so that a restore can read,
//! check and load one range without the others.

use super::passing::Mark;
use super::seal::SealedStretch;
use crate::format::archive::SealedRange;

/// Where the ranges are in the file's content, and what they hold. The seal digests them.
#[derive(Default)]
pub(super) struct Ranges {
    open: Option<Open>,
    /// By block.
    done: Vec<Vec<Framed>>,
}

struct Open {
    offset: u64,
    /// Rows and bytes of text in the ranges before.
    before: (u64, u64),
}

/// A range, before its stored bytes are known.
struct Framed {
    offset: u64,
    length: u64,
    rows: u64,
    bytes: u64,
}

impl Open {
    /// The range that ends at `position`; `passed` counts from the block's beginning.
    fn close(self, passed: (u64, u64), position: u64) -> Framed {
        Framed {
            offset: self.offset,
            length: position - self.offset,
            rows: passed.0 - self.before.0,
            bytes: passed.1 - self.before.1,
        }
    }
}

impl Ranges {
    pub(super) fn begin_block(&mut self) {
        self.done.push(Vec::new());
        self.open = None;
    }

    /// The block's chunks begin at `position`, and there may be many.
    pub(super) fn begin(&mut self, position: u64) {
        self.open = Some(Open {
            offset: position,
            before: (0, 0),
        });
    }

    /// A range ends, and the next begins.
    pub(super) fn end(&mut self, rows: u64, bytes: u64, position: u64) {
        let next = Open {
            offset: position,
            before: (rows, bytes),
        };
        if let (Some(open), Some(done)) = (self.open.replace(next), self.done.last_mut()) {
            done.push(open.close((rows, bytes), position));
        }
    }

    /// The last range has the rest of the block's rows and bytes: see [`whole`]. Returns the mark for the seal, if a
    /// range was open.
    pub(super) fn end_block(&mut self, position: u64) -> Option<Mark> {
        let (open, done) = (self.open.take()?, self.done.last_mut()?);
        if done.is_empty() {
            return Some(Mark::Dropped);
        }
        let before = open.before;
        done.push(open.close(before, position));
        Some(Mark::End)
    }

    /// By block: its ranges, if it has several. `None` if the seal has found more or fewer.
    pub(super) fn sealed(self, stretches: Vec<SealedStretch>) -> Option<Vec<Vec<SealedRange>>> {
        let mut stretches = stretches.into_iter();
        let mut seal = |range: Framed| {
            Some(SealedRange {
                offset: range.offset,
                length: range.length,
                rows: range.rows,
                bytes: range.bytes,
                stored_sha256: stretches.next()?.sha256,
            })
        };
        let blocks = self.done.into_iter();
        let sealed: Option<Vec<Vec<_>>> = blocks.map(|block| block.into_iter().map(&mut seal).collect()).collect();
        sealed.filter(|_| stretches.next().is_none())
    }
}

/// The ranges of a block with this many rows and bytes of text.
pub(super) fn whole(mut ranges: Vec<SealedRange>, rows: u64, bytes: u64) -> Vec<SealedRange> {
    let (before_rows, before_bytes) = ranges
        .iter()
        .fold((0, 0), |sum, range| (sum.0 + range.rows, sum.1 + range.bytes));
    if let Some(last) = ranges.last_mut() {
        last.rows = rows - before_rows;
        last.bytes = bytes - before_bytes;
    }
    ranges
}
