//! pg_dump's formats, as bytes. Nothing here sends a request to a server or a store.

pub mod archive;
pub mod script;

/// The format in which pg_dump writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Custom,
    Plain,
}
