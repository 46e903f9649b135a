//! The messages of a run while it runs. The data path reports to an [`Observer`]; it never prints.

mod counted;
mod counters;
mod event;
mod log;
mod terminal;

pub(crate) use counted::{Counted, Display};
pub(crate) use counters::Rate;
pub use event::{Event, Progress};
pub use log::LogLine;
pub use terminal::TerminalLine;

/// The stages call it often, from any thread: every method is cheap and none blocks.
pub trait Observer: Send + Sync {
    /// Something has happened. Bytes and tables use the methods below, which cost less.
    fn event(&self, _event: &Event) {}

    /// The current phase, for people: `reading the database`.
    fn phase(&self, name: &str) {
        self.event(&Event::Phase { name: name.to_owned() });
    }

    /// About how many bytes will be read, if that is known.
    fn estimate(&self, _bytes: u64) {}

    /// `more` bytes were read from the database, before compression.
    fn bytes_read(&self, _more: u64) {}

    /// The table whose rows are being read.
    fn table(&self, _name: &str) {}

    /// `more` bytes were stored, after compression.
    fn bytes_stored(&self, _more: u64) {}

    /// How far the run is, if the observer counts.
    fn progress(&self) -> Option<Progress> {
        None
    }

    /// The run has ended, with or without an error. It may be called again; dropping the observer calls it too.
    fn finish(&self) {}
}

/// An observer that does nothing.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Observer for Silent {}
