//! A large table's ranges: each read by itself is whole rows, all of them together the table, and
//! a byte that is changed spoils its own range alone.

use std::sync::Arc;

use pgstow::dataflow::compress::{Codec, PIECE};
use pgstow::dataflow::pipeline::{Block, BlockSource, Delivered, Flow, Inflow, Undelivered};
use pgstow::dataflow::read_by::ReadBy;
use pgstow::format::archive::{
    ArchiveError, BlockContent, BlockSink, END_OF_COPY, Head, Input, PartCheck, Sealed, SealedRange, Unpack, Writer,
    read_part,
};
use pgstow::run::progress::{Observer, Silent};
use proptest::prelude::*;

use crate::format::archive::builder::{Builder, Content, streams};
use crate::format::archive::memory::{Rewritten, Shape, flow, run_blocking};
use crate::format::archive::row;

const RANGE: usize = 3 << 20;

/// Rows of several sizes: small ones, and such as no piece can hold.
fn rows() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let length = prop_oneof![
        20 => 0_usize..200,
        20 => 50_000_usize..400_000,
        1 => PIECE..3 * PIECE,
    ];
    proptest::collection::vec((any::<u64>(), length), 0..60)
        .prop_map(|rows| rows.into_iter().map(|(seed, length)| row(seed, length)).collect())
}

fn text(rows: &[Vec<u8>]) -> Vec<u8> {
    rows.iter().flat_map(|row| [row.as_slice(), b"\n"].concat()).collect()
}

/// As the streams bring it: in buffers that end with a row, or with a piece of one.
struct Owned {
    text: Vec<u8>,
    cuts: Vec<usize>,
}

impl BlockSource for Owned {
    fn deliver(
        &mut self,
        _head: &Head,
        _observer: &dyn Observer,
        sink: &mut dyn BlockSink,
    ) -> Result<Delivered, Undelivered> {
        sink.begin(0)?;
        let mut from = 0;
        for &cut in &self.cuts {
            let to = (from + cut).min(self.text.len());
            if from < to {
                sink.owned(self.text[from..to].to_vec())?;
            }
            from = to;
        }
        sink.data(&self.text[from..])?;
        sink.data(END_OF_COPY)?;
        sink.end(0)?;
        Ok(Delivered {
            bytes: 0,
            rows: vec![None],
            read_by: vec![ReadBy::Ranges],
        })
    }
}

fn archived(builder: &Builder, codec: Codec, cuts: Option<Vec<usize>>, content: &[u8]) -> Rewritten {
    let mut flow = Flow {
        range: RANGE,
        ..flow(builder.build(), Shape::Archive, codec)
    };
    if let Some(cuts) = cuts {
        flow.input = Inflow::Blocks {
            head: Head::read(&mut Input::new(&builder.head()[..])).unwrap(),
            source: Box::new(Owned {
                text: content.to_vec(),
                cuts,
            }),
        };
        flow.observer = Arc::new(Silent);
    }
    run_blocking(flow).unwrap()
}

