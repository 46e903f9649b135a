//! `pgstow download`, and the README's way back without pgstow: real databases, a real S3 server
//! with a proxy before it that fails on request, and stock programs as judges.

// clippy.toml allows unwrap in test functions, but does not see that the others are called by them alone.
#![allow(clippy::unwrap_used)]

#[path = "support/fault_proxy.rs"]
mod fault_proxy;
mod support;

mod download {
    mod damage;
    mod disks;
    mod place;
    mod recipe;
    mod resuming;
    mod whole;
}
