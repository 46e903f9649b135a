//! Any bytes, read as an archive.

use std::io::Read;

use super::Trickle;
use crate::format::archive::{ArchiveError, BlockDigest, BlockSink, ContentDigest, Head, Input, read_blocks};

/// The reader ends with an error or with the archive, and its result does not depend on how the bytes are cut. If it
/// accepts an archive, it refuses a shorter part of it, and the archive with one more byte.
pub fn check(bytes: &[u8]) {
    let whole = read(bytes);
    assert_eq!(whole, read(Trickle::new(bytes)), "in small pieces");
    if whole.1.is_ok() {
        for length in [0, bytes.len() / 2, bytes.len() - 1] {
            assert!(read(&bytes[..length]).1.is_err(), "{length} bytes of {}", bytes.len());
        }
        assert!(read(bytes.chain(&[0][..])).1.is_err(), "a byte after the end");
    }
}

/// The blocks that came whole, and how the reading ended.
fn read(source: impl Read) -> (Vec<Option<BlockDigest>>, Result<(), String>) {
    let mut input = Input::new(source);
    let head = match Head::read(&mut input) {
        Ok(head) => head,
        Err(error) => return (Vec::new(), Err(error.to_string())),
    };
    let mut blocks = Digests {
        head: &head,
        current: None,
        found: Vec::new(),
    };
    let end = read_blocks(&mut input, &head, &mut blocks);
    (blocks.found, end.map_err(|error| error.to_string()))
}

/// Digests the content, as the pipeline does.
struct Digests<'a> {
    head: &'a Head,
    current: Option<ContentDigest>,
    found: Vec<Option<BlockDigest>>,
}

impl Digests<'_> {
    fn current(&mut self) -> &mut ContentDigest {
        self.current.as_mut().expect("nothing comes outside of a block")
    }
}

impl BlockSink for Digests<'_> {
    fn begin(&mut self, index: usize) -> Result<(), ArchiveError> {
        assert_eq!(index, self.found.len(), "blocks come in their order");
        self.current = Some(ContentDigest::of(self.head.data[index].block_kind()));
        Ok(())
    }

    fn begin_object(&mut self, oid: i64) -> Result<(), ArchiveError> {
        self.current().begin_object(oid);
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.current().update(bytes);
        Ok(())
    }

    fn end_object(&mut self) -> Result<(), ArchiveError> {
        self.current().end_object();
        Ok(())
    }

    fn end(&mut self, _: u64) -> Result<(), ArchiveError> {
        let digest = self.current.take().expect("a block ends once");
        self.found.push(digest.finish());
        Ok(())
    }
}
