//! What a run says while it runs, to whoever watches. The data path tells an [`Observer`]; it
//! never prints.

mod counters;
mod event;
mod log;
mod terminal;

pub use event::{Event, Progress};
pub use log::LogLine;
pub use terminal::TerminalLine;

/// Told by the stages as bytes pass, from any thread, often: every method is cheap, none blocks.
pub trait Observer: Send + Sync {
    /// What has happened. Bytes and tables are told by the methods below, which cost less.
    fn event(&self, _event: &Event) {}

    /// What is being done now, for people: `reading the database`.
    fn phase(&self, name: &str) {
        self.event(&Event::Phase { name: name.to_owned() });
    }

    /// About how many bytes will be read, when something is known of it.
    fn estimate(&self, _bytes: u64) {}

    /// So many bytes more have come from the database, before compression.
    fn bytes_read(&self, _more: u64) {}

    /// The table whose rows come now.
    fn table(&self, _name: &str) {}

    /// So many bytes more are in the store, after compression.
    fn bytes_stored(&self, _more: u64) {}

    /// How far the run is, where the observer counts.
    fn progress(&self) -> Option<Progress> {
        None
    }

    /// The run is over, well or not. Safe to repeat; dropping the observer does it too.
    fn finish(&self) {}
}

/// Nobody watches.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Observer for Silent {}
