//! What breaks between a backup and its S3 store: the real program, a real PostgreSQL and a real
//! S3 server, with a proxy before it that fails on request. Each test looks at what is told, at
//! what is visible afterwards, and at what is left behind.

mod commit;
mod copies;
mod illness;
mod killed;
mod layout;
mod leases;
mod limits;
mod providers;
mod refusals;
mod scene;
mod slowness;
mod transport;
