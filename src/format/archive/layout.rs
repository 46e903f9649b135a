//! How pgstow frames the archive's pieces when it writes them.

use super::input::encode_int;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    Table,
    LargeObjects,
}

/// Writes the framing around content into `out`; the caller appends the content itself.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    pub int_size: usize,
}

impl Layout {
    pub fn begin_block(self, kind: BlockKind, dump_id: i64, out: &mut Vec<u8>) {
        out.push(match kind {
            BlockKind::Table => 1,
            BlockKind::LargeObjects => 3,
        });
        self.int(dump_id, out);
    }

    /// How many bytes [`Layout::begin_block`] writes.
    pub fn block_header(self) -> u64 {
        2 + self.int_size as u64
    }

    /// How many bytes [`Layout::end`] writes.
    pub fn terminator(self) -> u64 {
        1 + self.int_size as u64
    }

    /// `oid` as pgstow read it: negative above 2^31.
    pub fn begin_object(self, oid: i64, out: &mut Vec<u8>) {
        self.int(oid, out);
    }

    /// A chunk's length. It must not be zero, because zero is the terminator.
    pub fn chunk(self, length: usize, out: &mut Vec<u8>) {
        assert!(length > 0, "a chunk of length zero would end its stream");
        self.int(length as i64, out);
    }

    /// Ends a stream of chunks, or a block of large objects.
    pub fn end(self, out: &mut Vec<u8>) {
        self.int(0, out);
    }

    fn int(self, value: i64, out: &mut Vec<u8>) {
        encode_int(value, self.int_size, out);
    }
}
