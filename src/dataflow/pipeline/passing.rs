//! What passes from the framing through the stages to the seal: bytes, with marks between them.

use bytes::Bytes;

/// What passes from the framing to the seal.
pub enum Passing {
    Bytes(Bytes),
    Mark(Mark),
}

/// A position between bytes. [`Mark::Begin`] marks keep their order among themselves, and so do the others. A range
/// may begin before the previous one has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// The beginning of a range. All bytes that are needed to read the content from here on come after it.
    Begin,
    /// The end of the oldest open range. All bytes that are needed to read its content have come before it.
    End,
    /// The oldest open range does not count: its block turned out to be too short for several ranges.
    Dropped,
}
