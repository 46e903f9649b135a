//! How pgstow is called: the command line, a Lambda function, another program.

mod cli;
pub mod lambda;
mod library;
mod serve;
