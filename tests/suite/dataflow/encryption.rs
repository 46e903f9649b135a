//! An archive that is encrypted on its way through the pipeline: its places, its digests, and the way back.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use pgstow::dataflow::compress::{Codec, PIECE};
use pgstow::dataflow::encryption::{Decrypting, Encrypting};
use pgstow::dataflow::pipeline::{Archive, Flow, Stage};
use pgstow::dataflow::stored_file::{StoredFile, Unstage};
use pgstow::error::{Code, Error};
use pgstow::format::archive::{BlockCheck, Blocks, Discard, Head as ArchiveHead, Input, SealedRange, Unpack};
use pgstow::format::openpgp::{Head, SessionKey, Shape};
use pgstow::store::Store;
use pgstow::store::local::Local;
use sha2::{Digest, Sha256};

use crate::format::archive::builder::{Builder, Content};
use crate::format::archive::memory::{Rewritten, Shape as Made, flow, run_blocking};
use crate::format::archive::row;
use crate::format::openpgp::head;
use crate::support::gpg::Gpg;

const KEY: &str = "shop/20250131T040500Z-full/shop.dump.gpg";

/// Large tables behind each other, an empty one, and one without ranges.
fn archive() -> Vec<u8> {
    let large = |seed: u64| Content::Table((seed..seed + 40).map(|seed| row(seed, 200_000)).collect());
    let blocks = vec![
        large(1),
        Content::Table(Vec::new()),
        large(100),
        Content::Table(vec![row(7, PIECE + 5)]),
    ];
    Builder { minor: 16, blocks }.build()
}

fn rewritten(stages: Vec<Box<dyn Stage>>) -> Rewritten {
    let flow = Flow {
        range: PIECE,
        stages,
        ..flow(archive(), Made::Archive, Codec::Zstd(1))
    };
    run_blocking(flow).unwrap()
}

/// The same archive twice: as it is, and encrypted.
struct Both {
    plain: Rewritten,
    encrypted: Rewritten,
    key: SessionKey,
}

impl Both {
    fn new(head: impl Fn(&SessionKey) -> Head) -> Self {
        let key = SessionKey::generate().unwrap();
        let stage = Encrypting::new(&head(&key), &key).unwrap();
        Self {
            plain: rewritten(Vec::new()),
            encrypted: rewritten(vec![Box::new(stage)]),
            key,
        }
    }

    fn decrypting(&self) -> Decrypting {
        let content = self.encrypted.passed.expected.content_bytes;
        Decrypting::new(Shape::OURS, content, self.key.clone()).unwrap()
    }

    fn archive(&self) -> &Archive {
        self.encrypted.passed.archive.as_ref().unwrap()
    }

    /// Where each large table's ranges are in the content.
    fn ranges(&self) -> Vec<Vec<SealedRange>> {
        self.archive().blocks.iter().map(|block| block.ranges.clone()).collect()
    }
}

fn no_readers(_: &SessionKey) -> Head {
    Head::new(&[]).unwrap()
}

fn slice<'a>(bytes: &'a [u8], place: &Range<u64>) -> &'a [u8] {
    &bytes[place.start as usize..place.end as usize]
}

#[test]
fn gpg_decrypts_the_archive_that_the_pipeline_has_encrypted() {
    let both = Both::new(|key| head(key, &["curve25519"]));
    let decrypted = Gpg::new(&["curve25519"]).decrypted(&both.encrypted.object);
    assert!(decrypted == both.plain.object);
}

#[test]
fn places_are_those_of_the_archive_and_digests_those_of_the_encrypted_bytes() {
    let both = Both::new(no_readers);
    let (there, here) = (both.plain.passed.archive.as_ref().unwrap(), both.archive());
    assert_eq!(here.toc, there.toc);
    for (here, there) in here.blocks.iter().zip(&there.blocks) {
        assert_eq!((here.place, &here.digest), (there.place, &there.digest));
    }
    let (object, expected) = (&both.encrypted.object, &both.encrypted.passed.expected);
    assert_eq!(expected.content_bytes, both.plain.object.len() as u64);
    assert_eq!(expected.bytes, object.len() as u64);
    assert_eq!(expected.bytes, both.decrypting().stored_length());
    assert_eq!(expected.sha256[..], Sha256::digest(object)[..]);

    let ranges = both.ranges();
    let divided: Vec<bool> = ranges.iter().map(|ranges| ranges.len() > 1).collect();
    assert_eq!(divided, [true, false, true, false]);
    let decrypting = both.decrypting();
    for range in ranges.iter().flatten() {
        let place = range.offset..range.end();
        let stored = slice(object, &decrypting.stored(&place)).to_vec();
        assert_eq!(range.stored_sha256[..], Sha256::digest(&stored)[..]);
        let mut content = Vec::new();
        let mut reader = decrypting.undo(place.clone(), Box::new(io::Cursor::new(stored)));
        reader.read_to_end(&mut content).unwrap();
        assert!(content == slice(&both.plain.object, &place));
    }
}

