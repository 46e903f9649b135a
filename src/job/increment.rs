//! An increment: a span of the slot's stream, and what it means for each table.

mod baselines;
pub(in crate::job) mod coverage;
mod definitions;
mod difference;
pub(in crate::job) mod facts;
mod probe;
mod sequences;
