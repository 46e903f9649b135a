//! `pgstow download`, and the documented way back without pgstow: real databases, a real S3 server
//! with a proxy before it that fails on request, and stock programs as judges.

mod damage;
mod disks;
mod place;
mod recipe;
mod resuming;
mod whole;
