//! `pgstow restore`, judged by what is in the target afterwards, whether it went well or not.

// clippy.toml allows unwrap in test functions, but does not see that these are called by them alone.
#![allow(clippy::unwrap_used)]

mod support;

#[path = "support/fault_proxy.rs"]
mod fault_proxy;

#[path = "restore/creating.rs"]
mod creating;
#[path = "restore/failing.rs"]
mod failing;
#[path = "restore/parts.rs"]
mod parts;
#[path = "restore/place.rs"]
mod place;
#[path = "restore/plain.rs"]
mod plain;
#[path = "restore/refusals.rs"]
mod refusals;
#[path = "restore/sizes.rs"]
mod sizes;
#[path = "restore/stopping.rs"]
mod stopping;
#[path = "restore/tables.rs"]
mod tables;
#[path = "restore/whole.rs"]
mod whole;
