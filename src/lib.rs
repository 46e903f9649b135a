//! PostgreSQL backups that prove themselves.

pub mod app;
pub mod archive;
pub mod aws;
pub mod backup;
pub mod backup_id;
pub mod catalog;
pub mod cli;
pub mod command;
pub mod compress;
pub mod error;
pub mod lambda;
pub mod lease;
pub mod leftovers;
pub mod lifecycle;
pub mod manifest;
pub mod notify;
pub mod pipeline;
pub mod postgres;
pub mod progress;
pub mod report;
pub mod retention;
pub mod secrets;
pub mod settings;
pub mod stop;
pub mod store;
pub mod telemetry;
