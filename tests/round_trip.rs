//! Backups of real databases, judged by PostgreSQL's own programs: what `pgstow backup` stores is
//! restored by stock pg_restore and psql, and compared with the source.

// clippy.toml allows unwrap in test functions, but does not see that the others are called by them alone.
#![allow(clippy::unwrap_used)]

mod support;

mod archive {
    // The building half is for tests/archive_rules.rs.
    #[allow(dead_code)]
    pub mod builder;
}

mod round_trip {
    mod backup;
    mod bucket;
    mod formats;
    mod manifest;
    mod names;
    mod sizes;
    mod snapshot;
}
