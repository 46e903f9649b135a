//! `pgstow backup --kind incremental`: what is stored, what is confirmed, and what a broken chain becomes.

mod broken;
mod crashes;
mod following;
mod reading;
pub mod scene;
