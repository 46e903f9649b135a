//! The input of the pipeline, and the rules by which it passes.

use std::io::Read;
use std::sync::Arc;

use super::earlier::EarlierBlocks;
use super::stage::Stage;
use crate::dataflow::compress::Codec;
use crate::dataflow::read_by::ReadBy;
use crate::error::{Error, Result};
use crate::format::archive::{ArchiveError, BlockSink, Head};
use crate::run::progress::Observer;

pub enum Inflow {
    /// `pg_dump --format=custom --compress=0`.
    Archive(Box<dyn Read + Send>),
    /// `pg_dump --format=plain`.
    Sql(Box<dyn Read + Send>),
    /// An archive's head, and blocks from another source than pg_dump's pipe.
    Blocks { head: Head, source: Box<dyn BlockSource> },
}

/// Delivers what the head lists: every block, in its order, as pg_dump would have written it.
pub trait BlockSource: Send {
    fn deliver(
        &mut self,
        head: &Head,
        observer: &dyn Observer,
        sink: &mut dyn BlockSink,
    ) -> Result<Delivered, Undelivered>;
}

/// The source's facts about the blocks that it has delivered.
pub struct Delivered {
    /// The bytes that pg_dump would have written, without the frame of each row.
    pub bytes: u64,
    /// By block: the number of rows that the server says it sent.
    pub rows: Vec<Option<u64>>,
    /// By block: which program or session read it.
    pub read_by: Vec<ReadBy>,
}

/// Why a source ended early: its data is wrong, or cannot be read.
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

/// [`Flow::range`] of a backup: large enough to start a pg_restore for it, and small compared with what one job
/// loads.
pub const RANGE: usize = 64 << 20;

pub struct Flow {
    pub input: Inflow,
    pub codec: Codec,
    pub threads: usize,
    /// About how much of a large table's text is in each of the ranges that can be loaded separately.
    pub range: usize,
    /// The stages that change the archive's bytes on their way to the seal, in this order. Usually none.
    pub stages: Vec<Box<dyn Stage>>,
    /// Blocks that are not stored again if their text is the same. Usually none.
    pub earlier: EarlierBlocks,
    pub md5: bool,
    pub observer: Arc<dyn Observer>,
}
