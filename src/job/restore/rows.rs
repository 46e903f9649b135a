//! The rows of a table, as a session of ours loads them and reads them again. A sum over the text does not depend on
//! the order of rows and columns, so that a table can be compared with the backup.

mod copying;
mod filling;
mod session;

use std::sync::Arc;

use super::Job;
use super::plan::Plan;
use crate::error::{Code, Error, Result};
use crate::format::archive::{ArchiveError, BlockContent, BlockSink, Item, Loading};
use crate::outside::aws::BYTES_CHANGE;
use crate::repository::stored_archive::StoredArchive;
use crate::run::threads::apart;
use crate::store::Store;
use crate::store::reading::our_error;

pub(super) use copying::{RowDigests, count, read_again, read_between};
pub(super) use filling::{Unloaded, load, sum};
pub(super) use session::{encoding, execute, refused, roll_back, settle};

/// The backup whose rows are loaded and compared.
#[derive(Clone, Copy)]
pub(super) struct BackupRows<'a> {
    pub store: &'a Arc<dyn Store>,
    pub stored: &'a Arc<StoredArchive>,
    pub items: &'a [Item],
    pub plan: &'a Plan,
}

/// One COPY of a block, and how its rows are read again.
#[derive(Debug)]
pub(super) struct BlockCopy {
    pub index: usize,
    pub statement: Vec<u8>,
    /// The table to read the rows from. Several blocks may be loaded through one root.
    pub place: Vec<u8>,
    /// The columns of the rows, quoted as in the archive.
    pub columns: Vec<u8>,
    pub names: Vec<Vec<u8>>,
}

/// The order in which one session loads them: first an extension's own tables; tables that look at others after
/// these, and last of all those that would silently compute other values.
pub(super) fn in_turn(mut copies: Vec<BlockCopy>, backup: BackupRows<'_>) -> Vec<BlockCopy> {
    let order = &backup.plan.order;
    copies.sort_by_key(|copy| {
        let id = backup.stored.head.data[copy.index].dump_id;
        let first = !order.of_extensions.contains(&id);
        (
            order.computed.contains(&id),
            order.late.contains(&id),
            first,
            copy.index,
        )
    });
    copies
}

/// The copies of the tables that are loaded, in the archive's order.
pub(super) fn copies(backup: BackupRows<'_>) -> Result<Vec<BlockCopy>> {
    let stored = backup.stored;
    let statements = stored.head.copy_statements()?;
    let mut blocks: Vec<usize> = backup.plan.blocks().collect();
    blocks.retain(|index| matches!(stored.promises[*index].content, BlockContent::Table { .. }));
    blocks.sort_unstable();
    let copy = |index: usize| {
        // The statement is written anew from its parts: nothing else that the archive contains there is run.
        let loading = Loading::parse(&statements[index]).ok_or_else(|| {
            Error::new(
                Code::Integrity,
                format!(
                    "{}: its COPY statement is not one that pg_dump writes",
                    stored.name(index)
                ),
            )
        })?;
        let only: &[u8] = if loading.is_through_another(&stored.head.data[index]) {
            b""
        } else {
            b"ONLY "
        };
        Ok(BlockCopy {
            index,
            statement: loading.statement(),
            place: [only, loading.table].concat(),
            columns: loading.columns.to_vec(),
            names: loading.column_names(),
        })
    };
    blocks.into_iter().map(copy).collect()
}

/// A table by its quoted name. It does not depend on how the server reads a backslash, which is a setting of the
/// database.
pub(super) fn regclass(table: &[u8]) -> Vec<u8> {
    let escaped = table.iter().flat_map(|byte| match byte {
        b'\'' | b'\\' => vec![*byte; 2],
        byte => vec![*byte],
    });
    [b"E'", &*escaped.collect::<Vec<u8>>(), b"'::pg_catalog.regclass"].concat()
}

/// Reads a block into a sink, in a thread of its own, and compares it with the manifest; `finish` returns the result.
pub(super) async fn read_into<S, T>(
    job: &Job<'_>,
    backup: BackupRows<'_>,
    index: usize,
    sink: S,
    finish: fn(&mut S) -> std::result::Result<T, ArchiveError>,
) -> Result<std::result::Result<T, ArchiveError>>
where
    S: BlockSink + Send + 'static,
    T: Send + 'static,
{
    let stored = Arc::clone(backup.stored);
    let observer = Arc::clone(job.observer);
    let store = Arc::clone(backup.store);
    let read = apart("read", move || {
        let mut sink = sink;
        stored.read_block(&store, index, &mut sink, &|count| observer.bytes_read(count))?;
        finish(&mut sink)
    });
    read.await
}

/// A bit that changed on the way says nothing about the stored bytes, which were right when they were read again.
pub(super) fn changed_on_the_way(told: &Error) -> Error {
    let what = format!("{}; it was right when it was read again", told.message());
    Error::new(Code::Store, what).hint(BYTES_CHANGE)
}

pub(in crate::job) fn unread(stored: &StoredArchive, index: usize, error: ArchiveError) -> Error {
    match error {
        ArchiveError::Io(error) => match our_error(error) {
            Ok(ours) => ours,
            Err(error) => Error::new(Code::Store, format!("cannot read {}", stored.key_of(index))).source(error),
        },
        other => Error::new(
            Code::Integrity,
            format!("{}: {}: {other}", stored.key_of(index), stored.name(index)),
        ),
    }
}
