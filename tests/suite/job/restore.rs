//! `pgstow restore`, judged by what is in the target afterwards, whether it went well or not.

mod checking;
mod computing;
mod creating;
mod failing;
mod going_on;
mod in_place;
mod into;
mod keeping;
mod matrix;
pub mod moment;
mod names;
mod needs;
mod order;
mod parts;
pub mod place;
mod plain;
mod refusals;
mod replacing;
mod roles;
mod room;
mod sizes;
mod standing;
mod stopping;
mod tables;
mod together;
mod unfinished;
mod whole;
