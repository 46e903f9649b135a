//! What is known of the run, a stage at a time: [`Begun`], [`Viewed`] when the snapshot is taken, [`Stored`] when
//! the data is in the store, [`Committed`] when the manifest is. Each stage is made from the one before it, and has
//! no field that is not known yet. The manifest is written from [`Stored`]; the report tells what it says.

mod begun;
mod blocks;
mod committed;
mod notes;
mod sidecar;
mod stored;
mod viewed;

pub(super) use begun::Begun;
pub(super) use committed::Committed;
pub(super) use stored::Stored;
