//! What all targets share: an input costs no more memory and no more time than its length explains.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Buffers of a fixed size, 1 MiB for each archive that is read.
const ALWAYS: usize = 8 << 20;
/// For each byte of the input: it becomes a JSON value, or an entry of the table of contents, and that several times.
const FOR_EACH: usize = 256;

/// What is longer is tried as it is.
const SHORT: usize = 64;
const STRETCHED: usize = 32 << 10;
/// Of the processor; a hundred times what the slowest property needs for so many bytes.
const SOON: Duration = Duration::from_secs(2);

/// Tries a property on an input, and on some short ones with their second half many times over: what takes time or
/// memory by the square of the length is seen so. Panics where the property does not hold or takes too much.
pub fn check(bytes: &[u8], property: fn(&[u8])) {
    within_memory(bytes, property);
    // A sixteenth of them, the same in each run.
    if bytes.len() <= SHORT && bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)) % 16 == 0 {
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let times = STRETCHED / second.len().max(1);
        let stretched = [first, &second.repeat(times)].concat();
        let start = processor_time();
        within_memory(&stretched, property);
        let taken = processor_time() - start;
        assert!(taken <= SOON, "{taken:?} for {first:?} and {times} times {second:?}");
    }
}

fn within_memory(bytes: &[u8], property: fn(&[u8])) {
    let before = NOW.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    property(bytes);
    let most = MOST.load(Ordering::Relaxed).saturating_sub(before);
    let allowed = ALWAYS + FOR_EACH * bytes.len();
    assert!(
        most <= allowed,
        "{most} bytes of memory for an input of {}",
        bytes.len()
    );
}

fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn taken(bytes: usize) {
    let now = NOW.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST.fetch_max(now, Ordering::Relaxed);
}

// SAFETY: everything is the system's allocator's; this one only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        taken(size);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(at, layout, size) }
    }
}
