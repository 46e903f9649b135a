//! How much memory a process takes.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What our process may take, whatever the database's size: without the pages of its program file, which the system
/// can drop at any time, and which are many in a debug build.
const MOST: u64 = 100 << 20;

/// The memory that a process has taken, in bytes. `None`: it has ended.
pub fn taken(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    Some((of("RssAnon:")? + of("RssShmem:")?) * 1024)
}

/// Ends with the most memory that the process had taken.
fn peak(child: &mut Child) -> u64 {
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        peak = peak.max(taken(child.id()).unwrap_or(0));
        std::thread::sleep(Duration::from_millis(2));
    }
    peak
}

/// Runs the command, which must succeed in bounded memory, and returns what it wrote to its output.
#[track_caller]
pub fn bounded(command: &mut Command) -> Vec<u8> {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let peak = peak(&mut child);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!((1 << 20..=MOST).contains(&peak), "{} MiB", peak >> 20);
    output.stdout
}
