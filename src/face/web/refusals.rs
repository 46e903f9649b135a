//! Logins that were refused: all are counted, and some are written down. A line for each would let strangers fill the
//! disk, and make the journal slow for others.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::rates::Rates;

/// Lines at once.
const BURST: u32 = 10;
/// Then one more in this time.
const EACH: Duration = Duration::from_secs(30);

pub(super) struct Refusals {
    lines: Rates,
    /// Those without a line.
    silent: AtomicU64,
}

impl Refusals {
    pub fn new() -> Self {
        Self {
            lines: Rates::new(BURST, EACH),
            silent: AtomicU64::new(0),
        }
    }

    /// One more. If it gets a line: how many before it have none.
    pub fn one(&self, now: Instant) -> Option<u64> {
        if self.lines.take("", now) {
            return Some(self.rest());
        }
        self.silent.fetch_add(1, Relaxed);
        None
    }

    /// How many have no line, and are now told together.
    pub fn rest(&self) -> u64 {
        self.silent.swap(0, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_refusals_get_few_lines_and_none_is_lost() {
        let refusals = Refusals::new();
        let now = Instant::now();
        let lines: Vec<u64> = (0..1_000).filter_map(|_| refusals.one(now)).collect();
        assert_eq!(lines, vec![0; BURST as usize]);
        assert_eq!(refusals.one(now + EACH), Some(990));
        assert_eq!(refusals.one(now + EACH), None);
        assert_eq!((refusals.rest(), refusals.rest()), (1, 0));
    }
}
