//! The pipeline alone, from an uncompressed archive on disk into nothing: MB/s, ratio and CPU by
//! codec and threads. `cargo bench --bench pipeline -- ARCHIVE` (made by `pg_dump -Fc -Z0`).

use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use pgstow::dataflow::compress::Codec;
use pgstow::dataflow::pipeline::{self, Failure, Flow, Inflow};
use pgstow::error::Result;
use pgstow::run::progress::Silent;
use pgstow::store::{Expected, Mark, Stored, Upload};

struct Nowhere;

#[async_trait]
impl Upload for Nowhere {
    fn mark(&self) -> Mark {
        Mark(String::new())
    }

    async fn write(&mut self, _: Bytes) -> Result<()> {
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

#[allow(clippy::print_stdout)]
fn main() {
    let Some(path) = std::env::args().skip(1).find(|argument| !argument.starts_with("--")) else {
        println!("give an archive made by pg_dump -Fc -Z0");
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    println!("codec      threads   seconds   MB/s   CPU s   bytes out");
    for codec in [
        Codec::None,
        Codec::Zstd(1),
        Codec::Zstd(2),
        Codec::Zstd(3),
        Codec::Zstd(4),
        Codec::Zstd(6),
        Codec::Gzip(1),
        Codec::Gzip(4),
        Codec::Gzip(6),
    ] {
        for threads in [1, 2] {
            let flow = Flow {
                input: Inflow::Archive(Box::new(File::open(&path).expect("the archive opens"))),
                codec,
                threads,
                range: pipeline::RANGE,
                stages: Vec::new(),
                earlier: pipeline::EarlierBlocks::default(),
                md5: false,
                observer: Arc::new(Silent),
            };
            let (began, cpu) = (Instant::now(), cpu_seconds());
            let passed = runtime.block_on(pipeline::run(flow, vec![Box::new(Nowhere)], Default::default()));
            let passed = match passed {
                Ok(passed) => passed,
                Err(Failure::Source(error) | Failure::Store(error)) => return println!("{path}: {error}"),
                Err(Failure::Stopped) => return,
            };
            let seconds = began.elapsed().as_secs_f64();
            println!(
                "{:<6}{:>3} {threads:>9} {seconds:>9.2} {:>6.0} {:>7.2} {:>11}",
                codec.name(),
                codec.level(),
                passed.bytes_read as f64 / 1e6 / seconds,
                cpu_seconds() - cpu,
                passed.expected.bytes,
            );
        }
    }
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks: u64 = stat
        .rsplit(") ")
        .next()
        .map(|rest| {
            rest.split(' ')
                .skip(11)
                .take(2)
                .filter_map(|field| field.parse::<u64>().ok())
                .sum()
        })
        .unwrap_or(0);
    ticks as f64 / 100.0
}
