//! Where the content is stored, and its parts.

use std::io::Read;
use std::ops::Range;

use pgstow::format::openpgp::{Head, Layout, PartReader, SessionKey, Shape, Side, Writer, Written};
use proptest::prelude::*;

use super::{SIZES, checked, content, layout, message, written};

fn empty_head() -> Head {
    Head::new(&[]).unwrap()
}

fn part(layout: &Layout, key: &SessionKey, message: &[u8], part: &Range<u64>) -> Vec<u8> {
    let stored = layout.stored(part);
    let stored = &message[stored.start as usize..stored.end as usize];
    let mut found = Vec::new();
    PartReader::new(layout, key, part, stored)
        .read_to_end(&mut found)
        .unwrap();
    found
}

#[test]
fn a_message_of_any_length_has_the_length_that_is_computed_and_is_read_back() {
    let key = SessionKey::generate().unwrap();
    for size in SIZES {
        let content = content(size);
        let message = message(&key, &empty_head(), &content);
        assert_eq!(message.len() as u64, layout(size).stored_length(), "{size}");
        let found = checked(size, &key, &message).unwrap_or_else(|error| panic!("{size}: {error}"));
        assert!(found == content, "{size}");
    }
}

#[test]
fn two_messages_with_one_key_and_one_content_have_nothing_in_common() {
    let key = SessionKey::generate().unwrap();
    let content = content(1000);
    let of = || message(&key, &empty_head(), &content)[Head::LENGTH + 4..].to_vec();
    let (first, second) = (of(), of());
    let same = first.iter().zip(&second).filter(|(first, second)| first == second);
    assert!(same.count() < 20);
}

#[test]
fn no_message_has_pieces_or_lengths_that_openpgp_does_not_allow() {
    let ours = Shape::OURS;
    for shape in [
        Shape { outer: 8, ..ours },
        Shape { inner: 31, ..ours },
        Shape { outer: 255, ..ours },
        Shape { head: u64::MAX, ..ours },
    ] {
        assert_eq!(Layout::new(shape, 1), None, "{shape:?}");
    }
    assert_eq!(Layout::new(ours, u64::MAX), None);
    assert_eq!(Layout::new(ours, 1 << 50).map(|layout| layout.content()), Some(1 << 50));
}

#[test]
fn stored_bytes_that_end_too_early_are_an_error() {
    let key = SessionKey::generate().unwrap();
    let content = content(200_000);
    let message = message(&key, &empty_head(), &content);
    let layout = layout(content.len());
    let wanted = 70_000..140_000;
    let stored = layout.stored(&wanted);
    for missing in [1, 100, stored.end - stored.start - 3] {
        let stored = &message[stored.start as usize..(stored.end - missing) as usize];
        let mut reader = PartReader::new(&layout, &key, &wanted, stored);
        let error = std::io::copy(&mut reader, &mut std::io::sink()).unwrap_err();
        assert_eq!(error.to_string(), "it ends too early");
    }
}

/// A size near an edge or anywhere, and parts of such content.
fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        (0..SIZES.len(), -3_i64..3).prop_map(|(at, by)| (SIZES[at] as i64 + by).max(1) as usize),
        1_usize..150_000,
    ]
}

fn parts(size: usize) -> impl Strategy<Value = Vec<Range<u64>>> {
    let size = size as u64;
    let edges = prop_oneof![
        0..size,
        Just(0),
        (0..=size >> 16, 0_u64..80).prop_map(move |(piece, by)| ((piece << 16) + by).saturating_sub(50).min(size - 1)),
    ];
    let lengths = prop_oneof![1_u64..40, 1..size + 1];
    let part = (edges, lengths).prop_map(move |(start, length)| start..(start + length).min(size));
    proptest::collection::vec(part, 1..12)
}

fn sized_parts() -> impl Strategy<Value = (usize, Vec<Range<u64>>)> {
    sizes().prop_flat_map(|size| (Just(size), parts(size)))
}

/// Ranges that follow each other, as those of an archive.
fn consecutive(edges: &[Range<u64>], size: u64) -> Vec<Range<u64>> {
    let mut edges: Vec<u64> = edges.iter().flat_map(|part| [part.start, part.end]).collect();
    edges.push(size);
    edges.sort_unstable();
    edges.dedup();
    edges.windows(2).map(|pair| pair[0]..pair[1]).collect()
}

/// Writes the content with a mark at both ends of each range, in pushes of any size.
fn marked(key: &SessionKey, content: &[u8], ranges: &[Range<u64>]) -> (Vec<u8>, Vec<Range<u64>>) {
    let mut writer = Writer::new(&empty_head(), key).unwrap();
    let (mut message, mut begins, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    let mut drain = |writer: &mut Writer<Side>| {
        while let Some(written) = writer.written() {
            match written {
                Written::Bytes(bytes) => message.extend(bytes),
                Written::Mark(Side::Begin) => begins.push(message.len() as u64),
                Written::Mark(Side::End) => ends.push(message.len() as u64),
            }
        }
    };
    writer.push(&content[..ranges[0].start as usize]);
    for (number, range) in ranges.iter().enumerate() {
        writer.mark(Side::Begin, Side::Begin);
        for bytes in content[range.start as usize..range.end as usize].chunks(30_011) {
            writer.push(bytes);
            if number % 3 == 0 {
                drain(&mut writer);
            }
        }
        writer.mark(Side::End, Side::End);
    }
    writer.finish();
    drain(&mut writer);
    assert_eq!(begins.len(), ends.len());
    let places = begins.into_iter().zip(ends).map(|(begin, end)| begin..end).collect();
    (message, places)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn each_part_is_read_from_its_stored_bytes_alone((size, parts) in sized_parts()) {
        let key = SessionKey::generate().unwrap();
        let content = content(size);
        let message = message(&key, &empty_head(), &content);
        let layout = layout(size);
        for wanted in parts {
            let found = part(&layout, &key, &message, &wanted);
            prop_assert!(found == content[wanted.start as usize..wanted.end as usize], "{wanted:?} of {size}");
            let stored = layout.stored(&wanted);
            // Its own bytes, two blocks, and the lengths of the pieces.
            let pieces = 2 * (2 + ((wanted.end - wanted.start) >> 16));
            prop_assert!(stored.end - stored.start <= wanted.end - wanted.start + 32 + 5 + pieces, "{wanted:?} of {size}");
        }
    }

    #[test]
    fn marks_stand_where_the_layout_says((size, parts) in sized_parts()) {
        let key = SessionKey::generate().unwrap();
        let content = content(size);
        let ranges = consecutive(&parts, size as u64);
        let (message, places) = marked(&key, &content, &ranges);
        let layout = layout(size);
        let expected: Vec<_> = ranges.iter().map(|range| layout.stored(range)).collect();
        prop_assert_eq!(&places, &expected, "{:?} of {}", ranges, size);
        prop_assert!(checked(size, &key, &message).unwrap() == content);
    }

    #[test]
    fn the_sizes_of_the_pushes_do_not_matter(size in sizes(), push in 1_usize..80_000) {
        let key = SessionKey::generate().unwrap();
        let content = content(size);
        let mut writer = Writer::<()>::new(&empty_head(), &key).unwrap();
        let mut message = Vec::new();
        for bytes in content.chunks(push.max(size / 2000)) {
            writer.push(bytes);
            written(&mut writer, &mut message);
        }
        writer.finish();
        written(&mut writer, &mut message);
        prop_assert!(checked(size, &key, &message).unwrap() == content);
    }
}
