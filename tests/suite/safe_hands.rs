//! Hostile databases, hostile stores, hostile networks: each attack as it was made.

mod logins;
mod sessions;
mod signatures;
mod statements;
