//! Brings the rows of blocks to a later moment, on their way to a server.

use std::collections::HashMap;
use std::sync::Arc;

use super::digest::END_OF_COPY;
use super::{ArchiveError, BlockSink};
use crate::format::fold::{FoldError, Net, Rewriter};

/// Rows are passed on in batches of about this size.
const BATCH: usize = 256 << 10;

/// A [`BlockSink`] for content that rewrites the rows of changed tables, and passes all other content on as it is. If
/// the changes do not fit the rows, it fails before the block ends.
pub struct Changing<'a, S> {
    /// The net effect on each changed table, by the index of its block.
    changes: &'a HashMap<usize, Arc<Net>>,
    inner: S,
    current: Option<Current>,
}

struct Current {
    /// `None` after the last row.
    rewriter: Option<Rewriter>,
    /// The start of a row that continues in the next piece.
    begun: Vec<u8>,
    out: Vec<u8>,
}

impl<'a, S> Changing<'a, S> {
    pub fn new(changes: &'a HashMap<usize, Arc<Net>>, inner: S) -> Self {
        Self {
            changes,
            inner,
            current: None,
        }
    }

    pub fn inner(&mut self) -> &mut S {
        &mut self.inner
    }
}

impl Current {
    fn take(&mut self, mut text: &[u8], inner: &mut impl BlockSink) -> Result<(), ArchiveError> {
        while let Some(end) = memchr::memchr(b'\n', text) {
            let (line, rest) = (&text[..end], &text[end + 1..]);
            if self.begun.is_empty() {
                self.line(line, inner)?;
            } else {
                let mut begun = std::mem::take(&mut self.begun);
                begun.extend_from_slice(line);
                self.line(&begun, inner)?;
                begun.clear();
                self.begun = begun;
            }
            text = rest;
        }
        self.begun.extend_from_slice(text);
        Ok(())
    }

    fn line(&mut self, line: &[u8], inner: &mut impl BlockSink) -> Result<(), ArchiveError> {
        let Some(rewriter) = &mut self.rewriter else {
            // What follows the end of the rows; `BlockCheck` has compared it.
            return Ok(());
        };
        if line == &END_OF_COPY[..2] {
            let Some(rewriter) = self.rewriter.take() else {
                return Ok(());
            };
            rewriter.finish::<ArchiveError>(&mut self.out, |out| passed_on(out, inner))?;
            self.out.extend_from_slice(END_OF_COPY);
            inner.data(&self.out)?;
            self.out.clear();
            return Ok(());
        }
        rewriter.row(line, &mut self.out)?;
        passed_on(&mut self.out, inner)
    }
}

fn passed_on(out: &mut Vec<u8>, inner: &mut impl BlockSink) -> Result<(), ArchiveError> {
    if out.len() >= BATCH {
        inner.data(out)?;
        out.clear();
    }
    Ok(())
}

impl From<FoldError> for ArchiveError {
    fn from(error: FoldError) -> Self {
        match error {
            FoldError::Io(error) => Self::Io(error),
            other => Self::Content(other.to_string()),
        }
    }
}

impl<S: BlockSink> BlockSink for Changing<'_, S> {
    fn begin(&mut self, index: usize) -> Result<(), ArchiveError> {
        self.current = self.changes.get(&index).map(|net| Current {
            rewriter: Some(Rewriter::new(Arc::clone(net))),
            begun: Vec::new(),
            out: Vec::with_capacity(BATCH),
        });
        self.inner.begin(index)
    }

    fn begin_object(&mut self, oid: i64) -> Result<(), ArchiveError> {
        self.inner.begin_object(oid)
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        match &mut self.current {
            None => self.inner.data(bytes),
            Some(current) => current.take(bytes, &mut self.inner),
        }
    }

    fn end_object(&mut self) -> Result<(), ArchiveError> {
        self.inner.end_object()
    }

    fn end(&mut self, at: u64) -> Result<(), ArchiveError> {
        match self.current.take() {
            Some(Current { rewriter: Some(_), .. }) => {
                Err(ArchiveError::Content("it does not end as COPY ends".into()))
            }
            _ => self.inner.end(at),
        }
    }
}

/// A [`BlockSink`] for a block of another archive, which is the block `index` for the next sink.
pub struct Renumbered<S> {
    pub index: usize,
    pub inner: S,
}

impl<S: BlockSink> BlockSink for Renumbered<S> {
    fn begin(&mut self, _index: usize) -> Result<(), ArchiveError> {
        self.inner.begin(self.index)
    }
    fn begin_object(&mut self, oid: i64) -> Result<(), ArchiveError> {
        self.inner.begin_object(oid)
    }
    fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.inner.data(bytes)
    }
    fn end_object(&mut self) -> Result<(), ArchiveError> {
        self.inner.end_object()
    }
    fn end(&mut self, at: u64) -> Result<(), ArchiveError> {
        self.inner.end(at)
    }
}

/// Gives the sink a table without rows.
pub fn empty_block(index: usize, sink: &mut impl BlockSink) -> Result<(), ArchiveError> {
    sink.begin(index)?;
    sink.data(END_OF_COPY)?;
    sink.end(0)
}

impl<S: BlockSink> BlockSink for &mut S {
    fn begin(&mut self, index: usize) -> Result<(), ArchiveError> {
        (**self).begin(index)
    }
    fn begin_object(&mut self, oid: i64) -> Result<(), ArchiveError> {
        (**self).begin_object(oid)
    }
    fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        (**self).data(bytes)
    }
    fn end_object(&mut self) -> Result<(), ArchiveError> {
        (**self).end_object()
    }
    fn end(&mut self, at: u64) -> Result<(), ArchiveError> {
        (**self).end(at)
    }
}
