//! PostgreSQL as we meet it: how to connect, what the server says of itself, and its own
//! programs.

mod conninfo;
mod redaction;
mod tls;

pub use conninfo::ConnectionInfo;
pub use redaction::Redactor;
