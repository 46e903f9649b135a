//! How bytes move.

#[cfg(feature = "openpgp")]
pub mod encryption;
pub mod parallel;
