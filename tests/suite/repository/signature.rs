//! Signed manifests: whoever can write to the store can mend every digest in it, and no signature.

mod attacks;
mod dying;
mod events;
mod in_kms;
mod place;
mod results;
mod stock;
