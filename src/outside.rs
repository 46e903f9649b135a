//! The services that pgstow calls besides the database and the stores.

pub mod aws;
pub mod handover;
pub mod metrics;
pub mod notify;
pub mod secrets;
