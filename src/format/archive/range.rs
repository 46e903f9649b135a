//! Ranges of a large table's block that can be read alone, and the check that their stored bytes are those that the
//! backup wrote.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::iter::Peekable;
use std::vec::IntoIter;

use sha2::{Digest, Sha256};

use crate::error::{Code, Error};

/// Some of a table's chunks: their place in the archive and their content. Ranges begin and end between two chunks and
/// between two rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedRange {
    pub offset: u64,
    pub length: u64,
    /// Rows of the COPY text in it, without the terminator; `bytes` likewise.
    pub rows: u64,
    pub bytes: u64,
    /// The SHA-256 of the stored bytes.
    pub stored_sha256: [u8; 32],
}

impl SealedRange {
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// Digests stored bytes as they pass, range by range.
pub struct RangeCheck {
    /// Ascending. The check skips bytes between them.
    ranges: Peekable<IntoIter<SealedRange>>,
    /// Ranges that have begun and not ended; several only if they share bytes.
    open: VecDeque<(SealedRange, Sha256)>,
    position: u64,
}

/// A range whose stored bytes differ from those that the backup wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spoilt {
    pub range: SealedRange,
    pub found: [u8; 32],
}

impl std::fmt::Display for Spoilt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the bytes {} to {} have the SHA-256 {}, the manifest says {}",
            self.range.offset,
            self.range.end(),
            hex::encode(self.found),
            hex::encode(self.range.stored_sha256)
        )
    }
}

impl RangeCheck {
    /// The first byte that passes is at `position`.
    pub fn new(position: u64, ranges: Vec<SealedRange>) -> Self {
        Self {
            ranges: ranges.into_iter().peekable(),
            open: VecDeque::new(),
            position,
        }
    }

    pub fn update(&mut self, mut bytes: &[u8], mut spoilt: impl FnMut(Spoilt)) {
        loop {
            while let Some(range) = self.ranges.next_if(|range| range.offset <= self.position) {
                self.open.push_back((range, Sha256::new()));
            }
            while let Some((range, sha256)) = self.ended() {
                let found: [u8; 32] = sha256.finalize().into();
                if found != range.stored_sha256 {
                    spoilt(Spoilt { range, found });
                }
            }
            let next = self.ranges.peek().map(|range| range.offset);
            let end = self.open.front().map(|(range, _)| range.end());
            let Some(until) = next.into_iter().chain(end).min().filter(|_| !bytes.is_empty()) else {
                self.position += bytes.len() as u64;
                return;
            };
            let length = usize::try_from(until - self.position).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(length.min(bytes.len()));
            for (_, sha256) in &mut self.open {
                sha256.update(now);
            }
            self.position += now.len() as u64;
            bytes = later;
        }
    }

    fn ended(&mut self) -> Option<(SealedRange, Sha256)> {
        let (first, _) = self.open.front()?;
        if first.end() > self.position {
            return None;
        }
        self.open.pop_front()
    }
}

/// Reads stored bytes, starting with the first range. At the end of a damaged range it fails, and does not return the
/// range's last bytes.
pub struct Sealed<R> {
    inner: R,
    check: RangeCheck,
    /// The name of the table, for the error.
    name: String,
}

impl<R: Read> Sealed<R> {
    pub fn new(inner: R, ranges: Vec<SealedRange>, name: String) -> Self {
        let position = ranges.first().map_or(0, |range| range.offset);
        Self {
            inner,
            check: RangeCheck::new(position, ranges),
            name,
        }
    }
}

impl<R: Read> Read for Sealed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let mut first = None;
        self.check.update(&buffer[..count], |spoilt| {
            first.get_or_insert(spoilt);
        });
        match first {
            None => Ok(count),
            Some(spoilt) => Err(io::Error::other(Error::new(
                Code::Integrity,
                format!("{}: {spoilt}", self.name),
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(offset: u64, content: &[u8]) -> SealedRange {
        SealedRange {
            offset,
            length: content.len() as u64,
            rows: 0,
            bytes: 0,
            stored_sha256: Sha256::digest(content).into(),
        }
    }

    fn spoilt(ranges: Vec<SealedRange>, bytes: &[u8], slice: usize) -> Vec<u64> {
        let mut check = RangeCheck::new(100, ranges);
        let mut offsets = Vec::new();
        for slice in bytes.chunks(slice) {
            check.update(slice, |spoilt| offsets.push(spoilt.range.offset));
        }
        offsets
    }

    #[test]
    fn every_range_is_held_against_its_digest_however_the_bytes_come() {
        let bytes = b"head-one-two-tail";
        let ranges = vec![range(105, b"one-"), range(109, b"two"), range(113, b"tail")];
        let mut wrong = ranges.clone();
        wrong[1].stored_sha256[0] ^= 1;
        for slice in 1..=bytes.len() {
            assert_eq!(spoilt(ranges.clone(), bytes, slice), [0_u64; 0], "{slice}");
            assert_eq!(spoilt(wrong.clone(), bytes, slice), [109], "{slice}");
        }
    }

    #[test]
    fn ranges_that_share_bytes_are_each_held_against_their_own_digest() {
        let bytes = b"head-one-two-tail";
        let ranges = vec![range(105, b"one-two"), range(108, b"-two-ta"), range(112, b"-tail")];
        for slice in 1..=bytes.len() {
            assert_eq!(spoilt(ranges.clone(), bytes, slice), [0_u64; 0], "{slice}");
            for (flipped, both) in [(6, vec![105_u64]), (10, vec![105, 108]), (13, vec![108, 112])] {
                let mut changed = *bytes;
                changed[flipped] ^= 1;
                assert_eq!(spoilt(ranges.clone(), &changed, slice), both, "{flipped} by {slice}");
            }
        }
    }

    #[test]
    fn the_end_of_a_spoilt_range_is_never_given() {
        let ranges = vec![range(7, b"one"), range(10, b"two")];
        let mut whole = Vec::new();
        Sealed::new(&b"onetwo"[..], ranges.clone(), "t".into())
            .read_to_end(&mut whole)
            .unwrap();
        assert_eq!(whole, b"onetwo");
        let mut seen = Vec::new();
        let error = Sealed::new(&b"onetwO"[..], ranges, "t".into())
            .read_to_end(&mut seen)
            .unwrap_err();
        assert!(seen.len() < 6);
        assert_eq!(error.downcast::<Error>().unwrap().code(), Code::Integrity);
    }
}
