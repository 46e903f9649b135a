//! Some rows of a table, passed on as a whole table.

use super::digest::{END_OF_COPY, TextCount};
use super::{ArchiveError, BlockSink};
use crate::units::count;

/// A [`BlockSink`] for whole rows of one table, which it passes on as a block of their own. That
/// block ends, with COPY's end, only if the rows are as many as the manifest says.
pub struct PartCheck<S> {
    inner: S,
    rows: u64,
    bytes: u64,
    /// Whether COPY's end comes with the rows, because they are the table's last rows.
    ends_itself: bool,
    count: TextCount,
    last_byte: Option<u8>,
}

impl<S: BlockSink> PartCheck<S> {
    pub fn new(rows: u64, bytes: u64, ends_itself: bool, inner: S) -> Self {
        Self {
            inner,
            rows,
            bytes,
            ends_itself,
            count: TextCount::default(),
            last_byte: None,
        }
    }

    pub fn inner(&mut self) -> &mut S {
        &mut self.inner
    }
}

impl<S: BlockSink> BlockSink for PartCheck<S> {
    fn begin(&mut self, index: usize) -> Result<(), ArchiveError> {
        self.count = TextCount::default();
        self.inner.begin(index)
    }

    fn begin_object(&mut self, _oid: i64) -> Result<(), ArchiveError> {
        Err(ArchiveError::Content("it holds large objects, not rows".into()))
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.count.update(bytes, |_| {});
        self.last_byte = bytes.last().copied().or(self.last_byte);
        self.inner.data(bytes)
    }

    fn end_object(&mut self) -> Result<(), ArchiveError> {
        Ok(())
    }

    fn end(&mut self, at: u64) -> Result<(), ArchiveError> {
        if !self.ends_itself {
            if self.last_byte.is_some_and(|byte| byte != b'\n') {
                return Err(ArchiveError::Content("its part ends within a row".into()));
            }
            self.data(END_OF_COPY)?;
        }
        let found = self
            .count
            .finish()
            .ok_or_else(|| ArchiveError::Content("it does not end as COPY ends".into()))?;
        if found != (self.rows, self.bytes) {
            return Err(ArchiveError::Content(format!(
                "its part holds {} in {}, the manifest says {} in {}",
                count(found.0, "row"),
                count(found.1, "byte"),
                self.rows,
                self.bytes
            )));
        }
        self.inner.end(at)
    }
}
