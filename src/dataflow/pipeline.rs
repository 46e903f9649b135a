//! The data path from pg_dump's pipe to the stores, in one pass and bounded memory:
//!
//! ```text
//! pipe → reader (rows, digest per table) → pieces → compression, all cores → assembly (framing,
//! block positions, digest) → fan-out → one upload per store
//! ```
//!
//! The uploads that come out are open: only the caller, who also knows how pg_dump ended, may
//! complete them. Whatever fails here, every upload has been aborted when the error is returned.

mod assembly;
mod fanout;
mod level;
mod pieces;
mod pump;
mod ranges;
mod spare;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use assembly::BlockPlace;
pub use fanout::{COPYS_PATIENCE, Copy, within};

use crate::dataflow::compress::Codec;
use crate::dataflow::way::Way;
use crate::error::{Error, Result};
use crate::format::archive::{ArchiveError, BlockDigest, BlockSink, Head, SealedRange};
use crate::format::script::Contents;
use crate::format::script::Refused;
use crate::run::progress::Observer;
use crate::run::threads;
use crate::store::{Expected, Upload};

/// What flows in.
pub enum Inflow {
    /// `pg_dump --format=custom --compress=0`.
    Archive(Box<dyn Read + Send>),
    /// `pg_dump --format=plain`.
    Sql(Box<dyn Read + Send>),
    /// An archive's head, and blocks that somebody else brings.
    Blocks { head: Head, source: Box<dyn BlockSource> },
}

/// Brings what the head promises: every block, in its order, as pg_dump would have written it.
pub trait BlockSource: Send {
    fn deliver(
        &mut self,
        head: &Head,
        observer: &dyn Observer,
        sink: &mut dyn BlockSink,
    ) -> Result<Delivered, Undelivered>;
}

/// What a source knows of the blocks that it has brought.
pub struct Delivered {
    /// As much as pg_dump would have written, but for the frame of each row.
    pub bytes: u64,
    /// By block: the rows that the server says it sent.
    pub rows: Vec<Option<u64>>,
    /// By block: who read it.
    pub ways: Vec<Way>,
}

/// Why a source gave up: what it read is not right, or cannot be read.
pub enum Undelivered {
    Archive(ArchiveError),
    Failed(Error),
}

impl From<ArchiveError> for Undelivered {
    fn from(error: ArchiveError) -> Self {
        Undelivered::Archive(error)
    }
}

impl From<Error> for Undelivered {
    fn from(error: Error) -> Self {
        Undelivered::Failed(error)
    }
}

/// [`Flow::range`] of a backup: worth a pg_restore's start, and small beside what one job loads.
pub const RANGE: usize = 64 << 20;

pub struct Flow {
    pub input: Inflow,
    pub codec: Codec,
    pub threads: usize,
    /// About how much of a large table's text is in each of the ranges that can be loaded apart.
    pub range: usize,
    pub md5: bool,
    pub observer: Arc<dyn Observer>,
}

/// What is known when every byte has passed.
pub struct Passed {
    /// The archive's head and blocks; `None` for plain SQL.
    pub archive: Option<Archive>,
    /// What plain SQL holds, or why that could not be counted; `None` for an archive.
    pub script: Option<std::result::Result<Contents, Refused>>,
    /// What every upload must hold.
    pub expected: Expected,
    pub md5: Option<[u8; 16]>,
    /// Bytes that came in.
    pub bytes_read: u64,
    /// Bytes of content by the level at which they were compressed.
    pub levels: BTreeMap<i32, u64>,
    /// The uploads in the order in which they were given; the first, the primary's, is open.
    pub copies: Vec<Copy>,
}

pub struct Archive {
    pub head: Head,
    /// The head with the offsets filled in: `<database>.toc`.
    pub toc: Vec<u8>,
    pub blocks: Vec<Block>,
}

/// One block: where it lies, and what it holds.
pub struct Block {
    pub place: BlockPlace,
    pub digest: BlockDigest,
    pub way: Way,
    /// Of a large table that can be loaded in parts: what its block is made of.
    pub ranges: Vec<SealedRange>,
}

/// Why nothing came out. The caller weighs a source failure against how pg_dump ended.
pub enum Failure {
    Source(Error),
    Store(Error),
    Stopped,
}

/// Runs the whole path until the input ends. The first upload is the primary: the run fails with
/// it, while a copy may fail alone. `stop` makes it give up at once.
pub async fn run(flow: Flow, uploads: Vec<Box<dyn Upload>>, stop: CancellationToken) -> Result<Passed, Failure> {
    let observer = Arc::clone(&flow.observer);
    let (outlets, fanout) = fanout::open(uploads, &observer, &stop);
    let (answer, pumped) = tokio::sync::oneshot::channel();
    let thread = threads::builder("archive").spawn(move || {
        // The receiver is gone only when the whole run is.
        let _ = answer.send(pump::pump(flow, outlets));
    });
    let pumped = match thread {
        Ok(_) => pumped
            .await
            .unwrap_or_else(|_| Err(pump::Ended::Failed(Error::internal("the archive thread died")))),
        Err(error) => Err(pump::Ended::Failed(threads::refused(error))),
    };
    let copies = fanout.collect().await;
    match (pumped, copies) {
        (Ok(pumped), Ok(copies)) => Ok(pumped.with_copies(copies)),
        (Ok(_), Err(failure)) => Err(failure),
        // The store that gave up is the reason, not the reader that noticed it.
        (Err(pump::Ended::OutletsClosed), Err(failure)) => Err(failure),
        (Err(ended), copies) => {
            let mut error = match ended {
                pump::Ended::Failed(error) => error,
                pump::Ended::OutletsClosed => Error::internal("the stores stopped taking bytes without a reason"),
            };
            if let Ok(copies) = copies {
                for second in fanout::abort(copies).await {
                    error = error.also(second);
                }
            }
            Err(Failure::Source(error))
        }
    }
}
