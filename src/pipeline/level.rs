//! How hard to compress, when nobody has said it: as hard as there is time for. While the store is
//! what everybody waits for, the processor's time costs nothing and fewer bytes save some; as soon
//! as the workers are what is waited for, the cheapest effort is right.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::compress::{Codec, Effort};

/// How long a rung is tried before the next.
const TRIAL: Duration = Duration::from_millis(500);
/// The share of a trial that must have been waiting for the store.
const WAITING: f64 = 0.6;
/// How soon, and at which share of waiting for the workers, it comes down.
const MISTAKE: Duration = Duration::from_millis(100);
const HURRY: f64 = 0.3;

/// What the assembly has waited for so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Waited(Arc<Waits>);

#[derive(Debug, Default)]
struct Waits {
    stores: AtomicU64,
    workers: AtomicU64,
}

impl Waited {
    /// For the stores to take bytes.
    pub(super) fn for_stores(&self, since: Instant) {
        add(&self.0.stores, since.elapsed());
    }

    /// For a worker to be done with a piece.
    pub(super) fn for_workers(&self, since: Instant) {
        add(&self.0.workers, since.elapsed());
    }

    fn so_far(&self) -> Wait {
        let read = |counter: &AtomicU64| Duration::from_nanos(counter.load(Ordering::Relaxed));
        Wait {
            stores: read(&self.0.stores),
            workers: read(&self.0.workers),
        }
    }
}

fn add(counter: &AtomicU64, time: Duration) {
    let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    counter.fetch_add(nanoseconds, Ordering::Relaxed);
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Wait {
    stores: Duration,
    workers: Duration,
}

pub(super) struct Level {
    ladder: Vec<Effort>,
    rung: usize,
    waited: Waited,
    since: (Instant, Wait),
    used: BTreeMap<i32, u64>,
}

impl Level {
    pub(super) fn new(codec: Codec, waited: Waited) -> Self {
        Self {
            ladder: codec.ladder(),
            rung: 0,
            since: (Instant::now(), waited.so_far()),
            waited,
            used: BTreeMap::new(),
        }
    }

    /// For the next piece.
    pub(super) fn effort(&mut self, bytes: usize) -> Effort {
        if self.ladder.len() > 1 {
            let (now, waited) = (Instant::now(), self.waited.so_far());
            let (since, before) = self.since;
            let wait = Wait {
                stores: waited.stores.saturating_sub(before.stores),
                workers: waited.workers.saturating_sub(before.workers),
            };
            let verdict = judge(now - since, wait);
            if verdict != Verdict::Undecided {
                self.since = (now, waited);
            }
            self.rung = match verdict {
                Verdict::Harder => (self.rung + 1).min(self.ladder.len() - 1),
                Verdict::Cheapest => 0,
                Verdict::Same | Verdict::Undecided => self.rung,
            };
        }
        let effort = self.ladder[self.rung];
        *self.used.entry(effort.level()).or_default() += bytes as u64;
        effort
    }

    /// Bytes of content by level.
    pub(super) fn used(self) -> BTreeMap<i32, u64> {
        self.used
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Harder,
    Same,
    Cheapest,
    Undecided,
}

fn judge(trial: Duration, wait: Wait) -> Verdict {
    let share = |time: Duration| time.as_secs_f64() / trial.as_secs_f64();
    if trial >= MISTAKE && share(wait.workers) >= HURRY {
        return Verdict::Cheapest;
    }
    if trial < TRIAL {
        return Verdict::Undecided;
    }
    if share(wait.stores) >= WAITING {
        Verdict::Harder
    } else {
        Verdict::Same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(stores: u64, workers: u64) -> Wait {
        Wait {
            stores: Duration::from_millis(stores),
            workers: Duration::from_millis(workers),
        }
    }

    #[test]
    fn the_store_makes_it_harder_and_the_processor_cheaper() {
        let ms = Duration::from_millis;
        assert_eq!(judge(ms(100), wait(100, 0)), Verdict::Undecided, "too early to tell");
        assert_eq!(judge(ms(600), wait(500, 50)), Verdict::Harder);
        assert_eq!(judge(ms(600), wait(100, 0)), Verdict::Same, "the database is slow");
        assert_eq!(judge(ms(120), wait(0, 90)), Verdict::Cheapest, "at once");
        assert_eq!(judge(ms(20), wait(0, 20)), Verdict::Undecided, "one piece");
    }

    #[test]
    fn it_climbs_rung_by_rung_to_the_top_and_comes_down_in_one() {
        let waited = Waited::default();
        let mut level = Level::new(Codec::AutoZstd, waited.clone());
        let pass = |level: &mut Level, counter: &AtomicU64| {
            level.since.0 -= TRIAL;
            add(counter, TRIAL);
            level.effort(1)
        };
        let climbed: Vec<Effort> = (0..5).map(|_| pass(&mut level, &waited.0.stores)).collect();
        let ladder = Codec::AutoZstd.ladder();
        assert_eq!(climbed, [ladder[1], ladder[2], ladder[3], ladder[3], ladder[3]]);
        assert_eq!(pass(&mut level, &waited.0.workers), ladder[0]);
        assert_eq!(level.used(), BTreeMap::from([(2, 1), (3, 1), (6, 1), (9, 3)]));
    }

    #[test]
    fn what_was_asked_for_stays() {
        let waited = Waited::default();
        let mut level = Level::new(Codec::Zstd(5), waited.clone());
        level.since.0 -= TRIAL;
        add(&waited.0.stores, TRIAL);
        assert_eq!(level.effort(10), Effort::Zstd(5));
        assert_eq!(level.used(), BTreeMap::from([(5, 10)]));
    }
}
