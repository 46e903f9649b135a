//! Hostile databases, hostile stores, hostile networks: each attack as it was made, and what comes of it.

mod copies;
pub mod drill;
mod files;
pub mod forging;
mod future;
mod globals;
mod in_place;
mod logins;
mod messages;
mod outputs;
mod scripts;
pub mod sessions;
mod sharing;
mod statements;
mod tags;
