//! Attacks: hostile databases, hostile stores, hostile neighbours. Each is tried as it would be done.

mod forging;
mod globals;
mod scripts;
