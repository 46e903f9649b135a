//! All tests of pgstow from outside, in one program, so that the crates below it are linked once.
//! A module is a test group; `scripts/test.sh verify::` runs one.

// clippy.toml allows these in test functions, but does not see that the helpers are called by them alone.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod archive;
mod catalog_stores;
mod command_line;
mod doctor;
mod download;
mod drill;
mod faults_database;
mod faults_folder;
mod faults_process;
mod faults_s3;
mod gentle;
mod harness;
mod lambda;
mod metrics;
mod notify_sns;
mod overview;
mod postgres_layer;
mod restore;
mod retention_rules;
mod round_trip;
mod semantics;
mod stores;
mod streams;
mod support;
mod verify;
