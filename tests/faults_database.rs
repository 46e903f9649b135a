//! What can be wrong between us and the database: the way to it, the secret, the role, the
//! programs, the server itself. Each test looks at what is told, and at what is left behind.

mod support;

#[path = "faults_database/programs.rs"]
mod programs;
#[path = "faults_database/reaching.rs"]
mod reaching;
#[path = "faults_database/reading.rs"]
mod reading;
#[path = "faults_database/roles.rs"]
mod roles;
#[path = "faults_database/secrets.rs"]
mod secrets;
#[path = "faults_database/streams.rs"]
mod streams;
