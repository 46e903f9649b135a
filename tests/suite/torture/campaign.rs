//! Rounds of one kind, their chances, and their count.

use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Rounds in the gate are always the same ones.
const SEED: u64 = 15;

/// Numbers that look random, and are the same for the same seed.
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// Some moment of a time so long.
    pub fn moment(&mut self, of: Duration) -> Duration {
        of.mul_f64(self.next() as f64 / u64::MAX as f64)
    }
}

pub struct Campaign {
    name: &'static str,
    seed: u64,
    rounds: usize,
    began: Instant,
    came_to: BTreeMap<String, usize>,
    lost: Vec<usize>,
}

pub fn setting(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}")))
}

impl Campaign {
    /// Of so many rounds in the gate, and so many times more as is asked for.
    pub fn of(name: &'static str, rounds: usize) -> Self {
        Self {
            name,
            seed: setting("TORTURE_SEED").unwrap_or(SEED),
            rounds: rounds * setting("TORTURE_TIMES").unwrap_or(1) as usize,
            began: Instant::now(),
            came_to: BTreeMap::new(),
            lost: Vec::new(),
        }
    }

    /// Each round says what it came to. One that panics is lost, and the others go on.
    pub fn run(mut self, mut round: impl FnMut(usize, &mut Dice) -> String) {
        let only = setting("TORTURE_ROUND").map(|number| number as usize);
        for number in (0..self.rounds).filter(|number| only.is_none_or(|only| only == *number)) {
            let mut dice = Dice::new(self.seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
            match catch_unwind(AssertUnwindSafe(|| round(number, &mut dice))) {
                Ok(came_to) => *self.came_to.entry(came_to).or_default() += 1,
                Err(_) => {
                    println!("{}: lost round {number} of seed {}", self.name, self.seed);
                    self.lost.push(number);
                }
            }
        }
        self.end();
    }

    fn end(self) {
        let tried = self.came_to.values().sum::<usize>() + self.lost.len();
        if let Ok(path) = std::env::var("TORTURE_REPORT") {
            let line = serde_json::json!({
                "campaign": self.name,
                "seed": self.seed,
                "tried": tried,
                "lost": self.lost,
                "came_to": self.came_to,
                "seconds": self.began.elapsed().as_secs(),
            });
            let mut file = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .unwrap();
            file.write_all(format!("{line}\n").as_bytes()).unwrap();
        }
        println!("{}: {tried} tried: {:?}", self.name, self.came_to);
        assert!(
            self.lost.is_empty(),
            "{}: seed {}: lost rounds {:?} of {tried}",
            self.name,
            self.seed,
            self.lost
        );
    }
}
