//! Many COPY streams from one snapshot: the archive must be the one that pg_dump's single stream
//! gives, whatever happens to the tables and sessions meanwhile.

mod busy;
mod failing;
mod pooling;
pub mod same;
mod standby;
