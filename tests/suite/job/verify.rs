//! `pgstow verify`: a whole backup passes, and each difference is named.

mod asked;
mod bucket;
mod chain;
mod damage;
mod increment;
mod manifest;
mod place;
mod plain;
mod whole;
