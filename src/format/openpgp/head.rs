//! The fixed area at the beginning of a message, with the session key for each reader.

use bytes::Bytes;

use super::error::KeyError;
use super::packet::{PADDING, SessionKeyPacket, first_byte, write_long_length};

/// The session key for each reader, and a padding packet, in [`Head::LENGTH`] bytes.
///
/// gpg 2.2 passes over the padding packet only after a session key; before one it fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head(Bytes);

impl Head {
    /// Room for 7 keys of RSA with 4096 bits, or for 42 of Curve25519.
    pub const LENGTH: usize = 4096;

    pub fn new(packets: &[SessionKeyPacket]) -> Result<Self, KeyError> {
        let mut head = packets.iter().flat_map(SessionKeyPacket::to_bytes).collect::<Vec<u8>>();
        let Some(room) = Self::LENGTH.checked_sub(head.len()).filter(|room| *room != 1) else {
            return Err(KeyError::TooMany {
                readers: packets.len(),
                needed: head.len(),
                room: Self::LENGTH,
            });
        };
        match room {
            0 => {}
            2..6 => head.extend([first_byte(PADDING), room as u8 - 2]),
            _ => {
                head.push(first_byte(PADDING));
                write_long_length(&mut head, room as u32 - 6);
            }
        }
        head.resize(Self::LENGTH, 0);
        Ok(Self(head.into()))
    }

    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}
