//! Hostile databases, hostile stores, hostile networks: each attack as it was made, and what comes of it.

mod files;
mod future;
mod logins;
mod outputs;
mod sessions;
mod signatures;
mod statements;
mod tags;
