//! How much memory a backup may use, and for what. A pure function of the memory and of the parts that share it, so
//! that the worst case is known before anything is read:
//!
//! ```text
//! read ahead   rows that several streams have read and that are not written yet
//! pieces       between reader and framing: 2 × threads + 2 of them, each with its content (2 MiB) and
//!              its compressed form (as much at worst), and the compressors' tables
//! parts        being filled and in transit, for each bucket; a folder takes the bytes as they come
//! ```

use std::collections::BTreeMap;
use std::path::{Component, Path};

use rustix::process::{Resource, getrlimit};

use crate::dataflow::compress::PIECE;
use crate::error::{Error, Result};
use crate::units::human_bytes;

const MIB: u64 = 1 << 20;
/// The compressor's tables for the hardest effort that `auto` may choose, and a worker's output buffer.
const CONTEXT: u64 = 6 * MIB;
/// For each stream that reads: the rows of one task, and half of the next one's.
const AHEAD: u64 = 12 * MIB;

/// The parts of a backup that need memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryDemand {
    pub jobs: usize,
    pub threads: usize,
    pub buckets: usize,
    pub part_size: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shares {
    pub read_ahead: u64,
    pub pieces: u64,
    /// For each bucket.
    pub parts: u64,
}

impl MemoryDemand {
    /// `None` if there is not enough.
    pub fn shares(self, memory: u64) -> Option<Shares> {
        let least = self.at_least();
        let rest = memory.checked_sub(self.least())?;
        let (jobs, buckets) = (self.jobs as u64, self.buckets as u64);
        let ahead = if jobs > 1 {
            (jobs * AHEAD).saturating_sub(least.read_ahead)
        } else {
            0
        };
        let read_ahead = ahead.min(rest / if buckets > 0 { 2 } else { 1 });
        let parts = (rest - read_ahead).checked_div(buckets).unwrap_or(0);
        Some(Shares {
            read_ahead: least.read_ahead + read_ahead,
            parts: least.parts + parts,
            ..least
        })
    }

    /// The minimum: one portion for each stream, one part that is being filled and another in transit.
    pub fn at_least(self) -> Shares {
        let (jobs, threads) = (self.jobs as u64, self.threads as u64);
        Shares {
            read_ahead: if jobs > 1 { (jobs + 2) * PIECE as u64 } else { 0 },
            pieces: (2 * threads + 2) * 2 * PIECE as u64 + threads * CONTEXT,
            parts: if self.buckets > 0 { 2 * self.part_size } else { 0 },
        }
    }

    /// The least memory that is enough.
    pub fn least(self) -> u64 {
        let Shares {
            read_ahead,
            pieces,
            parts,
        } = self.at_least();
        read_ahead + pieces + self.buckets as u64 * parts
    }
}

/// The memory of a backup if no setting says it: a quarter of the available memory, but no more than the backup can
/// use.
pub fn usual(task: Option<u64>, workers: usize) -> u64 {
    let useful = (32 + 32 * workers as u64) * MIB;
    task.map_or(useful, |task| useful.min(task / 4))
}

/// With less than this a run cannot start: the program, its threads' stacks and its libraries need as much.
const LEAST_ADDRESSES: u64 = 128 * MIB;

/// Fails if the process has too little address space (`ulimit -v`).
pub fn has_limited_addresses() -> bool {
    getrlimit(Resource::As).current.is_some()
}

pub fn check_addresses() -> Result<()> {
    match getrlimit(Resource::As).current {
        Some(limit) if limit < LEAST_ADDRESSES => {
            let what = format!(
                "{} of address space is too little for this process (ulimit -v)",
                human_bytes(limit)
            );
            Err(Error::config(what).hint(format!("allow at least {}", human_bytes(LEAST_ADDRESSES))))
        }
        _ => Ok(()),
    }
}

/// The memory of this task: the least of what Lambda says, what its control group and those above it allow, what the
/// process may have, and what the machine has.
pub fn of_this_task(env: &BTreeMap<String, String>) -> Option<u64> {
    if let Some(size) = env.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE") {
        return size.parse::<u64>().ok().map(|mib| mib * MIB);
    }
    let machine = rustix::system::sysinfo();
    let machine = machine.totalram * u64::from(machine.mem_unit.max(1));
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = [Resource::As, Resource::Data].map(|limit| getrlimit(limit).current);
    let limits = of_groups(&groups, Path::new("/sys/fs/cgroup"));
    limits.chain(own.into_iter().flatten()).chain([machine]).min()
}

