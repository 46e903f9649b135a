//! Where each byte of the content is stored: arithmetic only.
//!
//! Three counts are used: the content's bytes; the bytes that CFB encrypts, from the prefix on; and the stored bytes.

use std::ops::{Range, RangeInclusive};

use super::cfb::BLOCK;
use super::cut::Cut;
use super::head::Head;
use super::packet::{DATA, LITERAL};

/// The version byte, which is not encrypted.
pub(super) const VERSION: u64 = 1;
/// 16 random bytes, and the last two of them again.
pub(super) const PREFIX: u64 = BLOCK as u64 + 2;
/// The beginning of the literal packet's body: its kind, an empty name, no date.
pub(super) const LITERAL_START: [u8; 6] = *b"b\0\0\0\0\0";
/// The packet with the SHA-1: its first two bytes, and the digest.
pub(super) const DIGEST_START: [u8; 2] = [0xD3, 0x14];
pub(super) const DIGEST: u64 = 2 + 20;

/// OpenPGP allows no first piece shorter than 512 bytes, and none longer than 1 GiB.
const EXPONENTS: RangeInclusive<u8> = 9..=30;
const MOST_HEAD: u64 = 1 << 24;
const MOST_CONTENT: u64 = 1 << 56;

/// How a message is laid out, whatever its content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The bytes before the data packet.
    pub head: u64,
    /// The size of the data packet's pieces, as a power of two.
    pub outer: u8,
    /// The same for the literal packet's.
    pub inner: u8,
}

impl Shape {
    /// All messages that pgstow writes have it.
    pub const OURS: Self = Self {
        head: Head::LENGTH as u64,
        outer: 16,
        inner: 16,
    };
}

/// The places in one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    shape: Shape,
    content: u64,
}

impl Layout {
    /// `content` is the content's length. `None` if no message has such lengths.
    pub fn new(shape: Shape, content: u64) -> Option<Self> {
        let exponents = EXPONENTS.contains(&shape.outer) && EXPONENTS.contains(&shape.inner);
        (exponents && shape.head <= MOST_HEAD && content <= MOST_CONTENT).then_some(Self { shape, content })
    }

    /// The length of the content.
    pub fn content(&self) -> u64 {
        self.content
    }

    /// The length of the head.
    pub fn head(&self) -> u64 {
        self.shape.head
    }

    /// The length of the message.
    pub fn stored_length(&self) -> u64 {
        self.shape.head + self.outer().length()
    }

    /// The stored bytes that are needed to read this part of the content: its own, and one to two blocks before them.
    /// The part is not empty, and ends within the content.
    pub fn stored(&self, part: &Range<u64>) -> Range<u64> {
        let encrypted = self.encrypted(part);
        self.place(encrypted.start)..self.place(encrypted.end - 1) + 1
    }

    /// The same, counted among the encrypted bytes. It begins with a whole block, which is needed as the IV: before
    /// the content's first byte there are more than 16 others.
    pub(super) fn encrypted(&self, part: &Range<u64>) -> Range<u64> {
        debug_assert!(part.start < part.end && part.end <= self.content);
        before(self.encrypted_at(part.start))..self.encrypted_at(part.end - 1) + 1
    }

    /// Where among the encrypted bytes this byte of the content is.
    pub(super) fn encrypted_at(&self, content: u64) -> u64 {
        PREFIX + self.inner().place(LITERAL_START.len() as u64 + content)
    }

    /// Where this encrypted byte is stored.
    fn place(&self, encrypted: u64) -> u64 {
        self.shape.head + self.outer().place(VERSION + encrypted)
    }

    pub(super) fn inner(&self) -> Cut {
        Cut {
            tag: LITERAL,
            exponent: self.shape.inner,
            body: LITERAL_START.len() as u64 + self.content,
        }
    }

    pub(super) fn outer(&self) -> Cut {
        Cut {
            tag: DATA,
            exponent: self.shape.outer,
            body: VERSION + PREFIX + self.inner().length() + DIGEST,
        }
    }
}

/// The block before the one that holds this encrypted byte, which is not in the first.
pub(super) fn before(encrypted: u64) -> u64 {
    (encrypted & !(BLOCK as u64 - 1)) - BLOCK as u64
}
