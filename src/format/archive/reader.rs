//! Reads the blocks after the head in one pass, and gives them to a sink slice by slice.

use std::io::Read;

use super::input::decode_int;
use super::{ArchiveError, BlockKind, Head, Input};

/// Receives the blocks' content in archive order. A slice may be one row, a part of a row, or as much as the buffer
/// holds.
pub trait BlockSink {
    /// A block begins. `index` is its place in [`Head::data`].
    fn begin(&mut self, index: usize) -> Result<(), ArchiveError>;
    /// A large object begins inside the block; its OID is the low 32 bits.
    fn begin_object(&mut self, oid: i64) -> Result<(), ArchiveError>;
    fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError>;
    /// The same, from a caller that no longer needs the buffer. More of this block follows.
    fn owned(&mut self, bytes: Vec<u8>) -> Result<(), ArchiveError> {
        self.data(&bytes)
    }
    /// A chunk ends here. [`super::Unpack`] needs to know: a zstd frame may end only there.
    fn end_chunk(&mut self) -> Result<(), ArchiveError> {
        Ok(())
    }
    fn end_object(&mut self) -> Result<(), ArchiveError>;
    /// `at` is the position of the block's last byte plus one.
    fn end(&mut self, at: u64) -> Result<(), ArchiveError>;
}

/// Reads every block that the table of contents names, in its order, and then the end of the input. The format has no
/// end marker: only a missing or cut block shows that an archive ends early. A byte after the last block is not from
/// pg_dump.
pub fn read_blocks<R: Read>(input: &mut Input<R>, head: &Head, sink: &mut impl BlockSink) -> Result<(), ArchiveError> {
    for index in 0..head.data.len() {
        read_block(input, head, index, sink)?;
    }
    if !input.available()?.is_empty() {
        return Err(input.malformed("there are bytes after the archive's end"));
    }
    Ok(())
}

/// Reads the one block that belongs to the entry `index` of [`Head::data`].
pub fn read_block<R: Read>(
    input: &mut Input<R>,
    head: &Head,
    index: usize,
    sink: &mut impl BlockSink,
) -> Result<(), ArchiveError> {
    let entry = &head.data[index];
    if input.available()?.is_empty() {
        return Err(input.ends_early(format!("the data of {entry} is missing")));
    }
    let block_type = input.byte("a block's type")?;
    let kind = match block_type {
        1 => BlockKind::Table,
        3 => BlockKind::LargeObjects,
        other => return Err(input.malformed(format!("block type {other} where the data of {entry} was expected"))),
    };
    let dump_id = input.int(head.int_size, "a block's dump id")?;
    if dump_id != entry.dump_id || kind != entry.block_kind() {
        return Err(input.malformed(format!(
            "a block of entry {dump_id} where the data of {entry} (entry {}) was expected",
            entry.dump_id
        )));
    }
    sink.begin(index)?;
    match kind {
        BlockKind::Table => read_chunks(input, head, sink, entry, Until::Terminator)?,
        BlockKind::LargeObjects => loop {
            let oid = input.int(head.int_size, "a large object's OID")?;
            if oid == 0 {
                break;
            }
            sink.begin_object(oid)?;
            read_chunks(input, head, sink, entry, Until::Terminator)?;
            sink.end_object()?;
        },
    }
    sink.end(input.position())
}

/// Reads chunks of the table `index` until the input ends, as if they were all that it has.
pub fn read_part<R: Read>(
    input: &mut Input<R>,
    head: &Head,
    index: usize,
    sink: &mut impl BlockSink,
) -> Result<(), ArchiveError> {
    sink.begin(index)?;
    read_chunks(input, head, sink, &head.data[index], Until::End)?;
    sink.end(input.position())
}

/// Where chunks end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Terminator,
    /// The end of the input, which is a part of a block that ends between two chunks.
    End,
}

/// `{Int length > 0, bytes}… Int 0`. pg_dump -Z0 writes one chunk per row, so this loop runs millions of times per
/// gigabyte. In the common case, a whole small chunk in the buffer, it reads each byte only once.
fn read_chunks<R: Read>(
    input: &mut Input<R>,
    head: &Head,
    sink: &mut impl BlockSink,
    entry: &super::TocEntry,
    until: Until,
) -> Result<(), ArchiveError> {
    let int_bytes = 1 + head.int_size;
    loop {
        let bytes = input.at_least(int_bytes)?;
        if bytes.is_empty() && until == Until::End {
            return Ok(());
        }
        if bytes.len() < int_bytes {
            return Err(input.ends_early(format!("the data of {entry} is cut")));
        }
        let Some(length) = decode_int(&bytes[..int_bytes]).and_then(|length| usize::try_from(length).ok()) else {
            return Err(input.malformed(format!("a chunk of {entry} has no valid length")));
        };
        if length == 0 {
            if until == Until::End {
                return Err(input.malformed(format!("a part of {entry} holds its terminator")));
            }
            input.consume(int_bytes);
            return Ok(());
        }
        if let Some(chunk) = bytes.get(int_bytes..int_bytes + length) {
            sink.data(chunk)?;
            sink.end_chunk()?;
            input.consume(int_bytes + length);
            continue;
        }
        input.consume(int_bytes);
        let mut left = length;
        while left > 0 {
            let bytes = input.available()?;
            if bytes.is_empty() {
                return Err(input.ends_early(format!("the data of {entry} is cut")));
            }
            let count = bytes.len().min(left);
            sink.data(&bytes[..count])?;
            input.consume(count);
            left -= count;
        }
        sink.end_chunk()?;
    }
}
