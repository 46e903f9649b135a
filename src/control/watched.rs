//! The observer of a run that many may look at: it keeps the counts and the last words, for whoever asks.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::run::progress::{Counted, Display, Event, Progress, Rate};

/// How many lines of a run's log are kept.
const LINES: usize = 200;

pub(super) type Watched = Counted<Words>;

#[derive(Default)]
pub(super) struct Words(Mutex<Said>);

#[derive(Default)]
struct Said {
    backup: Option<String>,
    lines: VecDeque<String>,
    rate: Rate,
}

impl Watched {
    /// How far the run is now.
    pub fn now(&self) -> Progress {
        let counted = self.counters.snapshot();
        let rate = self.display.said().rate.at(Instant::now(), counted.read);
        counted.progress(rate)
    }

    /// The backup that the run makes or has made.
    pub fn backup(&self) -> Option<String> {
        self.display.said().backup.clone()
    }

    /// The last lines of the log, oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.display.said().lines.iter().cloned().collect()
    }
}

impl Words {
    fn line(&self, line: String) {
        let mut said = self.said();
        if said.lines.len() == LINES {
            said.lines.pop_front();
        }
        said.lines.push_back(line);
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        // Each change is whole, so a panic in another thread has not damaged them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Display for Words {
    fn event(&self, event: &Event) {
        match event {
            Event::Begun { id } => {
                self.said().backup = Some(id.clone());
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

    fn finish(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::progress::Observer;

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