/// The least limit of the control groups that `/proc/self/cgroup` names, each with all groups that contain it: an
/// outer group may have the lower limit. In a container the names may be the host's, and the mounted tree begins with
/// the container's own group.
fn of_groups<'a>(groups: &'a str, root: &'a Path) -> impl Iterator<Item = u64> + 'a {
    let named = groups.lines().filter_map(move |line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        // A line without a controller's name is of the newer hierarchy, which has all controllers.
        let (tree, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            names if names.split(',').any(|name| name == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => return None,
        };
        let below = Path::new(path).strip_prefix("/").ok()?;
        // A group outside of the mounted tree.
        let below = if below.components().all(|part| matches!(part, Component::Normal(_))) {
            below
        } else {
            Path::new("")
        };
        Some(
            below
                .ancestors()
                .map(|group| tree.join(group).join(file))
                .collect::<Vec<_>>(),
        )
    });
    named.flatten().filter_map(|path| limit(&path))
}

/// `max`, or a number so large that it has the same effect.
fn limit(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(jobs: usize, threads: usize, buckets: usize) -> MemoryDemand {
        MemoryDemand {
            jobs,
            threads,
            buckets,
            part_size: 8 * MIB,
        }
    }

    fn total(shares: Shares, buckets: u64) -> u64 {
        shares.read_ahead + shares.pieces + buckets * shares.parts
    }

    #[test]
    fn the_shares_are_all_of_it_and_no_more() {
        for jobs in [1, 2, 4, 16] {
            for threads in [1, 2, 8] {
                for buckets in [0, 1, 3] {
                    let demand = demand(jobs, threads, buckets);
                    assert_eq!(demand.shares(demand.least() - 1), None);
                    for more in [0, 1, 10 * MIB, 500 * MIB] {
                        let memory = demand.least() + more;
                        let shares = demand.shares(memory).unwrap();
                        assert!(total(shares, buckets as u64) <= memory, "{demand:?} {more}");
                        let least = demand.at_least();
                        assert!(shares.read_ahead >= least.read_ahead && shares.parts >= least.parts);
                    }
                }
            }
        }
    }

    #[test]
    fn the_narrowest_limit_of_the_own_groups_counts_and_no_others() {
        let root = tempfile::tempdir().unwrap();
        let say = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        say("memory.max", "max\n");
        say("a.slice/memory.max", "300\n");
        say("a.slice/b.service/memory.max", "500\n");
        say("other/memory.max", "7\n");
        say("memory/docker/x/memory.limit_in_bytes", "200\n");
        let least = |groups: &str| of_groups(groups, root.path()).min();
        assert_eq!(least("0::/a.slice/b.service\n"), Some(300));
        assert_eq!(least("12:cpu,cpuacct:/other\n3:memory:/docker/x\n0::/\n"), Some(200));
        assert_eq!(least("0::/../../elsewhere\n"), None);
        assert_eq!(least("0::/gone/away\nnonsense\n"), None);
        assert_eq!(least(""), None);
    }

    #[test]
    fn many_cores_take_no_more_than_the_task_has() {
        for task in [128 * MIB, 512 * MIB, 2 << 30, 64 << 30] {
            let memory = usual(Some(task), 64);
            assert!(memory <= task / 4, "{task}");
            let fits = (1..=64)
                .rev()
                .find(|threads| demand(1, *threads, 1).shares(memory).is_some());
            assert!(fits.is_some() || task < 160 * MIB, "{task}");
        }
    }

    #[test]
    fn the_smallest_function_can_make_a_backup_of_one_stream_and_thread() {
        let memory = usual(Some(128 * MIB), 1);
        assert!(memory >= 32 * MIB);
        assert!(demand(1, 1, 1).least() <= 40 * MIB, "{}", demand(1, 1, 1).least() / MIB);
    }

    #[test]
    fn two_jobs_stay_below_what_is_promised() {
        // 128 MiB include the program itself.
        assert_eq!(usual(Some(24 << 30), 2), 96 * MIB);
        assert!(demand(2, 2, 1).shares(96 * MIB).is_some());
    }
}
