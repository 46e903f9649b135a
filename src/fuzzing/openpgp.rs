//! Any bytes, read as the beginning of a message with its session keys; and any content, written to a message.

use std::io::Read;

use secrecy::zeroize::Zeroizing;

use super::Trickle;
use crate::format::openpgp::{self, Head, Layout, PartReader, SecretKey, SessionKey, Shape, Start, Writer, Written};

/// As a message: its beginning is read or refused, and so are its session keys. As content: the message that is
/// written has the length that is computed, is whole, and gives back each half alone.
pub fn check(bytes: &[u8]) {
    beginning(bytes);
    content(bytes);
}

fn beginning(bytes: &[u8]) {
    let Ok(start) = Start::parse(bytes) else {
        return;
    };
    assert!(start.head < bytes.len());
    if let Ok(head) = Head::new(&start.packets) {
        assert_eq!(head.bytes().len(), Head::LENGTH);
        let same = Start::parse(&[head.bytes(), &bytes[start.head..]].concat());
        assert_eq!(same.map(|same| same.packets).as_ref(), Ok(&start.packets));
    }
    // A session key that decrypts is one in 65,536 if it was not meant.
    let secret = include_bytes!("../../tests/fixtures/keys/curve25519.secret.asc");
    if let Ok(secret) = SecretKey::parse(secret, None) {
        let _ = secret.open(&start).is_ok_and(|key| start.fits(&key));
    }
}

fn content(bytes: &[u8]) {
    let key = SessionKey::new(Zeroizing::new([7; SessionKey::LENGTH]));
    let Ok(head) = Head::new(&[]) else {
        return;
    };
    let Ok(mut writer) = Writer::<()>::new(&head, &key) else {
        return;
    };
    let mut message = Vec::new();
    let mut drain = |writer: &mut Writer<()>| {
        while let Some(written) = writer.written() {
            if let Written::Bytes(bytes) = written {
                message.extend(bytes);
            }
        }
    };
    for few in bytes.chunks(1 + bytes.len() / 512) {
        writer.push(few);
        drain(&mut writer);
    }
    writer.finish();
    drain(&mut writer);
    let layout = Layout::new(Shape::OURS, bytes.len() as u64).unwrap_or_else(|| panic!("{} bytes", bytes.len()));
    assert_eq!(message.len() as u64, layout.stored_length());
    let mut found = Vec::new();
    openpgp::check(&layout, &key, Trickle::new(&message), &mut found).unwrap_or_else(|error| panic!("{error}"));
    assert!(found == bytes);
    let middle = bytes.len() as u64 / 2;
    for part in [0..middle, middle..bytes.len() as u64] {
        if part.is_empty() {
            continue;
        }
        let stored = layout.stored(&part);
        let stored = &message[stored.start as usize..stored.end as usize];
        let mut found = Vec::new();
        let mut reader = PartReader::new(&layout, &key, &part, Trickle::new(stored));
        reader.read_to_end(&mut found).unwrap_or_else(|error| panic!("{error}"));
        assert!(found == bytes[part.start as usize..part.end as usize]);
    }
}
