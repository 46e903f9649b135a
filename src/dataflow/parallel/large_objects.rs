//! Large objects: pg_dump's own stream of them, under the same snapshot. Only pg_dump knows in which order and groups
//! its versions write them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::dataflow::pipeline::Undelivered;
use crate::error::{Code, Error, Result};
use crate::format::archive::{ArchiveError, BlockKind, BlockSink, Head, Input, read_block};
use crate::postgres::{Contents, Dump, DumpOrder, StallClock, WatchedPipe};

/// The running pg_dump, so that another thread can end it.
#[derive(Clone, Default)]
pub struct Running(Arc<Mutex<DumpState>>);

#[derive(Default)]
enum DumpState {
    #[default]
    NotYet,
    Runs(Arc<Dump>),
    /// No pg_dump may run any more.
    Ended,
}

impl Running {
    fn stage(&self) -> MutexGuard<'_, DumpState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it may run.
    fn begin(&self, dump: &Arc<Dump>) -> bool {
        let mut stage = self.stage();
        let may = matches!(*stage, DumpState::NotYet);
        if may {
            *stage = DumpState::Runs(Arc::clone(dump));
        }
        may
    }

    /// The pg_dump that runs, or has run, so that the caller can end it. After this none starts.
    pub fn end(&self) -> Option<Arc<Dump>> {
        match std::mem::replace(&mut *self.stage(), DumpState::Ended) {
            DumpState::Runs(dump) => Some(dump),
            DumpState::NotYet | DumpState::Ended => None,
        }
    }
}

/// Reads all blocks of large objects that the head lists, into the sink.
pub fn deliver(
    order: &DumpOrder<'_>,
    head: &Head,
    clock: &StallClock,
    running: &Running,
    sink: &mut dyn BlockSink,
) -> Result<(), Undelivered> {
    let runtime = tokio::runtime::Handle::current();
    let mut dump = runtime.block_on(Dump::start(&DumpOrder {
        contents: Contents::LargeObjects,
        ..*order
    }))?;
    let output = dump.take_stdout()?;
    let dump = Arc::new(dump);
    if !running.begin(&dump) {
        return Err(ArchiveError::Stopped.into());
    }
    let mut input = Input::new(WatchedPipe::new(output, clock.clone()));
    let read = read(&mut input, head, sink);
    drop(input);
    // pg_dump's own error says more than the end of its stream.
    clock.begin();
    let ended = runtime.block_on(dump.wait());
    clock.end();
    match (read, ended) {
        (Ok(()), ended) => Ok(ended?),
        (Err(Undelivered::Archive(ArchiveError::Stopped)), _) => Err(ArchiveError::Stopped.into()),
        (Err(_), Err(told)) => Err(told.into()),
        (Err(seen), Ok(())) => Err(seen),
    }
}

fn read(
    input: &mut Input<WatchedPipe<std::fs::File>>,
    head: &Head,
    sink: &mut dyn BlockSink,
) -> Result<(), Undelivered> {
    let theirs = Head::read(input)?;
    let wanted: Vec<usize> = blocks(head).collect();
    let same =
        theirs.data.len() == wanted.len()
            && theirs.data.iter().zip(&wanted).all(|(theirs, ours)| {
                theirs.block_kind() == BlockKind::LargeObjects && theirs.tag == head.data[*ours].tag
            });
    if !same {
        let text = format!(
            "pg_dump wrote {} groups of large objects, but its table of contents has {}",
            theirs.data.len(),
            wanted.len()
        );
        return Err(Error::new(Code::PgDumpErr, text).into());
    }
    for (index, ours) in wanted.into_iter().enumerate() {
        read_block(input, &theirs, index, &mut Renumbered { block: ours, sink })?;
    }
    if !input.available()?.is_empty() {
        return Err(Error::new(Code::PgDumpErr, "pg_dump wrote other data besides the large objects").into());
    }
    Ok(())
}

pub fn blocks(head: &Head) -> impl Iterator<Item = usize> + '_ {
    let entries = head.data.iter().enumerate();
    entries
        .filter(|(_, entry)| entry.block_kind() == BlockKind::LargeObjects)
        .map(|(block, _)| block)
}

/// Converts a block's number in one archive to that in the other.
struct Renumbered<'a> {
    block: usize,
    sink: &'a mut dyn BlockSink,
}

impl BlockSink for Renumbered<'_> {
    fn begin(&mut self, _: usize) -> Result<(), ArchiveError> {
        self.sink.begin(self.block)
    }

    fn begin_object(&mut self, oid: i64) -> Result<(), ArchiveError> {
        self.sink.begin_object(oid)
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.sink.data(bytes)
    }

    fn end_object(&mut self) -> Result<(), ArchiveError> {
        self.sink.end_object()
    }

    fn end(&mut self, at: u64) -> Result<(), ArchiveError> {
        self.sink.end(at)
    }
}
