//! The beginning of a message: its session keys, and a sign whether a session key is the right one.

use std::io::Read;

use super::cfb::Decrypted;
use super::error::MessageError;
use super::layout::{PREFIX, VERSION};
use super::packet::{self, SessionKeyPacket};
use super::session_key::SessionKey;
use super::whole::is_prefix;

/// The encrypted session keys of a message, and the first bytes of its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    pub packets: Vec<SessionKeyPacket>,
    /// How many bytes are before the data packet.
    pub head: usize,
    prefix: [u8; PREFIX as usize],
}

impl Start {
    /// As many bytes of the data packet as are needed.
    pub const AFTER_HEAD: usize = 6 + VERSION as usize + PREFIX as usize;

    /// `bytes` are a message's first, at least [`Start::AFTER_HEAD`] more than its head has, or the whole message.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let (packets, head) = packet::session_keys(bytes)?;
        let data = packet::data(&bytes[head..])?;
        let (version, data) = data.split_first().ok_or(MessageError::Cut)?;
        if *version != 1 {
            return Err(MessageError::Version(*version));
        }
        let prefix = *data.first_chunk().ok_or(MessageError::Cut)?;
        Ok(Self { packets, head, prefix })
    }

    /// Whether the session key can be the message's. One wrong key in 65,536 seems right.
    pub fn fits(&self, key: &SessionKey) -> bool {
        let mut prefix = [0; PREFIX as usize];
        let read = Decrypted::from_start(&self.prefix[..], key).read_exact(&mut prefix);
        read.is_ok() && is_prefix(&prefix)
    }
}
