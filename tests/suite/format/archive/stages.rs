//! A stage that changes the bytes and how many they are: places, ranges and digests hold on the way
//! there and on the way back. It does what encryption does: bytes that depend on those before them,
//! in pieces with a frame, between a head and an end.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use pgstow::dataflow::compress::{Codec, PIECE};
use pgstow::dataflow::pipeline::{Archive, Ended, Flow, Mark, Onward, Passing, Stage};
use pgstow::dataflow::stored_file::{Content, StoredFile, Unstage};
use pgstow::error::{Code, Error};
use pgstow::format::archive::{BlockCheck, Blocks, Discard, Head, Input, SealedRange, Unpack};
use pgstow::store::Store;
use pgstow::store::local::Local;
use sha2::{Digest, Sha256};

use crate::format::archive::builder::{Builder, Content as Filling};
use crate::format::archive::memory::{Rewritten, Shape, flow, run_blocking};
use crate::format::archive::row;

const HEAD: &[u8] = b"chained:";
const END: &[u8] = b":end";
/// Content in one frame.
const FRAME: u64 = 1000;
const SEED: u8 = 0x5a;

const RANGE: usize = PIECE;
const KEY: &str = "shop/20250131T040500Z-full/shop.dump";

fn mixed(byte: u8, before: u8) -> u8 {
    byte ^ before.wrapping_mul(31).wrapping_add(7)
}

/// Where this byte of content is stored.
fn at(content: u64) -> u64 {
    HEAD.len() as u64 + content + content / FRAME + 1
}

/// The way there. A range that begins needs the stored byte in front of it: the last byte is held
/// back until it is known what follows.
struct Chaining {
    content: u64,
    before: u8,
    held: Option<u8>,
    /// Of ranges that end with the held byte: they pass behind it.
    ended: Vec<Mark>,
}

impl Chaining {
    fn new() -> Box<Self> {
        Box::new(Self {
            content: 0,
            before: SEED,
            held: None,
            ended: Vec::new(),
        })
    }

    fn release(&mut self, onward: &mut Onward<'_>) -> Result<(), Ended> {
        if let Some(held) = self.held.take() {
            onward.pass(Passing::Bytes(vec![held].into()))?;
        }
        self.ended
            .drain(..)
            .try_for_each(|mark| onward.pass(Passing::Mark(mark)))
    }
}

impl Stage for Chaining {
    fn take(&mut self, passing: Passing, onward: &mut Onward<'_>) -> Result<(), Ended> {
        let bytes = match passing {
            Passing::Bytes(bytes) => bytes,
            Passing::Mark(Mark::Begin) => return onward.pass(Passing::Mark(Mark::Begin)),
            Passing::Mark(mark) => {
                self.ended.push(mark);
                return Ok(());
            }
        };
        assert!(!bytes.is_empty(), "nothing is no bytes");
        self.release(onward)?;
        let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 500 + HEAD.len());
        if self.content == 0 {
            out.extend(HEAD);
        }
        for byte in bytes {
            if self.content.is_multiple_of(FRAME) {
                out.push(b'|');
            }
            self.content += 1;
            self.before = mixed(byte, self.before);
            out.push(self.before);
        }
        self.held = out.pop();
        if out.is_empty() {
            return Ok(());
        }
        onward.pass(Passing::Bytes(out.into()))
    }

    fn end(&mut self, onward: &mut Onward<'_>) -> Result<(), Ended> {
        self.release(onward)?;
        onward.pass(Passing::Bytes(END.into()))
    }
}

/// The way back.
struct Unchaining;

impl Unstage for Unchaining {
    fn stored(&self, content: &Range<u64>) -> Range<u64> {
        at(content.start.saturating_sub(1))..at(content.end - 1) + 1
    }

    fn undo(&self, content: Range<u64>, stored: Content) -> Content {
        Box::new(Unchained {
            stored,
            position: self.stored(&content).start,
            before: (content.start == 0).then_some(SEED),
            left: content.end - content.start,
        })
    }
}

struct Unchained {
    stored: Content,
    position: u64,
    /// The stored byte before, once it has come.
    before: Option<u8>,
    left: u64,
}

