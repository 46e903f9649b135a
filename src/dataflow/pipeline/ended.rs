//! How the path ended, and each store's part of it.

use crate::error::{Error, Result};
use crate::store::Upload;

/// Why the bytes stopped before their end, as the threads of the path tell each other.
pub enum Ended {
    Failed(Error),
    /// The stores take no more bytes; the fan-out knows why.
    OutletsClosed,
}

/// Why nothing came out. The caller weighs a source failure against how pg_dump ended.
pub enum Failure {
    Source(Error),
    Store(Error),
    Stopped,
}

/// What became of one store's upload when all bytes have passed: still open, or failed and
/// aborted.
pub type UploadOutcome = Result<Box<dyn Upload>>;
