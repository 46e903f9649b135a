//! How hard to compress if the user has not set it: as hard as time allows. While all others wait for the store, the
//! processor's time costs nothing, and fewer bytes save time. As soon as no processor has time to spare, the cheapest
//! effort is right.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::spare::Clocks;
use crate::dataflow::compress::{Codec, Effort};

/// How long a rung is tried before a harder one.
const TRIAL: Duration = Duration::from_millis(500);
/// The share of a trial that must have been spent waiting for the store.
const WAITING: f64 = 0.6;
/// How often it checks, and at which share of unused processor time it goes back to the cheapest effort.
const LOOK: Duration = Duration::from_millis(100);
const SHORT: f64 = 0.1;
/// The share that the usual effort needs, which takes up to half as much time again as the cheapest.
const ENOUGH: f64 = 0.25;

/// How long the seal has waited for the stores to take bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Waited(Arc<AtomicU64>);

impl Waited {
    pub(super) fn since(&self, began: Instant) {
        let nanoseconds = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    fn so_far(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

pub(super) struct Level {
    rungs: Rungs,
    waited: Waited,
    /// When this trial began, and how long the seal had waited by then.
    trial: (Clocks, Duration),
    looked: Instant,
    used: BTreeMap<i32, u64>,
}

impl Level {
    pub(super) fn new(codec: Codec, waited: Waited) -> Self {
        let (ladder, usual) = codec.ladder();
        let now = Clocks::now();
        Self {
            rungs: Rungs {
                ladder,
                usual,
                now: usual,
            },
            trial: (now, waited.so_far()),
            looked: now.at,
            waited,
            used: BTreeMap::new(),
        }
    }

    /// The effort for the next piece.
    pub(super) fn effort(&mut self, bytes: usize) -> Effort {
        if self.rungs.ladder.len() > 1 && self.looked.elapsed() >= LOOK {
            self.look();
        }
        let effort = self.rungs.effort();
        *self.used.entry(effort.level()).or_default() += bytes as u64;
        effort
    }

    fn look(&mut self) {
        let (now, waited) = (Clocks::now(), self.waited.so_far());
        let (began, before) = self.trial;
        self.looked = now.at;
        // The time before the first piece does not count.
        if self.used.is_empty() {
            self.trial = (now, waited);
            return;
        }
        let trial = now.at - began.at;
        let waiting = waited.saturating_sub(before).as_secs_f64() / trial.as_secs_f64();
        let verdict = judge(trial, waiting, now.spare_since(began));
        if verdict != Verdict::Undecided {
            self.trial = (now, waited);
        }
        self.rungs.go(verdict);
    }

    /// Bytes of content by level.
    pub(super) fn used(self) -> BTreeMap<i32, u64> {
        self.used
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Harder,
    Usual,
    Same,
    Cheapest,
    Undecided,
}

/// Decides by the share of the trial that was spent waiting for the store, and by the share of processor time that
/// was unused.
fn judge(trial: Duration, waiting: f64, spare: f64) -> Verdict {
    if spare < SHORT {
        Verdict::Cheapest
    } else if trial < TRIAL {
        Verdict::Undecided
    } else if waiting >= WAITING {
        Verdict::Harder
    } else if spare >= ENOUGH {
        Verdict::Usual
    } else {
        Verdict::Same
    }
}

struct Rungs {
    ladder: Vec<Effort>,
    usual: usize,
    now: usize,
}

impl Rungs {
    fn go(&mut self, verdict: Verdict) {
        self.now = match verdict {
            Verdict::Harder => (self.now + 1).min(self.ladder.len() - 1),
            Verdict::Usual => self.now.max(self.usual),
            Verdict::Cheapest => 0,
            Verdict::Same | Verdict::Undecided => self.now,
        };
    }

    fn effort(&self) -> Effort {
        self.ladder[self.now]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_makes_it_harder_and_the_processor_cheaper() {
        let ms = Duration::from_millis;
        assert_eq!(judge(ms(100), 1.0, 0.5), Verdict::Undecided, "too early to tell");
        assert_eq!(judge(ms(600), 0.8, 0.5), Verdict::Harder);
        assert_eq!(judge(ms(600), 0.2, 0.5), Verdict::Usual, "the database is slow");
        assert_eq!(
            judge(ms(600), 0.2, 0.2),
            Verdict::Same,
            "and what is harder might be slower"
        );
        assert_eq!(judge(ms(120), 0.2, 0.05), Verdict::Cheapest, "at once");
        assert_eq!(
            judge(ms(600), 0.9, 0.05),
            Verdict::Cheapest,
            "the store has no processor either"
        );
    }

    #[test]
    fn it_climbs_rung_by_rung_to_the_top_and_comes_down_in_one() {
        let (ladder, usual) = Codec::AutoZstd.ladder();
        let mut rungs = Rungs {
            ladder: ladder.clone(),
            usual,
            now: usual,
        };
        let mut pass = |verdict| {
            rungs.go(verdict);
            rungs.effort()
        };
        let climbed = [0; 4].map(|_| pass(Verdict::Harder));
        assert_eq!(climbed, [ladder[2], ladder[3], ladder[4], ladder[4]]);
        assert_eq!(pass(Verdict::Usual), ladder[4], "as long as there is time");
        assert_eq!(pass(Verdict::Cheapest), ladder[0]);
        assert_eq!(pass(Verdict::Same), ladder[0]);
        assert_eq!(pass(Verdict::Usual), ladder[1]);
    }

    #[test]
    fn what_was_asked_for_stays() {
        let mut level = Level::new(Codec::Zstd(5), Waited::default());
        level.looked -= TRIAL;
        assert_eq!(level.effort(10), Effort::Zstd(5));
        level.rungs.go(Verdict::Harder);
        level.rungs.go(Verdict::Cheapest);
        assert_eq!(level.effort(10), Effort::Zstd(5));
        assert_eq!(level.used(), BTreeMap::from([(5, 20)]));
    }
}
