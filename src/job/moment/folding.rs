//! The changes of the wanted tables, read once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Code, Error, Result};
use crate::format::Lsn;
use crate::format::archive::{BlockContent, Loading};
use crate::format::changes::Selection;
use crate::format::fold::{Base, Broken, Changed, Fold, Horizon, Memory};
use crate::repository::stored_archive::{Origin, StoredArchive};
use crate::repository::stored_changes::StoredChanges;
use crate::run::private_folder::PrivateFolder;
use crate::run::threads::apart;

use super::Choice;

/// If nothing says how much memory there is.
const USUAL: u64 = 512 << 20;
const LEAST: u64 = 64 << 20;

/// The memory for changed rows: half of what the process may use. The rest of them is in an unlinked file below
/// `temp`.
pub(crate) fn memory(available: Option<u64>, temp: &Path) -> Arc<Memory> {
    let budget = available.map_or(USUAL, |available| available / 2).max(LEAST);
    let temp = temp.to_owned();
    Arc::new(Memory::new(budget, move || {
        let folder = PrivateFolder::create(&temp).map_err(io::Error::other)?;
        // The folder and the name are gone at once; the file is there until it is closed.
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(folder.path().join("rows"))
    }))
}

/// Which transactions are applied.
pub(crate) enum Until<'a> {
    /// Those whose commit begins before this position. `None`: all.
    Cut(Option<Lsn>),
    /// Those that this snapshot sees.
    SeenBy(&'a Horizon),
}

/// What became of the wanted tables.
pub(crate) struct Folded {
    pub tables: BTreeMap<u32, Changed>,
    /// The tables that were changed at all.
    pub described: BTreeSet<u32>,
    pub changes: u64,
}

/// Reads the changes of these tables, up to the cut. Frames that name none of them are not read.
pub(crate) async fn fold(
    increments: &[StoredChanges],
    bases: BTreeMap<u32, Base>,
    until: &Until<'_>,
    memory: &Arc<Memory>,
) -> Result<Folded> {
    let relids: BTreeSet<u32> = bases.keys().copied().collect();
    let cut = match until {
        Until::Cut(cut) => *cut,
        Until::SeenBy(_) => None,
    };
    let mut fold = Fold::new(bases, cut, Arc::clone(memory));
    if let Until::SeenBy(snapshot) = until {
        fold = fold.seen_by((*snapshot).clone());
    }
    for increment in increments {
        if relids.is_empty() || cut.is_some_and(|cut| increment.head.from >= cut) {
            break;
        }
        let selection = Selection {
            relids: Some(relids.clone()),
            ..Selection::default()
        };
        let mut reading = increment.read(selection)?;
        let key = increment.key.clone();
        let taken = apart("fold", move || {
            while let Some(item) = reading.next()? {
                let more = fold.take(&item).map_err(|error| {
                    let error = Error::from(error);
                    let what = format!("{key}: {}", error.message());
                    Error::new(error.code(), what)
                        .hint("`pgstow verify --chain` says which backups do not fit together")
                })?;
                if !more {
                    break;
                }
            }
            Ok::<_, Error>(fold)
        });
        fold = taken.await??;
    }
    let (changes, described) = (fold.changes(), fold.described().collect());
    Ok(Folded {
        tables: fold.finish(),
        described,
        changes,
    })
}

/// What the changes are applied to, for the tables of these blocks.
pub(crate) fn bases(archive: &StoredArchive, choice: &Choice, blocks: &[usize]) -> Result<BTreeMap<u32, Base>> {
    let statements = archive.head.copy_statements()?;
    let mut bases = BTreeMap::new();
    for &index in blocks {
        let oid = archive.head.data[index].oid;
        let Some(table) = choice.tables.get(&oid).filter(|table| table.follows) else {
            continue;
        };
        let has_rows = !matches!(archive.origins.get(index), Some(Origin::Nothing));
        let columns = has_rows.then(|| Loading::parse(&statements[index]).map(|loading| loading.column_names()));
        bases.insert(oid, table.base(columns.flatten()));
    }
    Ok(bases)
}

/// Joins the changes with the blocks of the archive. Returns the tables whose changes could not be followed to the
/// end, with the reason.
pub(crate) fn apply(archive: &mut StoredArchive, folded: &Folded, blocks: &[usize]) -> Result<Vec<(usize, Broken)>> {
    let mut broken = Vec::new();
    for &index in blocks {
        if !matches!(archive.promises[index].content, BlockContent::Table { .. }) {
            continue;
        }
        let Some(changed) = folded.tables.get(&archive.head.data[index].oid) else {
            continue;
        };
        broken.extend(changed.broken.clone().map(|broken| (index, broken)));
        if changed.net.is_untouched() {
            continue;
        }
        archive.changes.insert(index, Arc::clone(&changed.net));
        if archive.rows(index).is_none() {
            let what = format!(
                "{}: more rows of {} were removed than it has",
                archive.key,
                archive.name(index)
            );
            return Err(Error::new(Code::Integrity, what));
        }
    }
    Ok(broken)
}
