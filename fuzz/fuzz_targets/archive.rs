//! Any bytes as an archive: the reader must end with an error or the end, and never panic, hang
//! or allocate by a length that it has not read. On the stable toolchain, from this folder's
//! parent, with what is found kept out of the small corpus that is checked in:
//!
//! ```text
//! cargo install cargo-fuzz --locked
//! cp Cargo.lock fuzz/ && mkdir -p target/fuzz-found
//! cargo fuzz run -s none archive target/fuzz-found fuzz/corpus/archive -- \
//!     -max_total_time=240 -rss_limit_mb=512 -timeout=10
//! ```
//!
//! It makes about 17,000 runs per second on one busy core.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgstow::archive::{ArchiveError, BlockSink, Head, Input, LargeObjectsDigest, TableDigest, read_blocks};

/// Digests whatever comes, as the pipeline does.
#[derive(Default)]
struct Digests {
    table: TableDigest,
    objects: LargeObjectsDigest,
}

impl BlockSink for Digests {
    fn begin(&mut self, _: usize) -> Result<(), ArchiveError> {
        self.table = TableDigest::default();
        Ok(())
    }
    fn begin_object(&mut self, oid: i64) -> Result<(), ArchiveError> {
        self.objects.begin(oid as u32);
        Ok(())
    }
    fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.table.update(bytes);
        self.objects.update(bytes);
        Ok(())
    }
    fn end_object(&mut self) -> Result<(), ArchiveError> {
        self.objects.end();
        Ok(())
    }
    fn end(&mut self, _: u64) -> Result<(), ArchiveError> {
        let _ = std::mem::take(&mut self.table).finish();
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    if let Ok(head) = Head::read(&mut input) {
        let positions: Vec<u64> = (0..head.data.len() as u64).collect();
        let toc = head.with_offsets(head.announcing(head.compression, 6), &positions);
        assert_eq!(toc.len(), head.len());
        let _ = read_blocks(&mut input, &head, &mut Digests::default());
    }
});
