//! pg_dump's formats and the stream of changes, as bytes. Nothing here sends a request to a server or a store.

pub mod archive;
pub mod changes;
pub mod fold;
mod lsn;
#[cfg(feature = "openpgp")]
pub mod openpgp;
pub mod pgoutput;
pub mod script;

pub use lsn::{Lsn, NoLsn};

/// The format in which pg_dump writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Custom,
    Plain,
}
