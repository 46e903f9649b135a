//! Reads stored blocks, each at the place that the table of contents names, so that a damaged one does not hide the
//! next.

use std::io::Read;
use std::ops::Range;

use super::{ArchiveError, BlockSink, Head, Input, read_block};

/// Reads blocks from a part of an archive, in ascending order.
pub struct Blocks<R> {
    input: Input<Stretch<R>>,
}

/// A source that ends where the current block ends.
struct Stretch<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Stretch<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let room = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.inner.read(&mut buffer[..room])?;
        self.left -= count as u64;
        Ok(count)
    }
}

impl<R: Read> Blocks<R> {
    /// `source` starts at `position` of the archive.
    pub fn new(source: R, position: u64) -> Self {
        let stretch = Stretch { inner: source, left: 0 };
        Self {
            input: Input::at(stretch, position),
        }
    }

    /// Reads the block of the entry `index`, which is at `place`, and nothing else. After an error the next block can
    /// still be read, unless the source itself has failed ([`ArchiveError::Io`]).
    pub fn read(
        &mut self,
        head: &Head,
        index: usize,
        place: &Range<u64>,
        sink: &mut impl BlockSink,
    ) -> Result<(), ArchiveError> {
        self.pass_over(place.start)?;
        self.end_at(place.end);
        let read = read_block(&mut self.input, head, index, sink).and_then(|()| {
            if self.input.available()?.is_empty() {
                Ok(())
            } else {
                Err(self.input.malformed("the block ends before the next one begins"))
            }
        });
        if !matches!(read, Err(ArchiveError::Io(_))) {
            self.pass_over(place.end)?;
        }
        read
    }

    /// Skips all bytes before `position`.
    pub fn pass_over(&mut self, position: u64) -> Result<(), ArchiveError> {
        self.end_at(position);
        loop {
            let count = self.input.available()?.len();
            if count == 0 {
                return Ok(());
            }
            self.input.consume(count);
        }
    }

    fn end_at(&mut self, position: u64) {
        let ahead = self.input.position() + self.input.buffered();
        self.input.source_mut().left = position.saturating_sub(ahead);
    }
}
