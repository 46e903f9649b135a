//! PostgreSQL backups that prove themselves.

pub mod command;
pub mod error;
pub mod postgres;
pub mod retention;
pub mod secrets;
pub mod settings;
pub mod store;
