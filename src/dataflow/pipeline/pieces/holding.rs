//! The text of a table that may be the same as in an earlier archive: it is held until its end, and then compared.

use super::{Awaited, Pieces};
use crate::dataflow::pipeline::framing::Ordered;
use crate::format::archive::{ArchiveError, BlockDigest, BlockKind, BlockSink, ContentDigest, END_OF_COPY};

impl Pieces<'_> {
    /// The blocks before `index` that were not delivered because they are known to be the same.
    pub(super) fn pass_over(&mut self, index: usize) -> Result<(), ArchiveError> {
        while self.digests.len() < index {
            let block = &self.blocks[self.digests.len()];
            let Some(earlier) = block.earlier.as_ref().filter(|_| block.is_proved) else {
                return Ok(());
            };
            let digest = earlier.digest.clone();
            self.leave_elsewhere(digest)?;
        }
        Ok(())
    }

    fn leave_elsewhere(&mut self, digest: BlockDigest) -> Result<(), ArchiveError> {
        self.digests.push(digest);
        self.elsewhere.push(true);
        self.cutter.send(Ordered::Elsewhere)
    }

    /// The current block is stored here.
    pub(super) fn open(&mut self) -> Result<(), ArchiveError> {
        let Awaited { kind, dump_id, .. } = self.blocks[self.digests.len()];
        let mut frame = Vec::with_capacity(16);
        self.layout.begin_block(kind, dump_id, &mut frame);
        self.cutter.send(Ordered::BeginBlock(frame))?;
        self.in_range = 0;
        self.ranged = false;
        self.cutter.begin_stream();
        Ok(())
    }

    /// Keeps the bytes, if the text may still be that of the earlier block. If not, what was kept goes on its way.
    pub(super) fn hold(&mut self, mut held: Vec<u8>, bytes: &[u8]) -> Result<(), ArchiveError> {
        let earlier = self.blocks[self.digests.len()].earlier.as_ref();
        let most = earlier.map_or(0, |earlier| earlier.digest.bytes) + END_OF_COPY.len() as u64;
        if (held.len() + bytes.len()) as u64 <= most {
            held.extend_from_slice(bytes);
            self.held = Some(held);
            return Ok(());
        }
        self.open()?;
        self.data(&held)?;
        self.data(bytes)
    }

    /// The block ends: whether its text is that of the earlier block. If not, it goes on its way.
    pub(super) fn compare(&mut self, held: &[u8]) -> Result<bool, ArchiveError> {
        let mut digest = ContentDigest::of(BlockKind::Table);
        digest.update(held);
        let earlier = self.blocks[self.digests.len()].earlier.as_ref();
        if let (Some(digest), Some(earlier)) = (digest.finish(), earlier)
            && earlier.is(&digest)
        {
            self.digesting = None;
            self.leave_elsewhere(digest)?;
            return Ok(true);
        }
        self.open()?;
        self.data(held)?;
        Ok(false)
    }
}