#[test]
fn a_place_that_is_not_in_the_content_is_an_error() {
    let key = SessionKey::generate().unwrap();
    let empty = Decrypting::new(Shape::OURS, 0, key.clone()).unwrap();
    let decrypting = Decrypting::new(Shape::OURS, 1000, key).unwrap();
    for (decrypting, place) in [
        (&empty, 0..1),
        (&decrypting, 0..1001),
        (&decrypting, 1000..1001),
        (&decrypting, 5000..u64::MAX),
        (&decrypting, u64::MAX - 1..u64::MAX),
    ] {
        let stored = decrypting.stored(&place);
        assert!(stored.end <= decrypting.stored_length(), "{place:?}");
        let mut reader = decrypting.undo(place.clone(), Box::new(io::repeat(0)));
        let error = reader.read(&mut [0; 10]).unwrap_err();
        assert_eq!(error.downcast::<Error>().unwrap().code(), Code::Integrity, "{place:?}");
    }
    let mut nothing = decrypting.undo(7..7, Box::new(io::empty()));
    assert_eq!(nothing.read(&mut [0; 10]).unwrap(), 0);
}

/// Reads in a thread that may block.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_archive_is_read_back_range_by_range_and_block_by_block() {
    let both = apart(|| Both::new(no_readers)).await;
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join(KEY);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, &both.encrypted.object).unwrap();
    let store: Arc<dyn Store> = Arc::new(Local::new(root.path().to_owned()));
    let file = Arc::new(StoredFile::plain(&store, KEY).staged(vec![Arc::new(both.decrypting())]));
    let read = |ranges: Vec<SealedRange>| {
        let file = Arc::clone(&file);
        apart(move || {
            let mut bytes = Vec::new();
            let read = file.read_sealed(&ranges, "t".into()).read_to_end(&mut bytes);
            (bytes, read)
        })
    };

    // Ranges by themselves, and some behind each other: these share encrypted bytes.
    let some = &both.ranges()[2];
    for ranges in [&some[..1], &some[1..2], &some[1..], &some[..]] {
        let (bytes, read) = read(ranges.to_vec()).await;
        read.unwrap();
        let place = ranges[0].offset..ranges[ranges.len() - 1].end();
        assert!(bytes == slice(&both.plain.object, &place));
    }

    // Blocks, as verify and restore read them.
    let blocks = &both.archive().blocks;
    let promises: Vec<_> = blocks.iter().map(|block| block.digest.clone()).collect();
    let head = ArchiveHead::read(&mut Input::new(&both.plain.object[..])).unwrap();
    for (index, block) in blocks.iter().enumerate() {
        let place = block.place.offset..block.place.offset + block.place.length;
        let (file, head, promises) = (Arc::clone(&file), head.clone(), promises.clone());
        apart(move || {
            let mut sink = Unpack::new(head.compression, BlockCheck::new(&promises, Discard));
            let mut blocks = Blocks::new(file.read(place.clone()), place.start);
            blocks.read(&head, index, &place, &mut sink).unwrap();
        })
        .await;
    }

    // The end of a range is not returned if one of its encrypted bytes is wrong. The first ones belong to two ranges.
    let shared = file.stored(&(some[1].offset..some[1].end())).start as usize;
    let mut object = both.encrypted.object.clone();
    object[shared] ^= 1;
    std::fs::write(&path, &object).unwrap();
    for (index, spoilt) in [(0, true), (1, true), (2, false)] {
        let (bytes, read) = read(some[index..=index].to_vec()).await;
        assert_eq!(read.is_err(), spoilt, "{index}");
        if let Err(error) = read {
            assert_eq!(error.downcast::<Error>().unwrap().code(), Code::Integrity);
            assert!((bytes.len() as u64) < some[index].length);
        }
    }
}
