//! The PostgreSQL layer against real servers and real programs, of an old and a newer major.
//!
//! `make test` starts the services and names them in the environment.

#![allow(clippy::unwrap_used)]

#[path = "postgres_layer/place.rs"]
mod place;

#[path = "postgres_layer/connecting.rs"]
mod connecting;
#[path = "postgres_layer/dumping.rs"]
mod dumping;
#[path = "postgres_layer/finding.rs"]
mod finding;
#[path = "postgres_layer/reading_secrets.rs"]
mod reading_secrets;
#[path = "postgres_layer/restoring.rs"]
mod restoring;
#[path = "postgres_layer/surveying.rs"]
mod surveying;
#[path = "postgres_layer/targeting.rs"]
mod targeting;
#[path = "postgres_layer/throwing_away.rs"]
mod throwing_away;
#[path = "postgres_layer/trusting.rs"]
mod trusting;
