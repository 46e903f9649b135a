//! The jobs, one for each command. The main function of each job lists its steps in order.

pub mod backup;
pub mod changes;
pub mod compare;
pub mod doctor;
pub mod download;
pub mod drill;
pub mod increment;
pub mod incremental;
pub mod list;
pub(crate) mod moment;
pub mod prune;
pub mod restore;
pub mod retention;
pub mod status;
pub mod verify;
