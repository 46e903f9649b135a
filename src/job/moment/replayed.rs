//! Tables brought forward without a server: each as a sum of its rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bases::{Choice, Rows};
use super::composed::Sources;
use super::folding::Folded;
use crate::error::{Code, Error, Result};
use crate::format::archive::{ArchiveError, BlockDigest, BlockSink, Changing, Loading, empty_block};
use crate::format::fold::{Broken, Changed};
use crate::format::script::{RowSum, Sum};
use crate::repository::stored_archive::{Origin, StoredArchive};
use crate::run::threads::apart;
use crate::store::Store;
use crate::store::reading::our_error;

pub(crate) struct Replayed {
    store: Arc<dyn Store>,
    choice: Choice,
    sources: Arc<Sources>,
    tables: BTreeMap<u32, Changed>,
    pub changes: u64,
}

/// What is known of a table.
pub(crate) enum Known<'a> {
    Exact,
    /// It is not exact by the increments' own account, or its changes could not be followed.
    NotExact(String),
    Broken(&'a Broken),
    /// No increment says anything of it.
    Unknown,
}

/// The columns of a block's rows.
pub(super) fn columns(archive: &StoredArchive, index: usize) -> Result<Option<Vec<Vec<u8>>>> {
    let statements = archive.head.copy_statements()?;
    let loading = statements.get(index).and_then(|statement| Loading::parse(statement));
    Ok(loading.map(|loading| loading.column_names()))
}

impl Replayed {
    pub(super) fn of(store: &Arc<dyn Store>, choice: Choice, sources: &Arc<Sources>, folded: Folded) -> Self {
        Self {
            store: Arc::clone(store),
            choice,
            sources: Arc::clone(sources),
            tables: folded.tables,
            changes: folded.changes,
        }
    }

    /// Whether the changes of a table could not be followed to the end.
    pub(super) fn is_broken(&self, oid: u32) -> bool {
        self.tables.get(&oid).is_some_and(|changed| changed.broken.is_some())
    }

    /// Whether none of the rows is left that the table had at first.
    pub(super) fn is_emptied(&self, oid: u32) -> bool {
        self.tables.get(&oid).is_some_and(|changed| changed.net.is_emptied())
    }

    pub fn knows(&self, oid: u32) -> Known<'_> {
        let Some(table) = self.choice.tables.get(&oid) else {
            return Known::Unknown;
        };
        if let Some(not_exact) = &table.not_exact {
            return Known::NotExact(not_exact.why.clone());
        }
        if !table.follows && table.rows == Rows::Full {
            return Known::NotExact("its changes are not in the increments".into());
        }
        match self.tables.get(&oid).and_then(|changed| changed.broken.as_ref()) {
            Some(broken) => Known::Broken(broken),
            None => Known::Exact,
        }
    }

    /// The digest of its rows if no change touched them since the full.
    pub fn untouched(&self, oid: u32) -> Option<BlockDigest> {
        if self.tables.contains_key(&oid) {
            return None;
        }
        let rows = self.choice.tables.get(&oid)?.rows;
        match self.sources.block(oid, rows)? {
            Origin::Block(archive, index) => Some(archive.promises[index].clone()),
            Origin::Nothing => None,
        }
    }

    fn columns(&self, oid: u32, origin: &Origin) -> Result<Vec<Vec<u8>>> {
        Ok(match (origin, self.tables.get(&oid)) {
            (_, Some(changed)) => changed.columns.clone(),
            (Origin::Block(archive, index), None) => columns(archive, *index)?.unwrap_or_default(),
            (Origin::Nothing, None) => Vec::new(),
        })
    }

    /// Whether its rows have other columns than those of this block: the stream shows that a column was added, dropped
    /// or renamed only with the next row.
    pub fn differs_in_columns(&self, oid: u32, archive: &StoredArchive, index: usize) -> Result<bool> {
        let Some(table) = self.choice.tables.get(&oid) else {
            return Ok(false);
        };
        let Some(origin) = self.sources.block(oid, table.rows) else {
            return Ok(false);
        };
        let (mut ours, mut theirs) = (
            self.columns(oid, &origin)?,
            columns(archive, index)?.unwrap_or_default(),
        );
        ours.sort_unstable();
        theirs.sort_unstable();
        // Without a row there is no description.
        Ok(!ours.is_empty() && ours != theirs)
    }

    /// The sum of its rows. `None`: no backup has its rows.
    pub async fn sum(&self, oid: u32, read: impl Fn(u64) + Send + 'static) -> Result<Option<(u64, Sum)>> {
        let Some(table) = self.choice.tables.get(&oid) else {
            return Ok(None);
        };
        let Some(origin) = self.sources.block(oid, table.rows) else {
            return Ok(None);
        };
        let columns = self.columns(oid, &origin)?;
        let changed = self.tables.get(&oid);
        let net = changed.map(|changed| Arc::clone(&changed.net));
        let net = net.filter(|net| !net.is_untouched());
        let store = Arc::clone(&self.store);
        let name = format!("{}.{}", table.schema, table.name);
        let summed = apart("sum", move || {
            let mut sink = Summing::of(&columns);
            match origin {
                Origin::Block(archive, index) => {
                    let changes = net.map(|net| (index, net)).into_iter().collect();
                    let mut sink = Changing::new(&changes, &mut sink);
                    archive.read_block(&store, index, &mut sink, &read)?;
                }
                Origin::Nothing => {
                    let changes = net.map(|net| (0, net)).into_iter().collect();
                    empty_block(0, &mut Changing::new(&changes, &mut sink))?;
                }
            }
            Ok(sink.finish())
        });
        summed.await?.map(Some).map_err(|error| failed(&name, error))
    }
}