/// What pg_restore is fed with for some of the ranges; the error and what it had been fed before.
fn fed(rewritten: &Rewritten, block: &Block, ranges: &[SealedRange]) -> Result<Vec<u8>, (String, Vec<u8>)> {
    let head = Head::read(&mut Input::new(&rewritten.object[..])).unwrap();
    let mut out = Vec::new();
    let (start, end) = (ranges[0].offset, ranges[ranges.len() - 1].end());
    let stored = &rewritten.object[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()];
    let sum = |of: fn(&SealedRange) -> u64| ranges.iter().map(of).sum();
    let ends_itself = ranges.last() == block.ranges.last();
    let writer = Writer::new(&head, &mut out).unwrap();
    let taken = PartCheck::new(sum(|one| one.rows), sum(|one| one.bytes), ends_itself, writer);
    let mut sink = Unpack::new(head.compression, taken);
    let sealed = Sealed::new(stored, ranges.to_vec(), "t".into());
    let read = read_part(&mut Input::at(sealed, start), &head, 0, &mut sink);
    drop(sink);
    match read {
        Ok(()) => Ok(streams(&out, head.len()).remove(0).chunks.concat()),
        Err(ArchiveError::Io(error)) => Err((error.to_string(), out)),
        Err(error) => Err((error.to_string(), out)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_range_is_a_table_of_its_own_and_all_of_them_the_whole(
        rows in rows(),
        cuts in proptest::option::of(proptest::collection::vec(1_usize..2 * PIECE, 0..40)),
        codec in prop_oneof![Just(Codec::None), Just(Codec::Zstd(1)), Just(Codec::AutoZstd)],
        spoil in any::<proptest::sample::Index>(),
    ) {
        let content = text(&rows);
        let builder = Builder { minor: 16, blocks: vec![Content::Table(rows.clone())] };
        let mut rewritten = archived(&builder, codec, cuts, &content);
        let block = rewritten.passed.archive.as_mut().unwrap().blocks.remove(0);
        prop_assert_eq!(&block.digest.content, &BlockContent::Table { rows: rows.len() as u64 });
        let ranges = block.ranges.clone();
        if ranges.is_empty() {
            prop_assert!(content.len() < RANGE + 4 * PIECE);
            return Ok(());
        }
        // Without gaps, from the block's header to its terminator.
        let mut due = block.place.offset + 6;
        for range in &ranges {
            prop_assert_eq!(range.offset, due);
            due = range.end();
        }
        prop_assert_eq!(due + 5, block.place.offset + block.place.length);
        prop_assert_eq!(ranges.iter().map(|range| range.rows).sum::<u64>(), rows.len() as u64);
        prop_assert_eq!(ranges.iter().map(|range| range.bytes).sum::<u64>(), content.len() as u64);

        let mut all = Vec::new();
        for range in &ranges {
            let mut text = fed(&rewritten, &block, std::slice::from_ref(range)).unwrap();
            prop_assert!(text.ends_with(END_OF_COPY));
            text.truncate(text.len() - END_OF_COPY.len());
            prop_assert!(text.is_empty() || text.ends_with(b"\n"));
            all.extend(text);
        }
        prop_assert!(all == content);
        let mut whole = fed(&rewritten, &block, &ranges).unwrap();
        whole.truncate(whole.len() - END_OF_COPY.len());
        prop_assert!(whole == content);

        let first = usize::try_from(ranges[0].offset).unwrap();
        let last = usize::try_from(due).unwrap();
        let at = first + spoil.index(last - first);
        rewritten.object[at] ^= 1;
        for range in &ranges {
            let spoilt = (range.offset..range.end()).contains(&(at as u64));
            match fed(&rewritten, &block, std::slice::from_ref(range)) {
                Ok(_) => prop_assert!(!spoilt),
                Err((error, fed)) => {
                    prop_assert!(spoilt, "{}", error);
                    // Without its end pg_restore takes none of it.
                    prop_assert!(!fed.ends_with(b"\\.\n\n\n\0\0\0\0\0"));
                }
            }
        }
    }
}

#[test]
fn one_compressed_stream_and_large_objects_have_no_ranges() {
    let rows: Vec<Vec<u8>> = (0..60).map(|seed| row(seed, 200_000)).collect();
    let objects = (1..4).map(|oid| (oid, vec![row(u64::from(oid), 3 * PIECE)])).collect();
    let builder = Builder {
        minor: 16,
        blocks: vec![Content::Table(rows), Content::LargeObjects(objects)],
    };
    for (codec, divided) in [(Codec::Gzip(1), false), (Codec::Zstd(1), true)] {
        let rewritten = archived(&builder, codec, None, &[]);
        let blocks = rewritten.passed.archive.unwrap().blocks;
        assert_eq!(blocks[0].ranges.len() > 1, divided, "{codec:?}");
        assert!(blocks[1].ranges.is_empty(), "{codec:?}");
    }
}
