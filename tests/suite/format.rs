//! The formats, as bytes.

pub mod archive;
pub mod changes;
pub mod fold;
#[cfg(feature = "openpgp")]
pub mod openpgp;
pub mod pgoutput;
