//! PostgreSQL as we meet it: how to connect, what the server says of itself, and its own
//! programs.

mod authentication;
mod child;
mod condition;
mod connection;
mod conninfo;
mod dump;
mod globals;
mod inventory;
mod load;
mod passfile;
mod pooler;
mod privileges;
mod programs;
pub mod quoting;
mod redaction;
mod relay;
mod restoring;
mod scratch;
mod script;
mod server;
mod stall;
mod tap;
mod target;
mod tls;
mod wire;

pub use condition::{Encryption, Replication};
pub use connection::Session;
pub use conninfo::ConnectionInfo;
pub(crate) use dump::BYPASS_HINT;
pub use dump::{Contents, Dump, DumpOrder, globals};
pub use globals::{AppliedGlobals, GlobalsPlan, Omitted, Powers, Statement, statements};
pub use load::Load;
pub use passfile::Passfile;
pub use privileges::{Unreadable, UnreadableKind};
pub use programs::{Programs, Psql, RestoreProgram, ServerPrograms};
pub use redaction::Redactor;
pub use restoring::{ArchiveInput, RestoreEnd, RestoreOrder, Restoring, Section};
pub use scratch::{Lacking, SchemaGrants, ScratchServer};
pub use script::{Edit, Refused, Screen, Script, ScriptInput, TransactionEnd, transaction_end};
pub use server::{DatabaseSize, ServerInfo, Snapshot, TableName};
pub use stall::{StallClock, WatchedPipe};
pub use target::{Named, Target};
pub use tls::Verified;
pub(crate) use wire::{READ, Refusal, Row, Rows, Wire};
