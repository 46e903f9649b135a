//! PostgreSQL backups that prove themselves.

pub mod app;
pub mod cli;
pub mod command;
pub mod error;
pub mod lambda;
pub mod postgres;
pub mod progress;
pub mod report;
pub mod retention;
pub mod settings;
pub mod stop;
pub mod store;
pub mod telemetry;
