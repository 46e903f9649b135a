//! Files that are damaged, or that lie.

use pgstow::format::changes::{self, ChangesSummary, Head, Index};

use super::{FROM, HEAD, ITEMS, ORDERS, checked, described, long, written};
use crate::support::stream::{self, Transactions};

/// Two tables in three transactions.
fn small() -> (Vec<u8>, ChangesSummary) {
    let mut made = Transactions::after(FROM);
    made.add([described(ORDERS), stream::insert(ORDERS, &[Some("1"), None])]);
    made.add([described(ITEMS), stream::insert(ITEMS, &[Some("1"), Some("text")])]);
    made.add([stream::delete(ORDERS, b'K', &[Some("1"), None])]);
    written(&made.messages).unwrap()
}

#[test]
fn every_flipped_byte_is_found() {
    let (file, summary) = small();
    checked(&file, &summary).unwrap();
    for at in 0..file.len() {
        for mask in [1, 0x80, 0xff] {
            let mut spoilt = file.clone();
            spoilt[at] ^= mask;
            assert!(checked(&spoilt, &summary).is_err(), "byte {at} ^ {mask:x}");
        }
        assert!(checked(&file[..at], &summary).is_err(), "{at} bytes");
    }
    let longer = [&file[..], b"\0"].concat();
    assert!(checked(&longer, &summary).is_err());
}

#[test]
fn an_index_that_lies_is_found_without_its_digest() {
    let (file, summary) = small();
    let begin = usize::try_from(summary.index.offset).unwrap();
    // After the frame's header, the magic number and the version: the position that the file reaches.
    let to = begin + 8 + 8 + 2..begin + 8 + 8 + 2 + 8;
    for at in begin..file.len() {
        let mut lying = file.clone();
        lying[at] ^= 1;
        let index = Index::parse(&lying[begin..], lying.len() as u64);
        let passed = index.is_ok_and(|index| changes::check(&*lying, &HEAD, index).is_ok());
        // That the server has sent more than the last transaction is for the manifest to say.
        assert!(!passed || to.contains(&at), "byte {} of the index", at - begin);
    }
}

#[test]
fn a_damaged_frame_is_named() {
    let (_, file, summary) = long();
    let mut spoilt = file.clone();
    let index = Index::parse(&file[usize::try_from(summary.index.offset).unwrap()..], summary.bytes).unwrap();
    let at = usize::try_from(index.frames[1].offset).unwrap();
    spoilt[at + 100] ^= 4;
    let error = checked(&spoilt, &summary).unwrap_err();
    assert!(error.starts_with("its frame 1 is damaged"), "{error}");
    // Another good frame in its place.
    let mut exchanged = file.clone();
    let first = usize::try_from(index.frames[0].offset).unwrap();
    let length = usize::try_from(index.frames[0].length.min(index.frames[1].length)).unwrap();
    exchanged.copy_within(first..first + length, at);
    let error = checked(&exchanged, &summary).unwrap_err();
    assert!(error.starts_with("its frame 1 is damaged"), "{error}");
}

#[test]
fn the_head_of_another_stream_is_found() {
    let (file, summary) = small();
    let index = || Index::parse(&file[usize::try_from(summary.index.offset).unwrap()..], summary.bytes).unwrap();
    let others = [
        Head { timeline: 3, ..HEAD },
        Head {
            system_identifier: 1,
            ..HEAD
        },
        Head {
            database_oid: 1,
            ..HEAD
        },
        Head {
            from: pgstow::format::Lsn(FROM + 1),
            ..HEAD
        },
    ];
    for other in others {
        let error = changes::check(&*file, &other, index()).unwrap_err().to_string();
        assert!(error.contains("of another stream"), "{error}");
    }
    changes::check(&*file, &HEAD, index()).unwrap();
}

#[test]
fn a_file_of_a_later_version_is_told_apart() {
    let (file, summary) = small();
    let begin = usize::try_from(summary.index.offset).unwrap();
    let mut newer = file.clone();
    newer[begin + 8 + 9] = 2;
    let error = Index::parse(&newer[begin..], newer.len() as u64)
        .unwrap_err()
        .to_string();
    assert!(error.contains("a newer pgstow wrote it"), "{error}");
}
