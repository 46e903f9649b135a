//! An observer that counts, and shows its counters in one place.

use std::sync::Arc;

use super::counters::Counters;
use super::{Event, Observer, Progress};

/// Where the counters of a run are shown.
pub trait Display: Send + Sync {
    /// The counters have the event already.
    fn event(&self, _event: &Event) {}

    /// The run has ended. It may be called again.
    fn finish(&self);
}

#[derive(Default)]
pub struct Counted<D> {
    pub(crate) counters: Arc<Counters>,
    pub(crate) display: D,
}

impl<D: Display> Observer for Counted<D> {
    fn event(&self, event: &Event) {
        self.counters.event(event);
        self.display.event(event);
    }

    fn estimate(&self, bytes: u64) {
        self.counters.estimate(bytes);
    }

    fn bytes_read(&self, more: u64) {
        self.counters.read(more);
    }

    fn table(&self, name: &str) {
        self.counters.table(name);
    }

    fn bytes_stored(&self, more: u64) {
        self.counters.stored(more);
    }

    fn progress(&self) -> Option<Progress> {
        Some(self.counters.snapshot().progress(None))
    }

    fn finish(&self) {
        self.display.finish();
    }
}
