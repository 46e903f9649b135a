//! A large table's block in ranges that each hold whole rows and whole chunks, so that one can be
//! read, checked and loaded without the others.

use sha2::{Digest, Sha256};

use crate::format::archive::SealedRange;

/// Digests the ranges as the assembly's bytes pass. The bytes that are gathered are digested when
/// they are flushed, or where a range ends among them.
#[derive(Default)]
pub(super) struct Ranges {
    open: Option<Open>,
    /// By block.
    done: Vec<Vec<SealedRange>>,
}

struct Open {
    offset: u64,
    sha256: Sha256,
    /// How many of the gathered bytes are digested, or are not the range's.
    taken: usize,
    /// Rows and bytes of text in the ranges before.
    before: (u64, u64),
}

impl Open {
    fn at(offset: u64, taken: usize, before: (u64, u64)) -> Self {
        Self {
            offset,
            sha256: Sha256::new(),
            taken,
            before,
        }
    }

    /// What is to be told of the range that ends at `position`; `passed` counts from the block's
    /// beginning.
    fn seal(mut self, passed: (u64, u64), position: u64, gathered: &[u8]) -> SealedRange {
        self.sha256.update(&gathered[self.taken..]);
        SealedRange {
            offset: self.offset,
            length: position - self.offset,
            rows: passed.0 - self.before.0,
            bytes: passed.1 - self.before.1,
            stored_sha256: self.sha256.finalize().into(),
        }
    }
}

impl Ranges {
    /// Chunks begin at `position`, behind so many gathered bytes.
    pub(super) fn begin_block(&mut self, divisible: bool, position: u64, gathered: usize) {
        self.done.push(Vec::new());
        self.open = divisible.then(|| Open::at(position, gathered, (0, 0)));
    }

    /// These went out beside the gathered bytes, of which there are none now.
    pub(super) fn passed(&mut self, bytes: &[u8]) {
        if let Some(open) = &mut self.open {
            open.sha256.update(bytes);
        }
    }

    /// The gathered bytes are about to go out.
    pub(super) fn flushed(&mut self, gathered: &[u8]) {
        if let Some(open) = &mut self.open {
            open.sha256.update(&gathered[open.taken..]);
            open.taken = 0;
        }
    }

    /// A range ends, and the next begins.
    pub(super) fn end(&mut self, rows: u64, bytes: u64, position: u64, gathered: &[u8]) {
        let next = Open::at(position, gathered.len(), (rows, bytes));
        if let (Some(open), Some(done)) = (self.open.replace(next), self.done.last_mut()) {
            done.push(open.seal((rows, bytes), position, gathered));
        }
    }

    /// The last range's rows and bytes are those that the block has more: see [`whole`].
    pub(super) fn end_block(&mut self, position: u64, gathered: &[u8]) {
        if let (Some(open), Some(done)) = (self.open.take(), self.done.last_mut())
            && !done.is_empty()
        {
            let before = open.before;
            done.push(open.seal(before, position, gathered));
        }
    }

    pub(super) fn finish(self) -> Vec<Vec<SealedRange>> {
        self.done
    }
}

/// The ranges of a block that holds so much text.
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
