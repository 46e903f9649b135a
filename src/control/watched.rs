//! The observer of a run that many may look at: it keeps the counts and the last words, for whoever asks.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::run::progress::{Counters, Event, Observer, Progress, Rate};

/// How many lines of a run's log are kept.
const LINES: usize = 200;

#[derive(Default)]
pub(super) struct Watched {
    counters: Counters,
    words: Mutex<Words>,
}

#[derive(Default)]
struct Words {
    backup: Option<String>,
    lines: VecDeque<String>,
    rate: Rate,
}

impl Watched {
    /// How far the run is now.
    pub fn now(&self) -> Progress {
        let counted = self.counters.snapshot();
        let rate = self.words().rate.at(Instant::now(), counted.read);
        counted.progress(rate)
    }

    /// The backup that the run makes or has made.
    pub fn backup(&self) -> Option<String> {
        self.words().backup.clone()
    }

    /// The last lines of the log, oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.words().lines.iter().cloned().collect()
    }

    pub fn line(&self, line: String) {
        let mut words = self.words();
        if words.lines.len() == LINES {
            words.lines.pop_front();
        }
        words.lines.push_back(line);
    }

    fn words(&self) -> MutexGuard<'_, Words> {
        // Each change is whole, so a panic in another thread has not damaged them.
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Watched {
    fn event(&self, event: &Event) {
        self.counters.event(event);
        match event {
            Event::Begun { id } => {
                self.words().backup = Some(id.clone());
                self.line(format!("began {id}"));
            }
            Event::Phase { name } => self.line(name.clone()),
            Event::Warned { message } => self.line(format!("warning: {message}")),
            Event::Committed { id } => self.line(format!("committed {id}")),
            Event::Failed { error } => {
                self.line(format!("error[{}]: {}", error.code, error.message));
                self.line(format!("hint: {}", error.hint));
            }
            Event::Progress(_) => {}
        }
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_last_lines_and_the_backups_id() {
        let watched = Watched::default();
        watched.event(&Event::Begun { id: "shop/x".into() });
        for number in 0..LINES {
            watched.phase(&format!("phase {number}"));
        }
        let lines = watched.lines();
        assert_eq!((lines.len(), lines[0].as_str()), (LINES, "phase 0"));
        assert_eq!(watched.backup().as_deref(), Some("shop/x"));
        assert_eq!(watched.now().phase, format!("phase {}", LINES - 1));
    }
}
