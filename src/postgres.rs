//! PostgreSQL as we meet it: how to connect, what the server says of itself, and its own
//! programs.

mod conninfo;

pub use conninfo::ConnectionInfo;
