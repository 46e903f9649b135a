//! One line on a terminal; a thread redraws it a few times a second.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::counters::{Counters, Rate};
use super::{Event, Observer, Progress};

/// Draws on stderr, and clears the line when the run ends.
pub struct TerminalLine {
    counters: Arc<Counters>,
    bar: ProgressBar,
}

impl TerminalLine {
    pub fn start() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        let counters = Arc::new(Counters::default());
        let rate = Arc::new(Mutex::new(Rate::default()));
        let watched = counters.clone();
        let line = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
            let snapshot = watched.snapshot();
            let rate = rate
                .lock()
                .ok()
                .and_then(|mut rate| rate.at(Instant::now(), snapshot.read));
            let _ = out.write_str(&snapshot.line(rate));
        };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {line}") {
            bar.set_style(style.with_key("line", line));
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { counters, bar }
    }

    /// For log lines: they are written between two redraws of the line.
    pub fn log_writer(&self) -> impl Fn() -> AboveTheLine + Send + Sync + 'static {
        let bar = self.bar.clone();
        move || AboveTheLine { bar: bar.clone() }
    }
}

impl Observer for TerminalLine {
    fn event(&self, event: &Event) {
        self.counters.event(event);
    }

    fn progress(&self) -> Option<Progress> {
        Some(self.counters.snapshot().progress(None))
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

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for TerminalLine {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

pub struct AboveTheLine {
    bar: ProgressBar,
}

impl Write for AboveTheLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bar.suspend(|| io::stderr().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
