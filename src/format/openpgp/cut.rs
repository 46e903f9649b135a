//! A packet whose body is in pieces of one size, each after its length. The last piece may be shorter, and empty.

use super::packet::{first_byte, length_of_length, partial, write_length};

/// How the body of a packet is cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub tag: u8,
    /// A piece has 2^`exponent` bytes.
    pub exponent: u8,
    /// The length of the body.
    pub body: u64,
}

impl Cut {
    pub fn piece(&self) -> u64 {
        1 << self.exponent
    }

    /// The length of the packet.
    pub fn length(&self) -> u64 {
        let whole = self.body >> self.exponent;
        let rest = self.body & (self.piece() - 1);
        1 + whole + self.body + length_of_length(rest)
    }

    /// Where in the packet the body's byte `at` is.
    pub fn place(&self, at: u64) -> u64 {
        let whole = self.body >> self.exponent;
        let piece = at >> self.exponent;
        let lengths = if piece < whole {
            piece + 1
        } else {
            whole + length_of_length(self.body & (self.piece() - 1))
        };
        1 + lengths + at
    }

    /// All that is between the bodies of two pieces: before the one that begins at `begin`.
    pub fn header(&self, begin: u64) -> Vec<u8> {
        let rest = self.body.saturating_sub(begin);
        // A last piece is shorter than 2^30 bytes.
        let last = (rest < self.piece()).then_some(rest as u32);
        header(self.tag, self.exponent, begin == 0, last)
    }
}

/// The bytes before a piece, of which `last` is the length if it is the last one.
pub(super) fn header(tag: u8, exponent: u8, is_first: bool, last: Option<u32>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(6);
    if is_first {
        bytes.push(first_byte(tag));
    }
    match last {
        None => bytes.push(partial(exponent)),
        Some(length) => write_length(&mut bytes, length),
    }
    bytes
}
