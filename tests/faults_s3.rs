//! What breaks between a backup and its S3 store: the real program, a real PostgreSQL and a real
//! S3 server, with a proxy before it that fails on request. Each test looks at what is told, at
//! what is visible afterwards, and at what is left behind.

// The lint spares tests, but not their helpers.
#![allow(clippy::unwrap_used)]

#[path = "support/fault_proxy.rs"]
mod fault_proxy;
mod support;

mod faults_s3 {
    mod commit;
    mod copies;
    mod illness;
    mod killed;
    mod layout;
    mod leases;
    mod refusals;
    mod scene;
    mod slowness;
    mod transport;
}
