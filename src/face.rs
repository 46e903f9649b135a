//! The faces for people, programs and AWS: they turn input into a [`Command`](crate::command::Command), and a report
//! into output.

pub mod cli;
pub mod lambda;
pub mod library;
pub mod serve;
pub mod web;
