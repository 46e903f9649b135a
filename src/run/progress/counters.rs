//! Counts bytes and writes them as text.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Event, Progress};
use crate::printable;
use crate::units::human_bytes as size;

/// Bytes are counted with atomics; the names change once per table, behind a lock.
#[derive(Debug, Default)]
pub struct Counters {
    read: AtomicU64,
    stored: AtomicU64,
    estimate: AtomicU64,
    words: Mutex<Words>,
}

#[derive(Debug, Default, Clone)]
struct Words {
    phase: String,
    table: String,
}

/// The values of the counters at one moment.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct CounterValues {
    pub phase: String,
    pub table: String,
    pub read: u64,
    pub stored: u64,
    /// 0 if unknown.
    pub estimate: u64,
}

impl Counters {
    pub fn event(&self, event: &Event) {
        if let Event::Phase { name } = event {
            self.phase(name);
        }
    }

    pub fn phase(&self, name: &str) {
        let mut words = self.words();
        words.phase = printable(name);
        words.table.clear();
    }

    pub fn table(&self, name: &str) {
        self.words().table = printable(name);
    }

    pub fn estimate(&self, bytes: u64) {
        self.estimate.store(bytes, Relaxed);
    }

    pub fn read(&self, more: u64) {
        self.read.fetch_add(more, Relaxed);
    }

    pub fn stored(&self, more: u64) {
        self.stored.fetch_add(more, Relaxed);
    }

    pub fn snapshot(&self) -> CounterValues {
        let Words { phase, table } = self.words().clone();
        CounterValues {
            phase,
            table,
            read: self.read.load(Relaxed),
            stored: self.stored.load(Relaxed),
            estimate: self.estimate.load(Relaxed),
        }
    }

    fn words(&self) -> MutexGuard<'_, Words> {
        // The words are never half written, so a panic in another thread has not damaged them.
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name that cannot steer a terminal and is short enough for the line: table names may hold any character.
pub fn printable(name: &str) -> String {
    const LONGEST: usize = 48;
    let mut chars = name.chars().map(|c| if printable::steers(c) { '\u{fffd}' } else { c });
    let mut safe: String = chars.by_ref().take(LONGEST).collect();
    if chars.next().is_some() {
        safe.push('…');
    }
    safe
}

/// Bytes per second over the last few seconds, so that the line shows the current speed.
#[derive(Debug, Default)]
pub struct Rate(VecDeque<(Instant, u64)>);

impl Rate {
    const WINDOW: Duration = Duration::from_secs(10);

    /// Adds the count at `now` and returns the rate, once there is one.
    pub fn at(&mut self, now: Instant, bytes: u64) -> Option<f64> {
        self.0.push_back((now, bytes));
        while self.0.len() > 2 && now.duration_since(self.0[1].0) >= Self::WINDOW {
            self.0.pop_front();
        }
        let (since, from) = *self.0.front()?;
        let seconds = now.duration_since(since).as_secs_f64();
        (seconds >= 0.5).then(|| bytes.saturating_sub(from) as f64 / seconds)
    }
}

impl CounterValues {
    /// The same as a record.
    pub fn progress(&self, rate: Option<f64>) -> Progress {
        let known = |text: &String| (!text.is_empty()).then(|| text.clone());
        Progress {
            phase: self.phase.clone(),
            table: known(&self.table),
            bytes_read: self.read,
            bytes_stored: self.stored,
            estimate: (self.estimate > 0).then_some(self.estimate),
            rate: rate.map(|rate| rate as u64),
            eta_seconds: self.seconds_left(rate).map(|seconds| seconds as u64),
        }
    }

    /// `None` once more bytes were read than estimated.
    fn seconds_left(&self, rate: Option<f64>) -> Option<f64> {
        let rate = rate.filter(|rate| *rate >= 1.0)?;
        let left = self.estimate.checked_sub(self.read).filter(|left| *left > 0)?;
        Some(left as f64 / rate)
    }

    /// `reading the database · 1.2 GB read · 310.4 MB stored · 96.0 MB/s · about 0:42 left · public.orders`
    pub fn line(&self, rate: Option<f64>) -> String {
        let mut parts = Vec::new();
        if !self.phase.is_empty() {
            parts.push(self.phase.clone());
        }
        if self.read > 0 {
            parts.push(format!("{} read", size(self.read)));
        }
        if self.stored > 0 {
            parts.push(format!("{} stored", size(self.stored)));
        }
        if let Some(rate) = rate.filter(|rate| *rate >= 1.0) {
            parts.push(format!("{}/s", size(rate as u64)));
        }
        if let Some(seconds) = self.seconds_left(rate) {
            parts.push(format!("about {} left", clock(seconds)));
        }
        if !self.table.is_empty() {
            parts.push(self.table.clone());
        }
        parts.join(" · ")
    }
}

fn clock(seconds: f64) -> String {
    let seconds = seconds.min(359_999.0) as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_phase_bytes_rate_time_left_and_table() {
        let counters = Counters::default();
        counters.phase("reading the database");
        counters.estimate(3_048_000_000);
        counters.read(1_000_000_000);
        counters.stored(310_400_000);
        counters.table("public.orders");
        assert_eq!(
            counters.snapshot().line(Some(32_000_000.0)),
            "reading the database · 1.0 GB read · 310.4 MB stored · 32.0 MB/s · about 1:04 left · public.orders"
        );
    }

    #[test]
    fn a_line_leaves_out_what_is_not_known() {
        let counters = Counters::default();
        assert_eq!(counters.snapshot().line(None), "");
        counters.phase("committing");
        counters.read(5);
        assert_eq!(counters.snapshot().line(Some(0.0)), "committing · 5 B read");
        // More than was estimated: no time left is said, rather than a wrong one.
        counters.estimate(3);
        assert_eq!(counters.snapshot().line(Some(10.0)), "committing · 5 B read · 10 B/s");
    }

    #[test]
    fn what_is_known_of_the_progress_is_told_in_numbers() {
        let counters = Counters::default();
        counters.event(&Event::Phase {
            name: "reading the database".into(),
        });
        counters.estimate(100);
        counters.read(40);
        let expected = Progress {
            phase: "reading the database".into(),
            bytes_read: 40,
            estimate: Some(100),
            rate: Some(20),
            eta_seconds: Some(3),
            ..Progress::default()
        };
        assert_eq!(counters.snapshot().progress(Some(20.0)), expected);
        assert_eq!(Counters::default().snapshot().progress(None), Progress::default());
    }

    #[test]
    fn a_tables_name_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2J\nb\u{202e}c"), "a\u{fffd}[2J\u{fffd}b\u{fffd}c");
        assert_eq!(printable(&"x".repeat(60)).chars().count(), 49);
        assert_eq!(printable("público.año"), "público.año");
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let mut rate = Rate::default();
        assert_eq!(rate.at(start, 0), None);
        for second in 1..=30 {
            rate.at(start + Duration::from_secs(second), second * 100);
        }
        for second in 31..=50 {
            rate.at(start + Duration::from_secs(second), 3000);
        }
        assert_eq!(rate.at(start + Duration::from_secs(51), 3000), Some(0.0));
        assert!(rate.0.len() < 20);
    }

    #[test]
    fn times_are_short() {
        assert_eq!([clock(0.4), clock(61.0), clock(3661.0)], ["0:00", "1:01", "1:01:01"]);
    }
}
