//! How many parts are in flight at once, computed from the times of finished parts.
//!
//! A part's time is the line's latency plus the transfer time of its bytes. As long as one more part in flight does
//! not slow the others down, the line is idle part of the time, and one more is worth its memory. When all slow down
//! alike, the line or the store is saturated: more parts would only wait in another queue. TCP Vegas finds its window
//! in the same way.

use std::time::Duration;

/// Parts in flight at the start, if there is memory for them.
const FIRST: usize = 4;
/// If a part is slower than the quickest by this factor, no more are added.
const FULL: f64 = 1.6;
/// If it is slower by this factor, one fewer is used.
const OVERFULL: f64 = 4.0;

#[derive(Debug)]
pub struct Window {
    size: usize,
    /// Seconds per byte of the quickest part so far.
    quickest: Option<f64>,
    /// Parts that were finished since the size changed: parts sent before the change say nothing about the new size.
    settled: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            size: FIRST,
            quickest: None,
            settled: 0,
        }
    }
}

impl Window {
    /// How many parts may be in flight, at most as many as `memory` holds and at least one.
    pub fn size(&self, memory: usize) -> usize {
        self.size.min(memory).max(1)
    }

    /// The store has accepted a part. `waited`: the next part was ready and had to wait.
    pub fn took(&mut self, bytes: u64, time: Duration, waited: bool, memory: usize) {
        let pace = time.as_secs_f64() / bytes.max(1) as f64;
        let quickest = self.quickest.map_or(pace, |quickest| quickest.min(pace));
        self.quickest = Some(quickest);
        self.settled += 1;
        if self.settled <= self.size {
            return;
        }
        let slower = pace / quickest.max(f64::MIN_POSITIVE);
        let size = self.size(memory);
        let wanted = if slower > OVERFULL && size > FIRST {
            size - 1
        } else if waited && slower < FULL && size < memory {
            size + 1
        } else {
            return;
        };
        self.size = wanted;
        self.settled = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line with this latency and these bytes per second, shared by all that are in flight.
    fn run(latency: f64, rate: f64, memory: usize) -> usize {
        let mut window = Window::default();
        let bytes = 8_000_000;
        for _ in 0..1000 {
            let size = window.size(memory) as f64;
            let alone = latency + bytes as f64 / rate;
            let shared = (bytes as f64 * size / rate).max(alone);
            window.took(bytes, Duration::from_secs_f64(shared), true, memory);
        }
        window.size(memory)
    }

    #[test]
    fn latency_opens_it_and_a_full_line_does_not() {
        assert_eq!(run(2.0, 1e9, 30), 30, "far away, and wide");
        let narrow = run(0.0, 50e6, 30);
        assert!(narrow < 2 * FIRST, "near, and narrow: {narrow}");
        let between = run(0.1, 200e6, 30);
        assert!((FIRST..12).contains(&between), "{between}");
    }

    #[test]
    fn memory_is_the_bound() {
        assert_eq!(run(2.0, 1e9, 7), 7);
        assert_eq!(run(2.0, 1e9, 1), 1);
        assert_eq!(Window::default().size(2), 2);
        assert_eq!(Window::default().size(0), 1);
    }

    #[test]
    fn who_does_not_wait_gets_no_more() {
        let mut window = Window::default();
        for _ in 0..100 {
            window.took(1, Duration::from_millis(1), false, 30);
        }
        assert_eq!(window.size(30), FIRST);
    }
}
