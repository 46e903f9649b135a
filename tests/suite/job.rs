//! The commands, run as programs on real servers and stores, and judged by their results.

pub mod backup;
mod doctor;
mod download;
mod drill;
pub mod increment;
mod increment_ddl;
mod incremental;
mod list;
mod prune;
pub mod restore;
mod retention;
mod status;
mod verify;
