//! What every run needs, whichever command it is.

pub mod clock;
pub mod confinement;
pub mod files;
pub(crate) mod named_file;
pub mod private_folder;
pub mod progress;
pub mod publication;
pub mod stop;
pub mod telemetry;
pub mod threads;
