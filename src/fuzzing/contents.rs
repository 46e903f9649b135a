//! Any bytes, read as an archive's head: header and table of contents.

use std::io::Read;

use super::Trickle;
use crate::format::archive::{BlockCompression, Head, Input, contents};

/// Reading ends with an error or a head, and does not depend on how the bytes are cut. A head has the length of the
/// bytes that were read. Written again, with or without offsets and with any compression, it has the same length, and
/// everything else in it is the same.
pub fn check(bytes: &[u8]) {
    let read = read(bytes);
    let in_pieces = self::read(Trickle::new(bytes));
    assert_eq!(read.as_ref().err(), in_pieces.as_ref().err(), "in small pieces");
    let (Ok(head), Ok(in_pieces)) = (read, in_pieces) else {
        return;
    };
    assert_same(&head, &in_pieces);
    assert!(head.len() <= bytes.len());
    let bytes = &bytes[..head.len()];

    let items = contents(&head).expect("what was read once is read again");
    assert_eq!(items.len(), head.entries);
    let with_data = items.iter().map(|item| &item.entry).filter(|entry| entry.has_data);
    assert!(with_data.eq(&head.data));
    let statements = head.copy_statements().expect("as the contents");
    assert_eq!(statements.len(), head.data.len());

    if head.version.names_algorithm() {
        assert_eq!(head.announcing(head.compression, 1), bytes);
    }
    for compression in [BlockCompression::None, BlockCompression::Gzip, BlockCompression::Zstd] {
        let written = head.announcing(compression, 6);
        let again = read_all(&written);
        assert_same(&head, &again);
        assert_eq!(again.positions(), head.positions());
        if head.version.names_algorithm() {
            assert_eq!(again.compression, compression);
        } else {
            assert_eq!(
                again.compression == BlockCompression::None,
                compression == BlockCompression::None
            );
        }
    }

    let bare = read_all(&head.without_offsets());
    assert_same(&head, &bare);
    assert_eq!(bare.positions().is_some(), head.data.is_empty());

    // An offset has this many bits.
    let mask = u64::MAX >> (64 - 8 * head.offset_size);
    let positions: Vec<u64> = (1..=head.data.len() as u64)
        .map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask)
        .collect();
    let stored = read_all(&head.with_offsets(bytes.to_vec(), &positions));
    assert_same(&head, &stored);
    assert_eq!(stored.positions(), Some(positions));
    assert_eq!(stored.without_offsets(), head.without_offsets());
}

fn read(source: impl Read) -> Result<Head, String> {
    let mut input = Input::new(source);
    let head = Head::read(&mut input).map_err(|error| error.to_string())?;
    assert_eq!(input.position(), head.len() as u64);
    Ok(head)
}

/// Reads a head that pgstow wrote.
fn read_all(bytes: &[u8]) -> Head {
    let head = read(bytes).expect("a head that was written is read");
    assert_eq!(head.len(), bytes.len());
    head
}

/// Asserts that two heads are equal, except for compression and offsets.
fn assert_same(one: &Head, other: &Head) {
    assert_eq!(one.version, other.version);
    assert_eq!((one.int_size, one.offset_size), (other.int_size, other.offset_size));
    assert_eq!(one.database, other.database);
    assert_eq!(one.server_version, other.server_version);
    assert_eq!(one.pg_dump_version, other.pg_dump_version);
    assert_eq!(one.entries, other.entries);
    assert_eq!(one.data, other.data);
    assert_eq!(contents(one).ok(), contents(other).ok());
}
