//! What the store tests share, and those that are of one back end alone.

pub mod conformance;
mod disks;
mod faults;
pub mod place;
mod service;
