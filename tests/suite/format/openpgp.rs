//! Messages of OpenPGP: what is written is read back, whole and in parts, by pgstow and by gpg.

mod damage;
mod keys;
mod places;
mod with_gpg;

use jiff::Timestamp;
use pgstow::format::openpgp::{self, Head, Layout, Recipient, SessionKey, Shape, Writer, Written};

/// The edges of all lengths: of a packet's length, of a piece, and of the first and last pieces of both packets.
pub const SIZES: [usize; 29] = [
    0, 1, 5, 6, 142, 143, 144, 185, 186, 187, 8333, 8334, 8335, 8377, 8378, 8379, 65_482, 65_483, 65_484, 65_529,
    65_530, 65_531, 65_535, 65_536, 131_017, 131_018, 131_066, 196_602, 200_000,
];

/// Later than all keys were made.
pub fn now() -> Timestamp {
    "2025-06-01T00:00:00Z".parse().unwrap()
}

/// Content in which no block is like another.
pub fn content(length: usize) -> Vec<u8> {
    let words = (0..length.div_ceil(8) as u64).map(|at| at.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ at.rotate_left(40));
    let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    bytes.truncate(length);
    bytes
}

pub fn recipient(key: &[u8]) -> Recipient {
    let mut keys = Recipient::parse(key, now()).unwrap();
    assert_eq!(keys.len(), 1);
    keys.remove(0)
}

/// A head for these keys.
pub fn head(key: &SessionKey, readers: &[&str]) -> Head {
    let packets: Vec<_> = readers
        .iter()
        .map(|reader| recipient(&crate::support::gpg::public(reader)).encrypt(key).unwrap())
        .collect();
    Head::new(&packets).unwrap()
}

/// The stored bytes.
pub fn written<M>(writer: &mut Writer<M>, into: &mut Vec<u8>) {
    while let Some(written) = writer.written() {
        if let Written::Bytes(bytes) = written {
            into.extend(bytes);
        }
    }
}

pub fn message(key: &SessionKey, head: &Head, content: &[u8]) -> Vec<u8> {
    let mut writer = Writer::<()>::new(head, key).unwrap();
    let mut message = Vec::new();
    for bytes in content.chunks(100_003) {
        writer.push(bytes);
        written(&mut writer, &mut message);
    }
    writer.finish();
    written(&mut writer, &mut message);
    message
}

pub fn layout(content: usize) -> Layout {
    Layout::new(Shape::OURS, content as u64).unwrap()
}

/// Reads the whole message, and returns its content if it is whole.
pub fn checked(content: usize, key: &SessionKey, message: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut found = Vec::new();
    openpgp::check(&layout(content), key, message, &mut found)?;
    Ok(found)
}
