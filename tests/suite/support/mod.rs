//! The real services behind the tests, and the stock programs that judge our work.
//!
//! `make test` (scripts/test.sh) starts the services and names them in the environment.

pub mod bucket;
pub mod contents;
pub mod database;
pub mod disk;
pub mod fault_proxy;
pub mod function;
#[cfg(feature = "openpgp")]
pub mod gpg;
pub mod held;
pub mod http;
pub mod iam_front;
pub mod impostor;
pub mod increments;
pub mod kms;
pub mod lock;
pub mod locked_cloud;
pub mod memory;
pub mod moto;
pub mod plain;
pub mod planted;
pub mod program;
pub mod role;
pub mod secrets_proxy;
pub mod server;
pub mod services;
pub mod silent_proxy;
pub mod sql;
pub mod stream;
pub mod throwaway;
pub mod tls_front;
pub mod watched_wire;
pub mod wreck;
