//! What passes from the framing through the stages to the seal: bytes, and marks among them.

use bytes::Bytes;

/// What travels from the framing to the seal.
pub enum Passing {
    Bytes(Bytes),
    Mark(Mark),
}

/// A place among the bytes. Marks [`Mark::Begin`] keep their order among themselves, and so do the
/// others; a range may begin before the one in front of it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Of a range. Whatever is needed to read the content from here on comes after it.
    Begin,
    /// Of the oldest open range. Whatever is needed to read its content has come before it.
    End,
    /// The oldest open range counts for nothing: its block turned out to be too short for several.
    Dropped,
}
