//! What can be wrong between us and the database: the way to it, the secret, the role, the
//! programs, the server itself. Each test looks at what is told, and at what is left behind.

mod language;
mod programs;
mod reaching;
mod reading;
mod roles;
mod secrets;
mod streams;
