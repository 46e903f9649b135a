//! PostgreSQL backups that prove themselves.
//!
//! The program `pgstow` is one face of this library, and your own program can be another: load [`Settings`] from an
//! [`Input`], make an [`App`] of them, and let it run a [`Command`]. The app answers with a [`Report`] or an [`Error`], and
//! says to an [`Observer`] what happens meanwhile ([`Event`]). A [`Stop`] ends a run in good order.
//! `examples/round_trip.rs` is a whole program. Without optimisation a run needs more stack than the 2 MiB of a thread that
//! Rust starts: run it in the main thread, or in one with 8 MiB.
//!
//! Everything that is not named on this page is internal: it is public only for the tests, the benchmarks and the fuzz
//! targets of this repository, and changes without notice.

pub use app::App;
pub use command::{
    BackupRequest, Command, DownloadRequest, PruneRequest, RestoreRequest, VerifyRequest, VerifySelection,
};
pub use error::{Code, Error, Result};
pub use report::{Report, ReportKind};
pub use repository::trigger::Trigger;
pub use run::progress::{Event, Observer, Progress, Silent};
pub use run::stop::{Reason, Stop};
pub use settings::{Input, Settings};
pub use store::Store;

#[doc(hidden)]
pub mod app;
#[doc(hidden)]
pub mod command;
#[doc(hidden)]
pub mod control;
#[doc(hidden)]
pub mod dataflow;
#[doc(hidden)]
pub mod error;
#[doc(hidden)]
pub mod face;
#[doc(hidden)]
pub mod format;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
#[doc(hidden)]
pub mod job;
#[doc(hidden)]
pub mod outside;
#[doc(hidden)]
pub mod postgres;
#[doc(hidden)]
pub mod printable;
#[doc(hidden)]
pub mod report;
#[doc(hidden)]
pub mod repository;
#[doc(hidden)]
pub mod run;
#[doc(hidden)]
pub mod settings;
#[doc(hidden)]
pub mod store;
#[doc(hidden)]
pub mod units;
