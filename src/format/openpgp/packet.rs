//! The packets before a message's data, and the lengths of packets.

use super::error::MessageError;

/// A session key that is encrypted to a public key.
pub(super) const FOR_KEY: u8 = 1;
/// A session key that is encrypted with a passphrase.
pub(super) const FOR_PASSPHRASE: u8 = 3;
const MARKER: u8 = 10;
/// Encrypted data with its SHA-1.
pub(super) const DATA: u8 = 18;
pub(super) const LITERAL: u8 = 11;
pub(super) const PADDING: u8 = 21;

/// The first byte of a packet in the current format.
pub(super) const fn first_byte(tag: u8) -> u8 {
    0xC0 | tag
}

/// The length byte of a piece of 2^`exponent` bytes that is not the last one.
pub(super) const fn partial(exponent: u8) -> u8 {
    0xE0 | exponent
}

/// How many bytes [`write_length`] writes.
pub(super) const fn length_of_length(length: u64) -> u64 {
    match length {
        0..192 => 1,
        192..8384 => 2,
        _ => 5,
    }
}

pub(super) fn write_length(out: &mut Vec<u8>, length: u32) {
    match length {
        0..192 => out.push(length as u8),
        192..8384 => {
            let rest = length - 192;
            out.extend([(rest >> 8) as u8 + 192, rest as u8]);
        }
        _ => write_long_length(out, length),
    }
}

/// In five bytes, however small it is.
pub(super) fn write_long_length(out: &mut Vec<u8>, length: u32) {
    out.push(255);
    out.extend(length.to_be_bytes());
}

/// The session key of a message, encrypted for one reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionKeyPacket {
    pub(super) tag: u8,
    pub(super) body: Vec<u8>,
}

impl SessionKeyPacket {
    /// As it is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![first_byte(self.tag)];
        // A body is far below 4 GiB: it was made here, or read from a head.
        write_length(&mut bytes, self.body.len() as u32);
        bytes.extend(&self.body);
        bytes
    }

    pub(super) fn is_for_key(&self) -> bool {
        self.tag == FOR_KEY
    }

    /// The id of the key that it is encrypted to, as gpg prints it. `None` if it is encrypted with a passphrase, or
    /// hides its reader.
    pub fn reader(&self) -> Option<String> {
        let id = self.body.get(1..9).filter(|_| self.is_for_key())?;
        id.iter().any(|byte| *byte != 0).then(|| hex::encode_upper(id))
    }
}

/// The length that a packet's first bytes give.
enum Length {
    Whole(usize),
    /// The packet is in pieces, or ends with the file.
    Open,
}

/// What begins at a packet's first byte.
struct Header {
    tag: u8,
    length: Length,
    /// Its own length.
    bytes: usize,
}

fn header(bytes: &[u8]) -> Result<Header, MessageError> {
    let first = *bytes.first().ok_or(MessageError::Cut)?;
    match first {
        0xC0.. => current_header(first & 0x3F, bytes),
        0x80.. => older_header(first, bytes),
        _ => Err(MessageError::NoPacket),
    }
}

fn current_header(tag: u8, bytes: &[u8]) -> Result<Header, MessageError> {
    let byte = |at: usize| bytes.get(at).map(|byte| usize::from(*byte)).ok_or(MessageError::Cut);
    let (length, bytes) = match byte(1)? {
        first @ 0..192 => (Length::Whole(first), 2),
        first @ 192..224 => (Length::Whole(((first - 192) << 8) + byte(2)? + 192), 3),
        255 => (Length::Whole(big_endian(bytes, 2..6)?), 6),
        _ => (Length::Open, 2),
    };
    Ok(Header { tag, length, bytes })
}

/// As gpg writes the packets of session keys.
fn older_header(first: u8, bytes: &[u8]) -> Result<Header, MessageError> {
    let tag = first >> 2 & 0xF;
    let (length, bytes) = match first & 3 {
        0 => (Length::Whole(big_endian(bytes, 1..2)?), 2),
        1 => (Length::Whole(big_endian(bytes, 1..3)?), 3),
        2 => (Length::Whole(big_endian(bytes, 1..5)?), 5),
        _ => (Length::Open, 1),
    };
    Ok(Header { tag, length, bytes })
}

fn big_endian(bytes: &[u8], at: std::ops::Range<usize>) -> Result<usize, MessageError> {
    let bytes = bytes.get(at).ok_or(MessageError::Cut)?;
    Ok(bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
}

/// The session keys at the beginning of a message, and where its data begins. At the end of `bytes` the list ends too:
/// a file may hold only session keys.
pub(super) fn session_keys(bytes: &[u8]) -> Result<(Vec<SessionKeyPacket>, usize), MessageError> {
    let mut packets = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let header = header(&bytes[at..])?;
        match header.tag {
            DATA => break,
            FOR_KEY | FOR_PASSPHRASE | MARKER | PADDING => {}
            other => return Err(MessageError::Packet(other)),
        }
        let Length::Whole(length) = header.length else {
            return Err(MessageError::NoLength);
        };
        let begin = at + header.bytes;
        let body = bytes[begin..].get(..length).ok_or(MessageError::Cut)?;
        if matches!(header.tag, FOR_KEY | FOR_PASSPHRASE) {
            packets.push(SessionKeyPacket {
                tag: header.tag,
                body: body.to_vec(),
            });
        }
        at = begin + length;
    }
    Ok((packets, at))
}

/// The first bytes of the data packet's body.
pub(super) fn data(bytes: &[u8]) -> Result<&[u8], MessageError> {
    let header = header(bytes)?;
    match header.tag {
        DATA => Ok(&bytes[header.bytes..]),
        other => Err(MessageError::Packet(other)),
    }
}
