//! pg_dump's formats, as bytes: nothing here asks a server or a store.

pub mod archive;
pub mod script;
