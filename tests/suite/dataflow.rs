//! How bytes move.

pub mod parallel;
