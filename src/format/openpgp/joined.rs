//! A packet's body, joined again from its pieces.

use std::io::{self, Read};
use std::ops::Range;

use super::cut::Cut;
use super::error::MessageError;

/// A part of the body, from the part of the packet that holds it.
pub(super) struct Joined<R> {
    source: R,
    cut: Cut,
    /// What of the body has not been returned.
    left: Range<u64>,
    /// The bytes before the next piece have been read.
    within: bool,
}

impl<R: Read> Joined<R> {
    /// `source` begins with the part's first byte, and gives no byte before it.
    pub fn new(source: R, cut: Cut, part: Range<u64>) -> Self {
        Self {
            source,
            cut,
            left: part,
            within: true,
        }
    }

    /// The whole body: `source` begins with the packet.
    pub fn whole(source: R, cut: Cut) -> Self {
        Self {
            within: false,
            ..Self::new(source, cut, 0..cut.body)
        }
    }

    /// Reads what is between the body's last byte and the packet's end, and returns the source.
    pub fn end(mut self) -> io::Result<R> {
        // An empty last piece has a length too.
        if self.left.is_empty() && !self.within {
            self.header()?;
        }
        Ok(self.source)
    }

    /// A header that is not as it must be moves all bytes after it, so it is an error.
    fn header(&mut self) -> io::Result<()> {
        expect(&mut self.source, &self.cut.header(self.left.start))?;
        self.within = true;
        Ok(())
    }
}

impl<R: Read> Read for Joined<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left.is_empty() || into.is_empty() {
            return Ok(0);
        }
        if !self.within {
            self.header()?;
        }
        let in_piece = self.cut.piece() - (self.left.start & (self.cut.piece() - 1));
        let most = in_piece.min(self.left.end - self.left.start);
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(into.len());
        let count = self.source.read(&mut into[..most])?;
        if count == 0 {
            return Err(MessageError::Cut.into());
        }
        self.left.start += count as u64;
        self.within = count as u64 != in_piece;
        Ok(count)
    }
}

/// Reads these bytes.
pub(super) fn expect(source: &mut impl Read, bytes: &[u8]) -> io::Result<()> {
    let mut found = vec![0; bytes.len()];
    source.read_exact(&mut found)?;
    match found == bytes {
        true => Ok(()),
        false => Err(MessageError::Pieces.into()),
    }
}
