//! What pgstow does, one command each; every job reads as a table of contents.

pub mod backup;
pub mod doctor;
pub mod download;
pub mod drill;
pub mod list;
pub mod prune;
pub mod restore;
pub mod retention;
pub mod status;
pub mod verify;
