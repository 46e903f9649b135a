//! Memory is what the shares say, whatever is read and however slowly it is taken: every allocation
//! of a backup's data path is counted.

// The lints spare tests, but not their helpers.
#![allow(clippy::unwrap_used)]
// An allocator is unsafe by nature; this one only counts.
#![allow(unsafe_code)]

// Of the suite's support, this program uses a part.
#[allow(dead_code)]
#[path = "../suite/support/mod.rs"]
mod support;

mod store;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pgstow::dataflow::budget::{MemoryDemand, Shares};
use pgstow::dataflow::compress::Codec;
use pgstow::dataflow::pipeline::{self, Flow, Inflow};
use pgstow::dataflow::throttle::Throttle;
use pgstow::error::Result;
use pgstow::postgres::StallClock;
use pgstow::run::progress::Silent;
use pgstow::store::{Expected, Mark, Stored, Upload};

use support::database::Database;
use support::held::Held;

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn taken(bytes: usize) {
    let now = NOW.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST.fetch_max(now, Ordering::Relaxed);
}

// SAFETY: everything is the system's allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
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

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A store that is slower than everybody else, so that all queues are full.
struct Slow;

#[async_trait]
impl Upload for Slow {
    fn mark(&self) -> Mark {
        Mark(String::new())
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        tokio::time::sleep(Duration::from_micros(bytes.len() as u64 / 40)).await;
        Ok(())
    }
    async fn complete(self: Box<Self>, expected: &Expected) -> Result<Stored> {
        Ok(Stored {
            bytes: expected.bytes,
            checksum: None,
            parts: Vec::new(),
        })
    }
    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// What is not data: buffers of the sockets and of the archive's reader, the table of contents, what
/// the hand-off to a store holds.
const BESIDE: usize = 8 << 20;

/// The most bytes at once.
async fn most(database: &Database, jobs: usize, shares: Shares, codec: Codec, threads: usize) -> usize {
    let (_held, streams) = Held::open(database, jobs, shares.read_ahead).await;
    let before = NOW.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let (head, source, _reading) = streams.start(&StallClock::default(), &Throttle::default());
    let flow = Flow {
        input: Inflow::Blocks { head, source },
        codec,
        threads,
        range: pipeline::RANGE,
        stages: Vec::new(),
        earlier: pgstow::dataflow::pipeline::EarlierBlocks::default(),
        md5: false,
        observer: Arc::new(Silent),
    };
    let passed = pipeline::run(flow, vec![Box::new(Slow)], Default::default()).await;
    assert!(passed.is_ok(), "the pipeline failed");
    MOST.load(Ordering::Relaxed) - before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_path_stays_within_its_shares() {
    let database = Database::fresh(17);
    // Incompressible, and larger than all shares together.
    database.sql(
        "CREATE TABLE noise (i int, a bytea); ALTER TABLE noise ALTER COLUMN a SET STORAGE EXTERNAL;
         INSERT INTO noise SELECT i, (SELECT string_agg(sha256((i * 100 + j)::text::bytea), '') FROM generate_series(1, 90) j)
         FROM generate_series(1, 16000) i",
    );
    let cases = [
        (2, 2, Codec::AutoZstd),
        // The hardest that `auto` may choose.
        (2, 2, Codec::Zstd(9)),
        (4, 1, Codec::None),
        (3, 2, Codec::AutoGzip),
    ];
    for (jobs, threads, codec) in cases {
        let demand = MemoryDemand {
            jobs,
            threads,
            buckets: 0,
            part_size: 0,
        };
        for memory in [demand.least(), demand.least() + (16 << 20)] {
            let shares = demand.shares(memory).unwrap();
            let most = most(&database, jobs, shares, codec, threads).await;
            let allowed = usize::try_from(shares.read_ahead + shares.pieces).unwrap() + BESIDE;
            assert!(
                most <= allowed,
                "{jobs} jobs, {threads} threads, {codec:?}: {} MiB, and {} were said",
                most >> 20,
                allowed >> 20
            );
        }
    }
}
