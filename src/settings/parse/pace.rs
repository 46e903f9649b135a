//! How fast a backup may run: its streams, its memory, and its limits for the load on the server.

use std::time::Duration;

use super::Reader;
use crate::dataflow::budget::{self, MemoryDemand, Shares};
use crate::settings::{Format, Nice, StoreUrl, specs};
use crate::units::count;

const NICE_MAX_LAG: Duration = Duration::from_secs(10);
const NICE_MAX_SESSIONS: usize = 20;
/// With a lower rate, hardly any backup would end.
const SLOWEST: u64 = 16 << 10;

impl Reader<'_> {
    pub(super) fn nice(&mut self) -> Option<Nice> {
        let max_lag = self.read("BACKUP_NICE_MAX_LAG", specs::duration);
        let max_sessions = self.count("BACKUP_NICE_MAX_SESSIONS", 0..=1_000_000);
        self.switch("BACKUP_NICE").unwrap_or(false).then(|| Nice {
            max_lag: max_lag.unwrap_or(NICE_MAX_LAG),
            max_sessions: max_sessions.unwrap_or(NICE_MAX_SESSIONS) as u64,
        })
    }

    pub(super) fn max_rate(&mut self) -> Option<u64> {
        self.read("BACKUP_MAX_RATE", |text| match specs::size(text)? {
            rate if rate >= SLOWEST => Ok(rate),
            _ => Err(format!("{text:?} is less than 16k bytes per second")),
        })
    }

    pub(super) fn jobs(&mut self, nice: Option<Nice>, format: Format) -> usize {
        let jobs = self.count("BACKUP_JOBS", 1..=64).unwrap_or(1);
        if jobs > 1 && nice.is_some() {
            if let (Some(nice), Some(jobs)) = (self.values.get("BACKUP_NICE"), self.values.get("BACKUP_JOBS")) {
                self.problems
                    .conflict(nice, jobs, "a backup with --nice reads with one stream");
            }
        } else if jobs > 1 && format == Format::Plain {
            self.note("a backup in the plain format reads with one stream, whatever the number of jobs");
        }
        jobs
    }

    /// The shares of memory, and the number of threads that fit into them.
    pub(super) fn memory(
        &mut self,
        jobs: usize,
        threads: usize,
        stores: &[StoreUrl],
        part_size: u64,
    ) -> (Shares, usize) {
        let buckets = stores
            .iter()
            .filter(|store| matches!(store, StoreUrl::S3 { .. }))
            .count();
        let demand = MemoryDemand {
            jobs,
            threads,
            buckets,
            part_size,
        };
        let given = self.read("BACKUP_MEMORY", specs::size);
        let memory = given.unwrap_or_else(|| budget::usual(self.input.memory, jobs.max(threads)));
        if let Some(shares) = demand.shares(memory) {
            return (shares, threads);
        }
        // Fewer threads are only slower. With more memory than the task has, the system would kill it.
        let least = MemoryDemand { threads: 1, ..demand };
        if given.is_some() && least.shares(memory).is_none() {
            self.problems.add(format!(
                "BACKUP_MEMORY: with {} and {} a backup needs at least {} MiB",
                count(jobs, "job"),
                count(buckets, "bucket"),
                least.least().div_ceil(1 << 20)
            ));
        }
        let fitting = (1..threads).rev().find_map(|threads| {
            let shares = MemoryDemand { threads, ..demand }.shares(memory)?;
            Some((shares, threads))
        });
        let (shares, fewer) = fitting.unwrap_or_else(|| (least.at_least(), 1));
        if fewer < threads {
            self.note(format!(
                "pgstow uses {fewer} compression threads, not {threads}: the memory is not enough for more"
            ));
        }
        (shares, fewer)
    }
}
