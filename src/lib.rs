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
pub mod doctor;
pub mod download;
pub mod drill;
pub mod error;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
pub mod handover;
pub mod lambda;
pub mod lease;
pub mod leftovers;
pub mod lifecycle;
pub mod list;
pub mod manifest;
pub mod memory;
pub mod metrics;
pub mod notify;
pub mod pipeline;
pub mod postgres;
pub mod private_folder;
pub mod progress;
pub mod prune;
pub mod report;
pub mod restore;
pub mod retention;
pub mod secrets;
pub mod settings;
pub mod status;
pub mod stop;
pub mod store;
pub mod stored_archive;
pub mod streams;
pub mod telemetry;
pub mod throttle;
pub mod verification;
pub mod verify;
