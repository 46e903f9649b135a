//! Many COPY streams from one snapshot: the archive must be the one that pg_dump's single stream
//! gives, whatever happens to the tables and sessions meanwhile.

// The lints spare tests, but not their helpers.
#![allow(clippy::unwrap_used)]

mod support;

// Their other halves are for tests/archive_rules.rs.
#[allow(dead_code)]
#[path = "archive/builder.rs"]
mod builder;
#[allow(dead_code)]
#[path = "archive/memory.rs"]
mod memory;

#[path = "streams/busy.rs"]
mod busy;
#[path = "streams/failing.rs"]
mod failing;
#[path = "streams/pooling.rs"]
mod pooling;
#[path = "streams/same.rs"]
mod same;
#[path = "streams/standby.rs"]
mod standby;