impl Read for Unchained {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left > 0 {
            let count = self.stored.read(buffer)?;
            if count == 0 {
                return Ok(0);
            }
            let mut kept = 0;
            for index in 0..count {
                let (byte, position) = (buffer[index], self.position - HEAD.len() as u64);
                self.position += 1;
                if position.is_multiple_of(FRAME + 1) {
                    continue;
                }
                if let Some(before) = self.before.replace(byte) {
                    buffer[kept] = mixed(byte, before);
                    kept += 1;
                }
            }
            kept = kept.min(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= kept as u64;
            if kept > 0 {
                return Ok(kept);
            }
        }
        Ok(0)
    }
}

/// Large tables behind each other, and such as have no ranges.
fn archive() -> Builder {
    let large = |seed: u64| Filling::Table((seed..seed + 40).map(|seed| row(seed, 200_000)).collect());
    Builder {
        minor: 16,
        blocks: vec![
            large(1),
            Filling::Table(Vec::new()),
            large(100),
            // Several pieces and no range.
            Filling::Table(vec![row(7, PIECE + 5)]),
            Filling::LargeObjects(vec![(16_400, vec![row(8, PIECE + 3)])]),
        ],
    }
}

fn rewritten(codec: Codec, stages: Vec<Box<dyn Stage>>) -> Rewritten {
    let flow = Flow {
        range: RANGE,
        stages,
        ..flow(archive().build(), Shape::Archive, codec)
    };
    run_blocking(flow).unwrap()
}

fn ranges(archive: &Archive) -> Vec<Vec<SealedRange>> {
    archive.blocks.iter().map(|block| block.ranges.clone()).collect()
}

fn slice(bytes: &[u8], range: &Range<u64>) -> Vec<u8> {
    bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].to_vec()
}

