//! What a backup is, and where it is recorded: the catalog, the lease and the left-overs, shared stores, signatures.

mod catalog;
mod sharing;
mod signature;
