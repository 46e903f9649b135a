//! What a backup is, and where it is recorded.

pub mod backup_id;
pub mod catalog;
pub mod chain;
pub mod lease;
pub mod leftovers;
pub mod manifest;
pub mod references;
pub mod retention;
pub mod route;
pub mod seen_catalog;
pub mod signature;
pub mod stored_archive;
pub mod stored_changes;
pub mod stored_script;
pub mod stream_beginning;
pub mod trigger;
pub mod verification;
pub mod window;
