//! How a person, a program or AWS asks for something: input becomes a [`Command`](crate::command::Command), and a report
//! becomes output.

pub mod cli;
pub mod lambda;
pub mod library;
