//! How hard to compress, when nobody has said it: as hard as there is time for. While the store is
//! what everybody waits for, the processor's time costs nothing and fewer bytes save some; as soon
//! as pieces wait for the processor, the cheapest effort is right.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::compress::{Codec, Effort};

/// How long a rung is tried before the next.
const TRIAL: Duration = Duration::from_millis(500);
/// The share of a trial that must have been waiting for the store.
const WAITING: f64 = 0.6;

/// The time that was spent waiting for the stores to take bytes; written by the assembly.
#[derive(Debug, Clone, Default)]
pub(super) struct Waited(Arc<AtomicU64>);

impl Waited {
    pub(super) fn add(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    fn so_far(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

pub(super) struct Level {
    ladder: Vec<Effort>,
    rung: usize,
    waited: Waited,
    since: (Instant, Duration),
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

    /// For the next piece, when so many wait for a worker.
    pub(super) fn effort(&mut self, backlog: usize, bytes: usize) -> Effort {
        if self.ladder.len() > 1 {
            let (now, waited) = (Instant::now(), self.waited.so_far());
            let (since, before) = self.since;
            let verdict = judge(now - since, waited.saturating_sub(before), backlog);
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

fn judge(trial: Duration, waited: Duration, backlog: usize) -> Verdict {
    if backlog > 0 {
        return Verdict::Cheapest;
    }
    if trial < TRIAL {
        return Verdict::Undecided;
    }
    if waited.as_secs_f64() >= WAITING * trial.as_secs_f64() {
        Verdict::Harder
    } else {
        Verdict::Same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_makes_it_harder_and_the_processor_cheaper() {
        let ms = Duration::from_millis;
        assert_eq!(judge(ms(100), ms(100), 0), Verdict::Undecided, "too early to tell");
        assert_eq!(judge(ms(600), ms(500), 0), Verdict::Harder);
        assert_eq!(judge(ms(600), ms(100), 0), Verdict::Same);
        assert_eq!(judge(ms(10), ms(10), 1), Verdict::Cheapest, "at once");
        assert_eq!(judge(ms(600), ms(600), 2), Verdict::Cheapest);
    }

    #[test]
    fn it_climbs_rung_by_rung_to_the_top_and_comes_down_in_one() {
        let waited = Waited::default();
        let mut level = Level::new(Codec::AutoZstd, waited.clone());
        let pass = |level: &mut Level, backlog| {
            level.since.0 -= TRIAL;
            waited.add(TRIAL);
            level.effort(backlog, 1)
        };
        let climbed: Vec<Effort> = (0..5).map(|_| pass(&mut level, 0)).collect();
        let ladder = Codec::AutoZstd.ladder();
        assert_eq!(climbed, [ladder[1], ladder[2], ladder[3], ladder[3], ladder[3]]);
        assert_eq!(pass(&mut level, 1), ladder[0]);
        assert_eq!(level.used(), BTreeMap::from([(2, 1), (3, 1), (6, 1), (9, 3)]));
    }

    #[test]
    fn what_was_asked_for_stays() {
        let waited = Waited::default();
        let mut level = Level::new(Codec::Zstd(5), waited.clone());
        level.since.0 -= TRIAL;
        waited.add(TRIAL);
        assert_eq!(level.effort(0, 10), Effort::Zstd(5));
        assert_eq!(level.used(), BTreeMap::from([(5, 10)]));
    }
}
