//! Faults of the run itself: two at once, signals at any moment, and secrets that must stay where
//! they are.

mod crowding;
mod keeping_secrets;
mod stopping;
