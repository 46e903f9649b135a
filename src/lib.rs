//! PostgreSQL backups that prove themselves.

pub mod app;
pub mod command;
pub mod dataflow;
pub mod error;
pub mod face;
pub mod format;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
pub mod job;
pub mod outside;
pub mod postgres;
pub mod printable;
pub mod report;
pub mod repository;
pub mod run;
pub mod settings;
pub mod store;
pub mod units;
