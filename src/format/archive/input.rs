//! The archive's bytes with their positions, and its primitives: Byte, Int, Str.

use std::io::Read;

use super::ArchiveError;

/// One read can take everything that fits into a pipe (1 MiB).
const BUFFER: usize = 1 << 20;

/// A buffered reader that knows its position. While it records, it keeps a copy of the bytes: pgstow also stores the
/// head in a file of its own.
pub struct Input<R> {
    source: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Position in the archive of `buffer[start]`.
    position: u64,
    recording: Option<Vec<u8>>,
}

impl<R: Read> Input<R> {
    pub fn new(source: R) -> Self {
        Self::at(source, 0)
    }

    /// For a source that starts in the middle of an archive, such as a single block.
    pub fn at(source: R, position: u64) -> Self {
        Self {
            source,
            buffer: vec![0; BUFFER].into(),
            start: 0,
            end: 0,
            position,
            recording: None,
        }
    }

    pub fn position(&self) -> u64 {
        self.position
    }

    /// The number of bytes that are read and not consumed.
    pub(super) fn buffered(&self) -> u64 {
        (self.end - self.start) as u64
    }

    pub(super) fn source_mut(&mut self) -> &mut R {
        &mut self.source
    }

    pub(super) fn record(&mut self) {
        self.recording = Some(Vec::new());
    }

    pub(super) fn recorded(&mut self) -> Vec<u8> {
        self.recording.take().unwrap_or_default()
    }

    /// The bytes that are read and not consumed; empty only at the end of the input.
    #[inline]
    pub fn available(&mut self) -> Result<&[u8], ArchiveError> {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            self.fill()?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    /// At least `wanted` bytes in a row (at most the buffer's size), or fewer at the end.
    #[inline]
    pub fn at_least(&mut self, wanted: usize) -> Result<&[u8], ArchiveError> {
        if self.end - self.start < wanted {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            while self.end < wanted && self.fill()? > 0 {}
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn fill(&mut self) -> Result<usize, ArchiveError> {
        loop {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(count) => {
                    self.end += count;
                    return Ok(count);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    #[inline]
    pub fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.end - self.start);
        if let Some(record) = &mut self.recording {
            record.extend_from_slice(&self.buffer[self.start..self.start + count]);
        }
        self.start += count;
        self.position += count as u64;
    }

    pub(super) fn malformed(&self, what: impl Into<String>) -> ArchiveError {
        ArchiveError::Malformed {
            at: self.position,
            what: what.into(),
        }
    }

    pub(super) fn ends_early(&self, missing: impl Into<String>) -> ArchiveError {
        ArchiveError::EndsEarly {
            at: self.position + (self.end - self.start) as u64,
            missing: missing.into(),
        }
    }

    pub(super) fn byte(&mut self, name: &str) -> Result<u8, ArchiveError> {
        let byte = self.available()?.first().copied();
        let Some(byte) = byte else {
            return Err(self.ends_early(format!("{name} is missing")));
        };
        self.consume(1);
        Ok(byte)
    }

    /// A sign byte and `size` bytes of magnitude, least significant first.
    pub(super) fn int(&mut self, size: usize, name: &str) -> Result<i64, ArchiveError> {
        let bytes = self.at_least(1 + size)?;
        if bytes.len() < 1 + size {
            return Err(self.ends_early(format!("{name} is missing")));
        }
        let value = decode_int(&bytes[..=size]);
        let Some(value) = value else {
            return Err(self.malformed(format!("{name} is not an integer")));
        };
        self.consume(1 + size);
        Ok(value)
    }

    /// A length and as many bytes; `None` for NULL. The bytes are collected as they come, so that a wrong length costs
    /// no more memory than the input has bytes.
    pub(super) fn string(&mut self, size: usize, limit: u64, name: &str) -> Result<Option<Vec<u8>>, ArchiveError> {
        let length = self.int(size, name)?;
        if length == -1 {
            return Ok(None);
        }
        let Ok(mut left) = usize::try_from(length) else {
            return Err(self.malformed(format!("{name} has the length {length}")));
        };
        if left as u64 > limit {
            return Err(self.malformed(format!("{name} claims {left} bytes")));
        }
        let mut text = Vec::new();
        while left > 0 {
            let bytes = self.available()?;
            if bytes.is_empty() {
                return Err(self.ends_early(format!("{name} is cut")));
            }
            let count = bytes.len().min(left);
            text.extend_from_slice(&bytes[..count]);
            self.consume(count);
            left -= count;
        }
        Ok(Some(text))
    }
}

/// `None` if the sign is neither 0 nor 1, or the magnitude does not fit.
#[inline]
pub(super) fn decode_int(bytes: &[u8]) -> Option<i64> {
    let magnitude = bytes[1..].iter().rev().try_fold(0i64, |value, byte| {
        value.checked_mul(256).map(|shifted| shifted | i64::from(*byte))
    })?;
    match bytes[0] {
        0 => Some(magnitude),
        1 => Some(-magnitude),
        _ => None,
    }
}

/// The inverse, byte for byte as pg_dump writes it.
pub(super) fn encode_int(value: i64, size: usize, out: &mut Vec<u8>) {
    let magnitude = value.unsigned_abs();
    debug_assert!(size >= 8 || magnitude < 1 << (8 * size));
    out.push(u8::from(value < 0));
    out.extend(&magnitude.to_le_bytes()[..size.min(8)]);
}
