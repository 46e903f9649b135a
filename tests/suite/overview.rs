//! What the store alone tells, and what goes from it: `list`, `status` and `prune`, run as programs
//! over folders and buckets that hold good backups and all that may lie beside them.

mod list;
pub mod planted;
mod prune;
mod status;
