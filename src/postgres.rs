//! PostgreSQL as a client sees it: connections, what the server reports about itself, and its own programs.

mod allowed;
mod authentication;
mod belongings;
mod beside;
mod child;
mod closed;
mod collations;
mod columns;
mod condition;
mod connection;
mod conninfo;
mod copying;
mod decoding;
mod dump;
mod explaining;
mod extensions;
mod features;
mod fingerprint;
mod globals;
mod hold;
mod holders;
mod horizon;
mod inhabitants;
mod inside;
mod inventory;
mod left_out;
mod lent;
mod load;
mod logins;
mod objects;
mod occupancy;
mod older_transactions;
mod parts;
mod passfile;
mod pooler;
mod privileges;
mod programs;
mod publications;
pub mod quoting;
mod raw_names;
mod recheck;
mod redaction;
mod refusal;
mod relay;
mod removal;
mod replication;
mod restoring;
mod scratch;
mod script;
mod sequences;
mod server;
mod serving;
pub mod settings;
mod settled;
mod slot;
mod slot_name;
mod snapshot;
mod stall;
mod startup;
mod stream;
mod surroundings;
mod table_catalog;
mod tables;
mod tallies;
mod target;
mod tls;
mod unfinished;
mod wire;

pub use allowed::{Deed, Foreign};
pub(crate) use belongings::Belonging;
pub(crate) use beside::{COPY_OF, ExistingObject, Room};
pub use collations::{Collation, sorted_otherwise};
pub use columns::TableColumn;
pub use condition::{ConnectionEncryption, Replication};
pub use connection::Session;
pub use conninfo::{
    ConnectionInfo, Files, Keys, Login, PasswordFile, Provider, Whose, is_connection_url, text_of_secret,
};
pub use decoding::{Decoding, IdleTimeout, Service};
pub use dump::{Contents, Dump, DumpOrder, Unbegun, globals};
pub(crate) use extensions::MemberGrant;
pub use extensions::{Extension, Member, MemberKind};
pub(crate) use features::Feature;
pub use globals::{
    AppliedGlobals, ComparedGlobals, DatabaseSetting, Globals, GlobalsPlan, Omitted, Powers, Statement, WITHHELD,
    statements,
};
pub use hold::{Hold, Taken};
pub(crate) use hold::{PLANS, see};
pub use horizon::Horizon;
pub(crate) use inhabitants::Inhabitant;
pub(crate) use inside::{Inside, Mark};
pub use left_out::{FOREIGN_TABLE, LeftOut};
pub use load::ServerLoad;
pub(crate) use objects::{Trait, TraitKind};
pub use older_transactions::{OlderTransactions, OldestTransaction};
pub use passfile::Passfile;
pub use privileges::{Unreadable, UnreadableKind};
pub use programs::{Programs, Psql, RestoreProgram, ServerPrograms};
pub use publications::{Listing, Memberships, Postponed, PublicationChanges, Publications, Published};
pub(crate) use publications::{add_table, create_publication};
pub use raw_names::RawTable;
pub use redaction::Redactor;
pub(crate) use refusal::Refusal;
pub(crate) use removal::names_are_taken;
pub use removal::{Definition, Removal, Renewal};
pub use replication::{ReplicationSession, StreamSource, Streamed};
pub use restoring::{ArchiveInput, Complaint, RestoreEnd, RestoreOrder, Restoring};
pub use scratch::{Lacking, ROOM, SchemaGrants, ScratchServer, SequencePosition, Told, free_bytes, lacks_room};
pub use script::{Script, ScriptInput, TransactionEnd, transaction_end};
pub use sequences::{SequenceReading, SequenceReadings};
pub(crate) use server::FOR_LOADING;
pub use server::ServerInfo;
pub use serving::{ForeignOption, ForeignServer, MappedUser, ServedTable, ServerRefusal};
pub use slot::Slot;
pub use slot_name::SlotName;
pub use snapshot::{DatabaseSize, Snapshot, TableName};
pub use stall::{StallClock, WatchedPipe};
#[cfg(any(fuzzing, test))]
pub(crate) use startup::log_in_over;
pub(crate) use surroundings::{Around, ForeignKey, TableTrigger, not_locked};
#[cfg(test)]
pub(crate) use table_catalog::tests::sample as sample_table;
pub use table_catalog::{
    CatalogColumn, CatalogTable, EnumLabel, ExtensionTable, Generated, IdentityColumn, OLDEST_STREAMED, Obstacle,
    PrimaryKey, PublicationKind, Publishing, ReplicaIdentity, TableCatalog, TableKind, Traces,
};
pub use tables::Names;
pub(crate) use tables::TABLES;
pub use tallies::LargeObjectTally;
pub(crate) use target::is_presence;
pub use target::{Existing, Named, ObjectKind, TargetSurvey};
pub use tls::TlsVerification;
pub(crate) use wire::{Piece, READ, Row, Rows, Wire};
