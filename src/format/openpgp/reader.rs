//! Reads a part of the content from the stored bytes that hold it.

use std::io::{self, Read};
use std::ops::Range;

use super::cfb::{BLOCK, Decrypted};
use super::joined::Joined;
use super::layout::{LITERAL_START, Layout, VERSION};
use super::session_key::SessionKey;

/// A part of the content. A wrong byte of the stored ones becomes a wrong byte of the content, without an error: the
/// caller has compared their digest.
pub struct PartReader<R>(Joined<Decrypted<Joined<R>>>);

impl<R: Read> PartReader<R> {
    /// `stored` gives the bytes of [`Layout::stored`]. The part is not empty, and ends within the content.
    pub fn new(layout: &Layout, key: &SessionKey, part: &Range<u64>, stored: R) -> Self {
        let encrypted = layout.encrypted(part);
        let skip = layout.encrypted_at(part.start) % BLOCK as u64;
        let body = encrypted.start + VERSION..encrypted.end + VERSION;
        let decrypted = Decrypted::after_block(Joined::new(stored, layout.outer(), body), key, skip as usize);
        let start = LITERAL_START.len() as u64;
        Self(Joined::new(
            decrypted,
            layout.inner(),
            start + part.start..start + part.end,
        ))
    }
}

impl<R: Read> Read for PartReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}
