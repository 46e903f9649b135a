//! PostgreSQL backups that prove themselves.

pub mod aws;
pub mod backup_id;
pub mod catalog;
pub mod command;
pub mod error;
pub mod lease;
pub mod leftovers;
pub mod manifest;
pub mod notify;
pub mod postgres;
pub mod retention;
pub mod settings;
pub mod store;
