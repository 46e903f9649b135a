//! Signed manifests: a person who can write to the store can correct every digest in it, but cannot sign.

mod attacks;
mod dying;
mod events;
mod in_kms;
mod place;
mod results;
mod stock;
