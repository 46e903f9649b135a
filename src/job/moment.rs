//! A database as it was at a moment between two backups: a full backup, with the changes that increments hold since.
//!
//! ```text
//! asked    the moment, as the user wrote it
//! way      the full that it begins with, the increments, and where they stop
//! stopped  the exact transaction after which it stops; its place in the log, as far as it is known
//! bases    per table: the rows that its changes are applied to, and whether the result is exact
//! proved   gaps that a replay closes: the table is exact in them
//! columns  the columns of these rows, by the definitions of the moment
//! composed one archive of these rows, with the definitions of the moment (grafted: those of tables made since)
//! objects  the large objects of the moment
//! gone     tables that were dropped before the moment
//! unchecked foreign keys of tables that are not exact
//! folding  the changes, read once → what was changed in each table
//! ```
//!
//! Restore, drill and the proof of a chain work with the composed archive as with any other.

mod asked;
mod bases;
mod chained;
mod columns;
mod composed;
mod folding;
mod gone;
mod grafted;
mod objects;
mod place;
mod prepared;
mod proved;
mod replayed;
mod report;
mod sequences;
mod spelling;
mod stopped;
mod unchecked;
mod way;

pub use asked::AskedMoment;
pub use report::MomentReport;

pub(crate) use bases::Choice;
pub(crate) use chained::replay;
pub(crate) use folding::memory;
pub(crate) use prepared::{Prepared, not_covered, prepare};
pub(crate) use replayed::{Known, Replayed, stored_sum};
pub(crate) use stopped::Stopped;
pub(crate) use way::{Way, find, history, manifests, unbroken};
