//! `pgstow backup`: what it reads, what it stores, and what remains after a failure.

mod faults_database;
mod faults_folder;
mod faults_s3;
mod nice;
mod plain;
mod reading;
mod referenced;
mod round_trip;
