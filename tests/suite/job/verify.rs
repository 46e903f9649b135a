//! `pgstow verify`: what is whole passes, and what differs is named.

mod asked;
mod bucket;
mod chain;
mod damage;
mod manifest;
mod place;
mod plain;
mod whole;
