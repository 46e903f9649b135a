//! Slows down the reading of the database: to a rate, and while a gate is closed.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a reader waits before it checks again.
const SLICE: Duration = Duration::from_millis(50);
/// How much may be read at once after a pause, as time at the full rate.
const BURST: Duration = Duration::from_millis(100);

/// All readers share it.
#[derive(Debug, Clone, Default)]
pub struct Throttle(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Bytes per second.
    rate: Option<u64>,
    /// Until when the bytes already read use up the rate.
    lasts: Mutex<Option<Instant>>,
    gate: Mutex<Gate>,
    stopped: AtomicBool,
}

#[derive(Debug, Default)]
struct Gate {
    closed: Option<Instant>,
    pauses: Pauses,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pauses {
    pub count: u64,
    pub time: Duration,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Throttle {
    pub fn new(rate: Option<u64>) -> Self {
        Self(Arc::new(Inner {
            rate,
            ..Inner::default()
        }))
    }

    /// A reader got this many bytes: they count against the rate.
    pub fn took(&self, bytes: usize) {
        let Some(rate) = self.0.rate else {
            return;
        };
        let now = Instant::now();
        let mut lasts = lock(&self.0.lasts);
        let from = lasts.map_or(now, |lasts| lasts.max(now.checked_sub(BURST).unwrap_or(now)));
        *lasts = Some(from + Duration::from_secs_f64(bytes as f64 / rate as f64));
    }

    /// How long to wait before the next check; `None`: continue.
    pub fn wait(&self) -> Option<Duration> {
        if self.0.stopped.load(Ordering::Relaxed) {
            return None;
        }
        if lock(&self.0.gate).closed.is_some() {
            return Some(SLICE);
        }
        let lasts = (*lock(&self.0.lasts))?;
        let wait = lasts.saturating_duration_since(Instant::now());
        (!wait.is_zero()).then(|| wait.min(SLICE))
    }

    pub fn close_gate(&self) {
        let mut gate = lock(&self.0.gate);
        if gate.closed.is_none() {
            gate.closed = Some(Instant::now());
            gate.pauses.count += 1;
        }
    }

    pub fn open_gate(&self) {
        let mut gate = lock(&self.0.gate);
        if let Some(since) = gate.closed.take() {
            gate.pauses.time += since.elapsed();
        }
    }

    pub fn pauses(&self) -> Pauses {
        lock(&self.0.gate).pauses
    }

    /// Waits no longer: the run is ending.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }

    /// The largest read at once, so that no wait is much longer than one step.
    fn step(&self, wanted: usize) -> usize {
        let step = self.0.rate.map(|rate| usize::try_from(rate / 10).unwrap_or(usize::MAX));
        step.map_or(wanted, |step| wanted.min(step.max(1)))
    }
}

/// A blocking pipe that is read no faster than allowed.
#[derive(Debug)]
pub struct Throttled<R> {
    inner: R,
    throttle: Throttle,
}

impl<R> Throttled<R> {
    pub fn new(inner: R, throttle: Throttle) -> Self {
        Self { inner, throttle }
    }
}

impl<R: Read> Read for Throttled<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while let Some(wait) = self.throttle.wait() {
            std::thread::sleep(wait);
        }
        let step = self.throttle.step(buffer.len());
        let count = self.inner.read(&mut buffer[..step])?;
        self.throttle.took(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_holds_over_all_that_read_and_stop_frees_them() {
        let throttle = Throttle::new(Some(1_000_000));
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let mut pipe = Throttled::new(std::io::repeat(1).take(200_000), throttle.clone());
                scope.spawn(move || std::io::copy(&mut pipe, &mut std::io::sink()).unwrap());
            }
        });
        // 400 kB at 1 MB/s, less a burst and the last step.
        assert!(began.elapsed() > Duration::from_millis(150), "{:?}", began.elapsed());
        throttle.took(1_000_000_000);
        assert!(throttle.wait().is_some());
        throttle.stop();
        assert_eq!(throttle.wait(), None);
    }

    #[test]
    fn the_gate_counts_its_pauses() {
        let throttle = Throttle::default();
        assert_eq!(throttle.wait(), None);
        throttle.close_gate();
        throttle.close_gate();
        assert!(throttle.wait().is_some());
        std::thread::sleep(Duration::from_millis(5));
        throttle.open_gate();
        assert_eq!(throttle.wait(), None);
        let pauses = throttle.pauses();
        assert_eq!(pauses.count, 1);
        assert!(pauses.time >= Duration::from_millis(5));
    }
}
