//! The record of the run, in stages: [`Begun`], [`Viewed`] after the snapshot is taken, [`Stored`] after the data is in
//! the store, [`Committed`] after the manifest is. Each stage is made from the one before it, and has only fields that
//! are known by then. The manifest is made from [`Stored`], and the report from the manifest.

mod begun;
mod blocks;
mod committed;
mod notes;
mod sidecar;
mod stored;
mod viewed;

pub(super) use begun::Begun;
pub(in crate::job) use blocks::Blocks;
pub(super) use committed::Committed;
pub(in crate::job) use sidecar::{Sidecar, file_record, md5_of};
pub(super) use stored::Stored;
pub(in crate::job) use stored::read_settings;
