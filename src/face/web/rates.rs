//! How often something may be done: buckets that fill again, one for each name.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Names that are remembered. With more of them, the fullest buckets are forgotten: they say least.
const MOST_NAMES: usize = 10_000;

pub(super) struct Rates {
    /// How much a full bucket has.
    burst: f64,
    /// The time in which one more comes.
    each: Duration,
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Rates {
    pub fn new(burst: u32, each: Duration) -> Self {
        Self {
            burst: f64::from(burst),
            each,
            buckets: Mutex::default(),
        }
    }

    /// Takes one, if the bucket of this name has one.
    pub fn take(&self, name: &str, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let full = Bucket {
            left: self.burst,
            at: now,
        };
        let left = self.filled(buckets.get(name).copied().unwrap_or(full), now);
        if buckets.len() >= MOST_NAMES && !buckets.contains_key(name) {
            self.forget(&mut buckets, now);
        }
        let is_there = left >= 1.0;
        let left = if is_there { left - 1.0 } else { left };
        buckets.insert(name.to_owned(), Bucket { left, at: now });
        is_there
    }

    fn filled(&self, bucket: Bucket, now: Instant) -> f64 {
        let more = now.saturating_duration_since(bucket.at).as_secs_f64() / self.each.as_secs_f64();
        (bucket.left + more).min(self.burst)
    }

    fn forget(&self, buckets: &mut HashMap<String, Bucket>, now: Instant) {
        let mut lefts: Vec<f64> = buckets.values().map(|bucket| self.filled(*bucket, now)).collect();
        let middle = lefts.len() / 2;
        let (_, median, _) = lefts.select_nth_unstable_by(middle, f64::total_cmp);
        let median = *median;
        buckets.retain(|_, bucket| self.filled(*bucket, now) < median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_fills_again_and_is_of_one_name() {
        let rates = Rates::new(3, Duration::from_secs(10));
        let now = Instant::now();
        for _ in 0..3 {
            assert!(rates.take("a", now));
        }
        assert!(!rates.take("a", now) && rates.take("b", now));
        assert!(!rates.take("a", now + Duration::from_secs(9)));
        assert!(rates.take("a", now + Duration::from_secs(11)));
        assert!(!rates.take("a", now + Duration::from_secs(11)));
    }

    #[test]
    fn many_names_neither_fill_the_memory_nor_free_those_who_asked_too_often() {
        let rates = Rates::new(3, Duration::from_secs(3600));
        let now = Instant::now();
        for _ in 0..4 {
            rates.take("greedy", now);
        }
        for name in 0..3 * MOST_NAMES {
            rates.take(&name.to_string(), now);
            assert!(rates.buckets.lock().unwrap().len() <= MOST_NAMES);
        }
        assert!(!rates.take("greedy", now));
    }
}
