//! pg_dump's formats, as bytes.

pub mod archive;
