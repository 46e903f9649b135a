//! Backups of real databases, judged by PostgreSQL's own programs: what `pgstow backup` stores is
//! restored by stock pg_restore and psql, and compared with the source.

mod backup;
mod bucket;
mod formats;
mod manifest;
mod names;
mod sizes;
mod snapshot;
