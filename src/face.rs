//! How a person, a program or AWS asks for something: input becomes a [`Command`](crate::command::Command), a report becomes output.

pub mod cli;
pub mod lambda;
