//! The PostgreSQL layer against real servers and real programs, of an old and a newer major.
//!
//! `make test` starts the services and names them in the environment.

pub mod place;

mod comparing;
mod connecting;
mod dumping;
mod finding;
mod logging_in;
mod publishing;
mod reading_secrets;
mod restoring;
mod surveying;
mod targeting;
mod throwing_away;
mod slots;
mod trusting;
