//! Backups of real databases, judged by PostgreSQL's own programs: what `pgstow backup` stores is
//! restored by stock pg_restore and psql, and compared with the source.

// clippy.toml allows unwrap in test functions, but does not see that the others are called by them alone.
#![allow(clippy::unwrap_used)]

mod support;

// The building half is for tests/archive_rules.rs.
#[allow(dead_code)]
#[path = "archive/builder.rs"]
mod archive;

#[path = "round_trip/backup.rs"]
mod backup;
#[path = "round_trip/bucket.rs"]
mod bucket;
#[path = "round_trip/formats.rs"]
mod formats;
#[path = "round_trip/manifest.rs"]
mod manifest;
#[path = "round_trip/names.rs"]
mod names;
#[path = "round_trip/sizes.rs"]
mod sizes;
#[path = "round_trip/snapshot.rs"]
mod snapshot;
