//! Writes blocks as pg_dump -Z0 does, for a pg_restore that reads them from a pipe.

use std::io::Write;

use super::{ArchiveError, BlockSink, Head, Layout};

/// A [`BlockSink`] that writes an archive without compression. It writes a block's end only when its caller ends the
/// block: without the end the archive is cut, and pg_restore commits nothing of that block.
pub struct Writer<'a, W> {
    head: &'a Head,
    layout: Layout,
    out: W,
    frame: Vec<u8>,
}

impl<'a, W: Write> Writer<'a, W> {
    /// Header and table of contents come first.
    pub fn new(head: &'a Head, mut out: W) -> Result<Self, ArchiveError> {
        out.write_all(&head.announcing(super::BlockCompression::None, 0))?;
        Ok(Self {
            head,
            layout: Layout {
                int_size: head.int_size,
            },
            out,
            frame: Vec::with_capacity(32),
        })
    }

    pub fn flush(&mut self) -> Result<(), ArchiveError> {
        Ok(self.out.flush()?)
    }

    fn write_frame(&mut self, write: impl FnOnce(Layout, &mut Vec<u8>)) -> Result<(), ArchiveError> {
        self.frame.clear();
        write(self.layout, &mut self.frame);
        Ok(self.out.write_all(&self.frame)?)
    }
}

impl<W: Write> BlockSink for Writer<'_, W> {
    fn begin(&mut self, index: usize) -> Result<(), ArchiveError> {
        let entry = &self.head.data[index];
        let (kind, dump_id) = (entry.block_kind(), entry.dump_id);
        self.write_frame(|layout, out| layout.begin_block(kind, dump_id, out))
    }

    fn begin_object(&mut self, oid: i64) -> Result<(), ArchiveError> {
        self.write_frame(|layout, out| layout.begin_object(oid, out))
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.write_frame(|layout, out| layout.chunk(bytes.len(), out))?;
        Ok(self.out.write_all(bytes)?)
    }

    fn end_object(&mut self) -> Result<(), ArchiveError> {
        self.write_frame(Layout::end)
    }

    fn end(&mut self, _at: u64) -> Result<(), ArchiveError> {
        // Ends the chunks of a table, or the list of large objects.
        self.write_frame(Layout::end)
    }
}