fn undone(content: Range<u64>, object: &[u8]) -> Vec<u8> {
    let stored = slice(object, &Unchaining.stored(&content));
    let mut bytes = Vec::new();
    let mut reader = Unchaining.undo(content, Box::new(io::Cursor::new(stored)));
    reader.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn places_are_those_of_the_content_and_digests_those_of_what_is_stored() {
    for codec in [Codec::None, Codec::Zstd(1), Codec::Gzip(1)] {
        let plain = rewritten(codec, Vec::new());
        let staged = rewritten(codec, vec![Chaining::new()]);
        let (there, here) = (plain.passed.archive.unwrap(), staged.passed.archive.unwrap());
        assert_eq!(here.toc, there.toc, "{codec:?}");
        for (here, there) in here.blocks.iter().zip(&there.blocks) {
            assert_eq!((here.place, &here.digest), (there.place, &there.digest), "{codec:?}");
        }

        let content = plain.object.len() as u64;
        assert_eq!(plain.passed.expected.content_bytes, content);
        assert_eq!(plain.passed.expected.bytes, content);
        assert_eq!(staged.passed.expected.content_bytes, content);
        assert_eq!(staged.passed.expected.bytes, staged.object.len() as u64);
        assert_eq!(staged.object.len() as u64, at(content - 1) + 1 + END.len() as u64);
        assert_eq!(
            staged.passed.expected.sha256[..],
            Sha256::digest(&staged.object)[..],
            "{codec:?}"
        );
        assert!(undone(0..content, &staged.object) == plain.object, "{codec:?}");

        let (here, there) = (ranges(&here), ranges(&there));
        let divided: Vec<bool> = here.iter().map(|ranges| ranges.len() > 1).collect();
        let all = !matches!(codec, Codec::Gzip(_));
        assert_eq!(divided, [all, false, all, false, false], "{codec:?}");
        for (here, there) in here.iter().flatten().zip(there.iter().flatten()) {
            let told = |range: &SealedRange| (range.offset, range.length, range.rows, range.bytes);
            assert_eq!(told(here), told(there), "{codec:?}");
            let place = here.offset..here.end();
            assert_eq!(
                there.stored_sha256[..],
                Sha256::digest(slice(&plain.object, &place))[..]
            );
            let stored = slice(&staged.object, &Unchaining.stored(&place));
            assert_eq!(here.stored_sha256[..], Sha256::digest(stored)[..], "{codec:?}");
            assert!(undone(place.clone(), &staged.object) == slice(&plain.object, &place));
        }
    }
}

#[test]
fn a_stage_behind_another_sees_what_that_one_has_made() {
    let plain = rewritten(Codec::Zstd(1), Vec::new());
    let once = rewritten(Codec::Zstd(1), vec![Chaining::new()]);
    let twice = rewritten(Codec::Zstd(1), vec![Chaining::new(), Chaining::new()]);
    assert_eq!(twice.passed.expected.content_bytes, plain.object.len() as u64);
    assert!(undone(0..once.object.len() as u64, &twice.object) == once.object);
    let store: Arc<dyn Store> = Arc::new(Local::new("nowhere".into()));
    let file = StoredFile::plain(&store, KEY).staged(vec![Arc::new(Unchaining), Arc::new(Unchaining)]);
    let whole = 0..plain.object.len() as u64;
    let stored = slice(&twice.object, &file.stored(&whole));
    let mut bytes = Vec::new();
    file.undo(whole, io::Cursor::new(stored))
        .read_to_end(&mut bytes)
        .unwrap();
    assert!(bytes == plain.object);
    for range in ranges(&twice.passed.archive.unwrap()).iter().flatten() {
        let place = range.offset..range.end();
        let stored = slice(&twice.object, &file.stored(&place));
        assert_eq!(range.stored_sha256[..], Sha256::digest(&stored)[..]);
        let mut bytes = Vec::new();
        file.undo(place.clone(), io::Cursor::new(stored))
            .read_to_end(&mut bytes)
            .unwrap();
        assert!(bytes == slice(&plain.object, &place));
    }
}

/// Reads in a thread that may block.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stage_has_changed_is_read_back_range_by_range_and_block_by_block() {
    let (plain, staged) = apart(|| {
        let staged = rewritten(Codec::Zstd(1), vec![Chaining::new()]);
        (rewritten(Codec::Zstd(1), Vec::new()), staged)
    })
    .await;
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join(KEY);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, &staged.object).unwrap();
    let store: Arc<dyn Store> = Arc::new(Local::new(root.path().to_owned()));
    let file = Arc::new(StoredFile::plain(&store, KEY).staged(vec![Arc::new(Unchaining)]));
    let archive = staged.passed.archive.unwrap();
    let ranges = ranges(&archive);
    let read = |ranges: Vec<SealedRange>| {
        let file = Arc::clone(&file);
        apart(move || {
            let mut bytes = Vec::new();
            let read = file.read_sealed(&ranges, "t".into()).read_to_end(&mut bytes);
            (bytes, read)
        })
    };

    // Ranges by themselves, and some behind each other.
    let some = &ranges[2];
    for ranges in [&some[..1], &some[1..2], &some[1..], &some[..]] {
        let (bytes, read) = read(ranges.to_vec()).await;
        read.unwrap();
        let place = ranges[0].offset..ranges[ranges.len() - 1].end();
        assert!(bytes == slice(&plain.object, &place));
    }

    // Blocks, as verify and restore read them.
    let promises: Vec<_> = archive.blocks.iter().map(|block| block.digest.clone()).collect();
    let head = Head::read(&mut Input::new(&plain.object[..])).unwrap();
    for (index, block) in archive.blocks.iter().enumerate() {
        let place = block.place.offset..block.place.offset + block.place.length;
        let (file, head, promises) = (Arc::clone(&file), head.clone(), promises.clone());
        apart(move || {
            let mut sink = Unpack::new(head.compression, BlockCheck::new(&promises, Discard));
            let mut blocks = Blocks::new(file.read(place.clone()), place.start);
            blocks.read(&head, index, &place, &mut sink).unwrap();
        })
        .await;
    }

    // The byte in front of a range is one that it needs, so it spoils that one too.
    let changed = usize::try_from(file.stored(&(some[1].offset..some[1].end())).start).unwrap();
    let mut object = staged.object.clone();
    object[changed] ^= 1;
    std::fs::write(&path, &object).unwrap();
    for (index, spoilt) in [(0, true), (1, true), (2, false)] {
        let (bytes, read) = read(some[index..=index].to_vec()).await;
        assert_eq!(read.is_err(), spoilt, "{index}");
        if let Err(error) = read {
            assert_eq!(error.downcast::<Error>().unwrap().code(), Code::Integrity);
            assert!((bytes.len() as u64) < some[index].length, "its end is not given");
        }
    }
}
