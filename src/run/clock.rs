//! The clock, which a face passes in, so that plans stay functions of their inputs.

use jiff::Timestamp;

/// What tells the time.
pub type Clock = fn() -> Timestamp;
