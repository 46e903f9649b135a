//! How the bytes move: sources, stages and limits.

pub mod budget;
pub mod compress;
#[cfg(feature = "openpgp")]
pub mod encryption;
pub mod parallel;
pub mod pipeline;
pub mod read_by;
pub mod stored_file;
pub mod throttle;
