//! The formats, as bytes.

pub mod archive;
pub mod changes;
pub mod fold;
pub mod pgoutput;
