//! Faults of the run itself: two at once, signals at any moment, and secrets that must stay where
//! they are.

mod support;

#[path = "faults_process/crowding.rs"]
mod crowding;
#[path = "faults_process/keeping_secrets.rs"]
mod keeping_secrets;
#[path = "faults_process/stopping.rs"]
mod stopping;
