//! Sizes in a file of changes.

/// Once a frame has so many bytes, it ends with the current transaction.
pub const FRAME: usize = 2 << 20;
/// Once a frame has so many bytes, it ends, also within a transaction.
pub const SPLIT: usize = 4 << 20;
/// No message is longer: the server's own limit for a message with a row.
pub const MESSAGE: usize = 1 << 30;
/// The length before each message.
pub const LENGTH: usize = 4;
/// The most bytes that a frame can hold.
pub const FRAME_MOST: u64 = (SPLIT + LENGTH + MESSAGE) as u64;
/// The largest index that is written or read: about a million frames, or descriptions of 200,000 tables.
pub const INDEX: usize = 256 << 20;
/// The memory for decompressing; zstd needs it at level 19.
pub const WINDOW_LOG: u32 = 24;
