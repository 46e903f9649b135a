//! The clock, which a face passes in, so that plans stay functions of their inputs.

use jiff::Timestamp;

/// Returns the current time.
pub type Clock = fn() -> Timestamp;
