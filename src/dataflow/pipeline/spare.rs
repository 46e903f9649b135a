//! How much processor time is unused.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// The clocks at one moment: this process's, and the whole machine's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    pub(super) at: Instant,
    own: Duration,
    machine: Option<Ticks>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    idle: u64,
    all: u64,
}

impl Clocks {
    pub(super) fn now() -> Self {
        let own = clock_gettime(ClockId::ProcessCPUTime);
        let stat = std::fs::read_to_string("/proc/stat").ok();
        Self {
            at: Instant::now(),
            own: Duration::new(own.tv_sec.unsigned_abs(), u32::try_from(own.tv_nsec).unwrap_or(0)),
            machine: stat.and_then(|stat| Ticks::parse(&stat)),
        }
    }

    /// The unused share, from 0 to 1, of the machine's processors, or of those that this task may use. The smaller
    /// one counts: the machine's times do not show a container's limit, and the task's times do not show other
    /// processes.
    pub(super) fn spare_since(self, before: Self) -> f64 {
        let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
        let used = self.own.saturating_sub(before.own).as_secs_f64();
        let elapsed = (self.at - before.at).as_secs_f64();
        let ours = (1.0 - used / (elapsed * cores)).clamp(0.0, 1.0);
        let machine = match (before.machine, self.machine) {
            (Some(before), Some(now)) => now.idle_since(before),
            _ => None,
        };
        machine.map_or(ours, |machine| machine.min(ours))
    }
}

impl Ticks {
    /// Parses the first line: `cpu user nice system idle iowait irq softirq steal …`. The fields that follow are
    /// already included in the first two.
    fn parse(stat: &str) -> Option<Self> {
        let times = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8);
        let times: Vec<u64> = times.map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self {
            idle: times.get(3)? + times.get(4)?,
            all: times.iter().sum(),
        })
    }

    /// `None` if the clock has not advanced. The time of waiting for disks may go backwards.
    fn idle_since(self, before: Self) -> Option<f64> {
        let all = self.all.checked_sub(before.all).filter(|all| *all > 0)?;
        Some((self.idle.saturating_sub(before.idle) as f64 / all as f64).min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_times_are_read() {
        let before = Ticks::parse("cpu  100 0 50 800 50 0 0 0 7 7\ncpu0 1 2 3\n").unwrap();
        assert_eq!(before, Ticks { idle: 850, all: 1000 });
        let now = Ticks::parse("cpu  130 0 90 820 60 0 0 0 7 7").unwrap();
        assert_eq!(now.idle_since(before), Some(0.3));
        assert_eq!(now.idle_since(now), None, "too soon to tell");
        assert_eq!(Ticks::parse("cpu 1 2"), None);
        assert_eq!(Ticks::parse(""), None);
    }

    #[test]
    fn the_smaller_share_counts() {
        let cores = std::thread::available_parallelism().unwrap().get() as u32;
        let before = Clocks {
            at: Instant::now(),
            own: Duration::ZERO,
            machine: Some(Ticks { idle: 0, all: 0 }),
        };
        let second = |own: f64, idle: u64| Clocks {
            at: before.at + Duration::from_secs(1),
            own: Duration::from_secs_f64(own) * cores,
            machine: Some(Ticks { idle, all: 100 }),
        };
        assert!(
            (second(0.75, 90).spare_since(before) - 0.25).abs() < 1e-9,
            "our own limit"
        );
        assert!((second(0.25, 10).spare_since(before) - 0.1).abs() < 1e-9, "a neighbour");
        let blind = Clocks {
            machine: None,
            ..second(0.5, 0)
        };
        assert!((blind.spare_since(before) - 0.5).abs() < 1e-9);
    }
}
