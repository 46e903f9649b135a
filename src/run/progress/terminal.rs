//! One line on a terminal; a thread redraws it a few times a second.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::counted::{Counted, Display};
use super::counters::{Counters, Rate};

/// Draws on stderr, and clears the line when the run ends.
pub type TerminalLine = Counted<Bar>;

pub struct Bar(ProgressBar);

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
        Self {
            counters,
            display: Bar(bar),
        }
    }

    /// For log lines: they are written between two redraws of the line.
    pub fn log_writer(&self) -> impl Fn() -> AboveTheLine + Send + Sync + 'static {
        let bar = self.display.0.clone();
        move || AboveTheLine { bar: bar.clone() }
    }
}

impl Display for Bar {
    fn finish(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.finish();
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