/// The sum of the rows of a block as it is stored.
pub(crate) async fn stored_sum(
    store: &Arc<dyn Store>,
    archive: &Arc<StoredArchive>,
    index: usize,
    read: impl Fn(u64) + Send + 'static,
) -> Result<(u64, Sum)> {
    let columns = columns(archive, index)?.unwrap_or_default();
    let (store, archive) = (Arc::clone(store), Arc::clone(archive));
    let name = archive.name(index);
    let summed = apart("sum", move || {
        let mut sink = Summing::of(&columns);
        archive.read_block(&store, index, &mut sink, &read)?;
        Ok(sink.finish())
    });
    summed.await?.map_err(|error| failed(&name, error))
}

fn failed(name: &str, error: ArchiveError) -> Error {
    match error {
        ArchiveError::Io(error) => match our_error(error) {
            Ok(ours) => ours,
            Err(error) => Error::new(Code::Store, format!("the rows of {name} cannot be read")).source(error),
        },
        other => Error::new(Code::Integrity, format!("{name}: {other}")),
    }
}

/// Sums rows in flat memory.
struct Summing {
    sum: RowSum,
    rows: u64,
}

impl Summing {
    fn of(columns: &[Vec<u8>]) -> Self {
        Self {
            sum: RowSum::of(columns),
            rows: 0,
        }
    }

    fn finish(self) -> (u64, Sum) {
        // The line that ends the rows, and two empty ones, were counted too.
        (self.rows.saturating_sub(3), self.sum.finish())
    }
}

impl BlockSink for Summing {
    fn begin(&mut self, _index: usize) -> std::result::Result<(), ArchiveError> {
        Ok(())
    }
    fn begin_object(&mut self, _oid: i64) -> std::result::Result<(), ArchiveError> {
        Err(ArchiveError::Content("it holds large objects, not rows".into()))
    }
    fn data(&mut self, bytes: &[u8]) -> std::result::Result<(), ArchiveError> {
        self.rows += memchr::memchr_iter(b'\n', bytes).count() as u64;
        self.sum.update(bytes);
        Ok(())
    }
    fn end_object(&mut self) -> std::result::Result<(), ArchiveError> {
        Ok(())
    }
    fn end(&mut self, _at: u64) -> std::result::Result<(), ArchiveError> {
        Ok(())
    }
}
