//! The head's strings.

use std::io::Read;

use super::super::ArchiveError;
use super::super::input::Input;
use super::super::texts::Meeting;

/// The largest table of contents that pgstow reads.
pub(super) const HEAD_LIMIT: u64 = 1 << 30;

/// Reads strings in their order.
pub(super) struct Strings<'a, R> {
    pub input: &'a mut Input<R>,
    pub int_size: usize,
    pub texts: Meeting<'a>,
}

impl<R: Read> Strings<'_, R> {
    /// Strings are in the database's encoding; reports and the manifest need UTF-8.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, ArchiveError> {
        let texts = self.texts;
        Ok(self.bytes(name)?.map(|bytes| texts.read(bytes)))
    }

    pub fn bytes(&mut self, name: &str) -> Result<Option<Vec<u8>>, ArchiveError> {
        self.input.string(self.int_size, HEAD_LIMIT, name)
    }

    pub fn skip(&mut self, name: &str) -> Result<bool, ArchiveError> {
        Ok(self.input.string(self.int_size, HEAD_LIMIT, name)?.is_some())
    }
}
