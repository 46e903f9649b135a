//! How the path ended, and how each store's part of it ended.

use crate::error::{Error, Result};
use crate::store::Upload;

/// Why the bytes stopped before their end, as the threads of the path report it to each other.
pub enum Ended {
    Failed(Error),
    /// The stores take no more bytes; the fan-out knows the reason.
    OutletsClosed,
}

/// Why there is no result. The caller compares a source failure with how pg_dump ended.
pub enum Failure {
    Source(Error),
    Store(Error),
    Stopped,
}

/// The state of one store's upload after all bytes have passed: still open, or failed and aborted.
pub type UploadOutcome = Result<Box<dyn Upload>>;
