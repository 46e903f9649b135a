//! What every run carries with it, whatever it does.

pub mod confinement;
pub(crate) mod named_file;
pub mod printable;
pub mod private_folder;
pub mod progress;
pub mod stop;
pub mod telemetry;
pub mod threads;
