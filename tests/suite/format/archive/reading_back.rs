//! The way back through `Blocks`, `Unpack`, `BlockCheck` and `Writer`: what was packed comes out, and
//! what stock pg_restore would lose or choke on is an error.

use std::io::Write;
use std::ops::Range;

use pgstow::dataflow::compress::{Codec, PIECE};
use pgstow::format::archive::{
    ArchiveError, BlockCheck, BlockCompression, BlockContent, BlockDigest, BlockSink, Blocks, Discard, Head, Input,
    Unpack, Writer,
};

use proptest::prelude::*;

use crate::format::archive::builder::{Builder, Content, int, streams};
use crate::format::archive::memory::{Shape, flow, run_blocking};
use crate::format::archive::{CODECS, content, row, varied};

/// An archive as the pipeline has stored it.
struct Stored {
    head: Head,
    object: Vec<u8>,
    places: Vec<Range<u64>>,
    promises: Vec<BlockDigest>,
}

impl Stored {
    fn of(builder: &Builder, codec: Codec) -> Self {
        let rewritten = run_blocking(flow(builder.build(), Shape::Archive, codec)).unwrap();
        let archive = rewritten.passed.archive.unwrap();
        let head = Head::read(&mut Input::new(&rewritten.object[..])).unwrap();
        let place =
            |block: &pgstow::dataflow::pipeline::Block| block.place.offset..block.place.offset + block.place.length;
        Self {
            head,
            places: archive.blocks.iter().map(place).collect(),
            promises: archive.blocks.into_iter().map(|block| block.digest).collect(),
            object: rewritten.object,
        }
    }

    /// Every block, whatever became of those before it.
    fn check(&self) -> Vec<Result<(), String>> {
        let start = self.head.len();
        let mut blocks = Blocks::new(&self.object[start..], start as u64);
        let mut sink = Unpack::new(self.head.compression, BlockCheck::new(&self.promises, Discard));
        let places = self.places.iter().enumerate();
        places
            .map(|(index, place)| {
                let read = blocks.read(&self.head, index, place, &mut sink);
                read.map_err(|error| error.to_string())
            })
            .collect()
    }

    /// What pg_restore is fed with for these blocks.
    fn fed(&self, chosen: &[usize]) -> Vec<u8> {
        let mut out = Vec::new();
        let writer = Writer::new(&self.head, &mut out).unwrap();
        let mut sink = Unpack::new(self.head.compression, BlockCheck::new(&self.promises, writer));
        for &index in chosen {
            let place = &self.places[index];
            let from = usize::try_from(place.start).unwrap();
            let mut blocks = Blocks::new(&self.object[from..], place.start);
            blocks.read(&self.head, index, place, &mut sink).unwrap();
        }
        sink.inner().inner().flush().unwrap();
        out
    }
}

fn texts(archive: &[u8], head: usize) -> Vec<Vec<u8>> {
    streams(archive, head)
        .into_iter()
        .map(|stream| stream.chunks.concat())
        .collect()
}

#[test]
fn what_was_packed_is_fed_to_pg_restore_as_pg_dump_wrote_it() {
    for codec in CODECS {
        let builder = varied(16);
        let stored = Stored::of(&builder, codec);
        assert!(
            stored.check().iter().all(Result::is_ok),
            "{codec:?}: {:?}",
            stored.check()
        );
        let fed = stored.fed(&[0, 1, 2, 3, 4]);
        assert!(
            fed[..stored.head.len()] == builder.head(),
            "{codec:?}: the head announces no compression"
        );
        assert!(texts(&fed, stored.head.len()) == builder.streams(), "{codec:?}");
        // Some of them alone.
        let some = stored.fed(&[1, 4]);
        let found = streams(&some, stored.head.len());
        assert_eq!(found.iter().map(|stream| stream.dump_id).collect::<Vec<_>>(), [2, 5]);
    }
}

#[test]
fn a_cut_block_is_an_error_and_the_next_one_is_read_all_the_same() {
    for codec in CODECS {
        let mut stored = Stored::of(&varied(16), codec);
        let place = stored.places[2].clone();
        let (start, end) = (
            usize::try_from(place.start).unwrap(),
            usize::try_from(place.end).unwrap(),
        );
        for at in [start, start + 3, start + 8, (start + end) / 2, end - 12, end - 1] {
            let whole = stored.object[at];
            stored.object[at] ^= 0x55;
            let found = stored.check();
            assert!(found[2].is_err(), "{codec:?}: {at} in {place:?}");
            assert_eq!(
                found.iter().filter(|one| one.is_err()).count(),
                1,
                "{codec:?}: {found:?}"
            );
            stored.object[at] = whole;
        }
        stored.object.truncate(end - 1);
        let found = stored.check();
        assert!(found[0].is_ok() && found[1].is_ok(), "{codec:?}: {found:?}");
        assert!(found[2..].iter().all(Result::is_err), "{codec:?}: {found:?}");
    }
}

