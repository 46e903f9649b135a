//! PostgreSQL backups that prove themselves.

pub mod archive;
pub mod aws;
pub mod backup_id;
pub mod catalog;
pub mod command;
pub mod compress;
pub mod error;
pub mod lease;
pub mod leftovers;
pub mod manifest;
pub mod pipeline;
pub mod postgres;
pub mod progress;
pub mod retention;
pub mod secrets;
pub mod settings;
pub mod store;
