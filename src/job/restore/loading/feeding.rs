//! The bytes of a load on their way into pg_restore: from the store, checked, as an uncompressed archive.

use std::fs::File;
use std::io::{self, BufWriter, Read};
use std::sync::Arc;

use futures::stream::StreamExt;

use crate::error::{Code, Error, Result};
use crate::format::archive::{
    ArchiveError, BlockCheck, Blocks, Changing, Input, PartCheck, SealedRange, Unpack, Writer, read_part,
};
use crate::job::restore::load::{Load, Part};
use crate::job::restore::plan::Plan;
use crate::repository::stored_archive::StoredArchive;
use crate::run::progress::Observer;
use crate::run::threads::apart;
use crate::store::Store;
use crate::store::reading::our_error;

/// For the small frames around the content. The content itself bypasses the buffer.
const BUFFER: usize = 64 << 10;

/// One load, with what reading it needs.
#[derive(Clone)]
pub(super) struct Feed {
    store: Arc<dyn Store>,
    archive: Arc<StoredArchive>,
    load: Load,
    observer: Arc<dyn Observer>,
}

/// Reads everything that a plan will load and compares it with the manifest, before anything is removed.
pub(in crate::job::restore) async fn check(
    store: &Arc<dyn Store>,
    archive: &Arc<StoredArchive>,
    plan: &Plan,
    jobs: usize,
    observer: &Arc<dyn Observer>,
) -> Result<()> {
    observer.estimate(plan.stored_bytes());
    let one = |load: &Load| Feed::of(store, archive, load, observer).swallow();
    let mut reads = futures::stream::iter(plan.loads.iter().map(one)).buffer_unordered(jobs.max(1));
    while let Some(read) = reads.next().await {
        read?;
    }
    Ok(())
}

impl Feed {
    pub fn of(store: &Arc<dyn Store>, archive: &Arc<StoredArchive>, load: &Load, observer: &Arc<dyn Observer>) -> Self {
        Self {
            store: Arc::clone(store),
            archive: Arc::clone(archive),
            load: load.clone(),
            observer: Arc::clone(observer),
        }
    }

    /// Reads the load without writing it, and compares it with the manifest.
    pub async fn swallow(self) -> Result<()> {
        let read = apart("read", move || {
            let nowhere = File::options().write(true).open("/dev/null")?;
            self.write(nowhere)
        });
        read.await?
            .map_err(|error| why(error).unwrap_or_else(|| Error::internal("cannot write to /dev/null")))
    }

    /// Writes the head and the load's blocks as `pg_dump -Z0` would. The last bytes of a block are written only after
    /// its digest was found right: if its input ends before, pg_restore loads none of the block's rows.
    pub fn write(&self, stdin: File) -> Result<(), ArchiveError> {
        let Self {
            store,
            archive,
            load,
            observer,
        } = self;
        let writer = Writer::new(&archive.head, BufWriter::with_capacity(BUFFER, stdin))?;
        if let (Some(part), [block]) = (&load.part, &load.blocks[..]) {
            return self.write_part(*block, part, writer);
        }
        let changing = Changing::new(&archive.changes, writer);
        let mut sink = Unpack::new(archive.head.compression, BlockCheck::new(&archive.promises, changing));
        for (range, blocks) in load.stretches(archive) {
            if let [index] = blocks[..]
                && !archive.is_own(index)
            {
                let name = archive.name(index);
                observer.table(&name);
                let writer = sink.inner().inner().inner();
                archive
                    .read_block(store, index, writer, &|count| observer.bytes_read(count))
                    .map_err(|error| of_block(&archive.key, &name, error))?;
                continue;
            }
            let start = range.start;
            let counted = Counted {
                inner: archive.stored(store).read(range),
                observer: &**observer,
            };
            let mut reader = Blocks::new(counted, start);
            for index in blocks {
                let name = archive.name(index);
                observer.table(&name);
                reader
                    .read(&archive.head, index, &archive.places[index].range(), &mut sink)
                    .map_err(|error| of_block(archive.key_of(index), &name, error))?;
            }
        }
        sink.inner().inner().inner().flush()
    }

    /// The same for some of one table's rows. Their bytes are checked as they are stored, range by range: the last bytes
    /// of a range are written only after it was found right.
    fn write_part(&self, index: usize, part: &Part, writer: Writer<'_, BufWriter<File>>) -> Result<(), ArchiveError> {
        let Self {
            store,
            archive,
            observer,
            ..
        } = self;
        let ranges = &archive.ranges[index];
        let ends_itself = part.ranges.end == ranges.len();
        let ranges = &ranges[part.ranges.clone()];
        let Some(start) = ranges.first().map(|range| range.offset) else {
            return Ok(());
        };
        let sum = |of: fn(&SealedRange) -> u64| ranges.iter().map(of).sum();
        let taken = PartCheck::new(sum(|range| range.rows), sum(|range| range.bytes), ends_itself, writer);
        let mut sink = Unpack::new(archive.head.compression, taken);
        let name = archive.name(index);
        observer.table(&name);
        let counted = Counted {
            inner: archive
                .stored(store)
                .read_sealed(ranges, format!("{}: {name}", archive.key_of(index))),
            observer: &**observer,
        };
        read_part(&mut Input::at(counted, start), &archive.head, index, &mut sink)
            .map_err(|error| of_block(archive.key_of(index), &name, error))?;
        sink.inner().inner().flush()
    }
}

fn of_block(key: &str, name: &str, error: ArchiveError) -> ArchiveError {
    match error {
        ArchiveError::Io(_) | ArchiveError::Stopped => error,
        other => ArchiveError::Content(format!("{key}: {name}: {other}")),
    }
}

/// The error that a failed feeding stands for. `None` if pg_restore closed its input.
pub(super) fn why(error: ArchiveError) -> Option<Error> {
    let ArchiveError::Io(error) = error else {
        return Some(Error::new(Code::Integrity, error.to_string()));
    };
    match our_error(error) {
        Ok(ours) => Some(ours),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
        Err(error) => Some(Error::new(Code::RestoreErr, "feeding pg_restore failed").source(error)),
    }
}

/// Reports to the observer the bytes that are read from the store.
struct Counted<'a, R> {
    inner: R,
    observer: &'a dyn Observer,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.observer.bytes_read(count as u64);
        Ok(count)
    }
}
