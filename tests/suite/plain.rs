//! Plain backups are counted, verified and proved as custom ones are.

mod counting;
mod drilling;
mod place;
mod proving;
