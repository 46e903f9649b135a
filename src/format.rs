//! pg_dump's formats, as bytes: nothing here asks a server or a store.

pub mod archive;
pub mod script;

/// In which of its forms pg_dump writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Custom,
    Plain,
}