/// A table's block from chunks made by hand, and the promise that it would keep.
fn by_hand(compression: BlockCompression, chunks: &[Vec<u8>], promise: &BlockDigest) -> Result<(), String> {
    let builder = Builder {
        minor: 16,
        blocks: vec![Content::Table(Vec::new())],
    };
    let head = Head::read(&mut Input::new(&builder.head()[..])).unwrap();
    let mut block = vec![1];
    int(1, &mut block);
    for chunk in chunks {
        int(chunk.len() as i64, &mut block);
        block.extend(chunk);
    }
    int(0, &mut block);
    let promises = [promise.clone()];
    let mut sink = Unpack::new(compression, BlockCheck::new(&promises, Discard));
    let mut blocks = Blocks::new(&block[..], 0);
    let read = blocks.read(&head, 0, &(0..block.len() as u64), &mut sink);
    read.map_err(|error| error.to_string())
}

fn table(rows: usize) -> (Vec<u8>, BlockDigest) {
    let builder = Builder {
        minor: 16,
        blocks: vec![Content::Table((0..rows).map(|seed| row(seed as u64, 70)).collect())],
    };
    let promise = Stored::of(&builder, Codec::None).promises.remove(0);
    (builder.streams().remove(0), promise)
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_zstd_frame_that_ends_within_a_chunk_is_an_error_though_all_of_it_decompresses() {
    let (text, promise) = table(100);
    let (first, second) = text.split_at(2000);
    by_hand(BlockCompression::Zstd, &[zstd(first), zstd(second)], &promise).unwrap();
    let error = by_hand(
        BlockCompression::Zstd,
        &[[zstd(first), zstd(second)].concat()],
        &promise,
    )
    .unwrap_err();
    assert!(error.contains("ends within a chunk"), "{error}");
    // One frame over several chunks is in order.
    let whole = zstd(&text);
    let (begin, end) = whole.split_at(whole.len() / 3);
    by_hand(BlockCompression::Zstd, &[begin.to_vec(), end.to_vec()], &promise).unwrap();
    // Cut, and followed by bytes that are no frame.
    let error = by_hand(BlockCompression::Zstd, &[begin.to_vec()], &promise).unwrap_err();
    assert!(error.contains("cut"), "{error}");
    by_hand(BlockCompression::Zstd, &[whole.clone(), b"more".to_vec()], &promise).unwrap_err();
    by_hand(BlockCompression::Zstd, &[], &promise).unwrap_err();
}

#[test]
fn a_second_zlib_stream_or_a_cut_one_is_an_error() {
    let (text, promise) = table(100);
    let whole = zlib(&text);
    by_hand(BlockCompression::Gzip, std::slice::from_ref(&whole), &promise).unwrap();
    let (first, second) = text.split_at(2000);
    for chunks in [
        vec![zlib(first), zlib(second)],
        vec![[zlib(first), zlib(second)].concat()],
    ] {
        let error = by_hand(BlockCompression::Gzip, &chunks, &promise).unwrap_err();
        assert!(error.contains("followed by more bytes"), "{error}");
    }
    for cut in [whole.len() - 1, whole.len() / 2, 1] {
        let error = by_hand(BlockCompression::Gzip, &[whole[..cut].to_vec()], &promise).unwrap_err();
        assert!(error.contains("cut"), "{cut}: {error}");
    }
}

/// Counts what gets past the check, and how much at once.
#[derive(Default)]
struct Count {
    all: usize,
    largest: usize,
}

impl BlockSink for Count {
    fn begin(&mut self, _index: usize) -> Result<(), ArchiveError> {
        Ok(())
    }
    fn begin_object(&mut self, _oid: i64) -> Result<(), ArchiveError> {
        Ok(())
    }
    fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.all += bytes.len();
        self.largest = self.largest.max(bytes.len());
        Ok(())
    }
    fn end_object(&mut self) -> Result<(), ArchiveError> {
        Ok(())
    }
    fn end(&mut self, _at: u64) -> Result<(), ArchiveError> {
        Ok(())
    }
}

