//! Messages that are damaged, cut, or another's.

use pgstow::format::openpgp::{Head, MessageError, SessionKey, Start};

use super::{checked, content, head, message};

const SIZE: usize = 70_000;

fn error(key: &SessionKey, message: &[u8]) -> MessageError {
    let error = checked(SIZE, key, message).unwrap_err();
    match error.get_ref().and_then(|inner| inner.downcast_ref::<MessageError>()) {
        Some(why) => why.clone(),
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => MessageError::Cut,
        None => panic!("{error}"),
    }
}

#[test]
fn no_flipped_bit_of_the_data_remains_unnoticed() {
    let key = SessionKey::generate().unwrap();
    let whole = message(&key, &Head::new(&[]).unwrap(), &content(SIZE));
    // All places at both ends, where the packets and the digest are, and some between them.
    let first = Head::LENGTH..Head::LENGTH + 60;
    let last = whole.len() - 60..whole.len();
    let between = (first.end..last.start).step_by(4999);
    // The lengths before the second pieces.
    let lengths = Head::LENGTH + 65_536 - 4..Head::LENGTH + 65_536 + 60;
    for at in first.chain(lengths).chain(between).chain(last) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(checked(SIZE, &key, &flipped).is_err(), "a bit of byte {at}");
    }
}

#[test]
fn a_message_that_is_cut_or_goes_on_is_refused() {
    let key = SessionKey::generate().unwrap();
    let whole = message(&key, &Head::new(&[]).unwrap(), &content(SIZE));
    let lengths = (0..whole.len()).step_by(3001);
    // gpg prints nothing and succeeds if all after the head is missing.
    for length in lengths.chain([Head::LENGTH, Head::LENGTH + 1, Head::LENGTH + 20, whole.len() - 1]) {
        assert_eq!(error(&key, &whole[..length]), MessageError::Cut, "{length} bytes");
    }
    let longer = [&whole[..], b"\0"].concat();
    assert_eq!(error(&key, &longer), MessageError::Rest);
}

#[test]
fn another_key_is_recognised_at_the_first_bytes() {
    let (key, other) = (SessionKey::generate().unwrap(), SessionKey::generate().unwrap());
    let whole = message(&key, &head(&key, &["curve25519"]), &content(SIZE));
    assert_eq!(error(&other, &whole), MessageError::Prefix);
    let start = Start::parse(&whole[..Head::LENGTH + Start::AFTER_HEAD]).unwrap();
    assert_eq!((start.head, start.packets.len()), (Head::LENGTH, 1));
    assert!(start.fits(&key));
    assert!(!start.fits(&other));
}

#[test]
fn the_beginning_of_a_message_is_read_or_refused() {
    let key = SessionKey::generate().unwrap();
    let whole = message(&key, &head(&key, &["curve25519", "rsa4096"]), b"");
    for length in 0..whole.len() {
        let start = Start::parse(&whole[..length]);
        let enough = length >= Head::LENGTH + 2 + 19;
        assert_eq!(start.is_ok(), enough, "{length} bytes: {start:?}");
    }
    let refused = |bytes: &[u8]| Start::parse(bytes).unwrap_err();
    assert_eq!(refused(b"PGDMP\x01\x0e\0"), MessageError::NoPacket);
    // A signature, and compressed data.
    assert_eq!(refused(b"\xc2\x01\0"), MessageError::Packet(2));
    assert_eq!(refused(b"\xa3\x01\0"), MessageError::Packet(8));
    // A session key without an end.
    assert_eq!(refused(b"\xc1\xe1\0\0"), MessageError::NoLength);
    // The newer kind of encrypted data, which gpg 2.2 does not know.
    assert_eq!(refused(b"\xd2\x15\x02\x09\x02\x06"), MessageError::Version(2));
}
