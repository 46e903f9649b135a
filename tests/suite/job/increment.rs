//! `pgstow backup --kind incremental`: what is stored, what is confirmed, and what a broken chain becomes.

mod afterwards;
mod broken;
mod copies;
mod crashes;
mod following;
mod plain_roles;
mod reading;
pub mod scene;
mod steps;