#[test]
fn a_bomb_is_stopped_at_the_first_bytes_beyond_what_was_promised() {
    let giant = vec![0; 512 << 20];
    let promise = BlockDigest {
        content: BlockContent::Table { rows: 1 },
        bytes: 3 << 20,
        sha256: [0; 32],
    };
    for (compression, bomb) in [
        (BlockCompression::Zstd, zstd(&giant)),
        (BlockCompression::Gzip, zlib(&giant)),
    ] {
        assert!(bomb.len() < 16 << 20);
        let promises = [promise.clone()];
        let mut sink = Unpack::new(compression, BlockCheck::new(&promises, Count::default()));
        sink.begin(0).unwrap();
        let error = sink.data(&bomb).unwrap_err().to_string();
        assert!(error.contains("more bytes than the manifest says"), "{error}");
        let count = sink.inner().inner();
        assert!(
            count.all <= 4 << 20 && count.largest <= 1 << 20,
            "{} {}",
            count.all,
            count.largest
        );
    }
}

#[test]
fn a_zstd_frame_that_wants_a_giant_window_is_refused() {
    let (text, promise) = table(10);
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&text).unwrap();
    let frame = encoder.finish().unwrap();
    assert!(zstd::decode_all(&frame[..]).unwrap() == text);
    let error = by_hand(BlockCompression::Zstd, &[frame], &promise).unwrap_err();
    assert!(error.contains("does not decompress"), "{error}");
}

#[test]
fn blocks_that_have_changed_places_are_told_by_their_numbers() {
    let builder = Builder {
        minor: 16,
        blocks: vec![Content::Table(vec![row(1, 50)]), Content::Table(vec![row(2, 50)])],
    };
    let mut stored = Stored::of(&builder, Codec::None);
    let (first, second) = (stored.places[0].clone(), stored.places[1].clone());
    let bytes = |place: &Range<u64>| usize::try_from(place.start).unwrap()..usize::try_from(place.end).unwrap();
    let swapped = [&stored.object[bytes(&second)], &stored.object[bytes(&first)]].concat();
    stored.object.truncate(bytes(&first).start);
    stored.object.extend(swapped);
    let found = stored.check();
    assert!(
        found
            .iter()
            .all(|one| one.as_ref().is_err_and(|error| error.contains("was expected"))),
        "{found:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_archive_is_read_back_as_it_was(
        minor in 15u8..=16,
        blocks in proptest::collection::vec(content(), 0..8),
        codec in prop_oneof![Just(Codec::None), Just(Codec::Zstd(1)), Just(Codec::Gzip(1))],
    ) {
        let builder = Builder { minor, blocks };
        let stored = Stored::of(&builder, codec);
        let all: Vec<usize> = (0..builder.blocks.len()).collect();
        prop_assert_eq!(texts(&stored.fed(&all), stored.head.len()), builder.streams());
    }

    #[test]
    fn a_byte_that_is_changed_harms_no_other_block(
        position in any::<proptest::sample::Index>(),
        flip in 1..=255u8,
        codec in prop_oneof![Just(Codec::None), Just(Codec::Zstd(1)), Just(Codec::Gzip(1))],
    ) {
        let builder = Builder {
            minor: 16,
            blocks: vec![
                Content::Table((0..20).map(|seed| row(seed, 40)).collect()),
                Content::LargeObjects(vec![(5, vec![row(3, 300)]), (6, vec![])]),
                Content::Table(vec![]),
            ],
        };
        let mut stored = Stored::of(&builder, codec);
        let start = stored.head.len();
        let at = start + position.index(stored.object.len() - start);
        stored.object[at] ^= flip;
        let found = stored.check();
        for (place, found) in stored.places.iter().zip(found) {
            // A few bits mean nothing, such as the sign of a zero: there it is the digest of the
            // whole object that tells.
            prop_assert!(found.is_ok() || place.contains(&(at as u64)), "{} {:?}", at, place);
        }
    }
}

/// Larger than any piece, so that a frame's end and a chunk's fall together many times.
#[test]
fn many_pieces_in_one_table_are_read_back() {
    let builder = Builder {
        minor: 16,
        blocks: vec![Content::Table((0..40).map(|seed| row(seed, PIECE / 5)).collect())],
    };
    for codec in CODECS {
        assert!(Stored::of(&builder, codec).check()[0].is_ok(), "{codec:?}");
    }
}
