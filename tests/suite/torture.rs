//! Campaigns: kills, signals, lost leases, failing stores, other people's work and flipped bits, each at random
//! moments and places, and what must hold after every one of them. A few rounds here; `make torture` runs many,
//! and docs/reliability.md has its figures. A seed gives the same rounds again.

mod arena;
mod campaign;
mod faults;
mod kills;
mod leases;
mod listings;
mod load;
mod mutations;
mod storms;
