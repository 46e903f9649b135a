//! `pgstow verify`: what is whole passes, and what differs is named.

// clippy.toml allows unwrap in test functions, but does not see that these are called by them alone.
#![allow(clippy::unwrap_used)]

mod support;

#[path = "support/fault_proxy.rs"]
mod fault_proxy;

#[path = "verify/bucket.rs"]
mod bucket;
#[path = "verify/damage.rs"]
mod damage;
#[path = "verify/place.rs"]
mod place;
#[path = "verify/whole.rs"]
mod whole;
