//! Attacks: what somebody can do who writes to the store, the working folder or the bucket, and what
//! comes of it. Each test is one of them.

mod files;
mod future;
mod outputs;
mod tags;
