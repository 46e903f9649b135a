//! What the store alone tells, and what goes from it: `list`, `status` and `prune`, run as programs
//! over folders and buckets that hold good backups and all that may lie beside them.

// clippy.toml allows unwrap in test functions, but does not see that the others are called by them alone.
#![allow(clippy::unwrap_used)]

mod support;

// Only a part of what it can do is wanted here.
#[allow(dead_code)]
#[path = "semantics/crashing.rs"]
mod crashing;

#[path = "overview/list.rs"]
mod list;
#[path = "overview/planted.rs"]
mod planted;
#[path = "overview/prune.rs"]
mod prune;
#[path = "overview/status.rs"]
mod status;
