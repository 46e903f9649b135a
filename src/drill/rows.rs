//! Whether every table holds the rows that the backup holds, and so the large objects.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::gather::{Gather, Gathered, Unordered};
use super::{Again, DrillReport, Proof, RESTORED, TableProof};
use crate::archive::{ArchiveError, BlockContent, BlockKind, Blocks, Unpack};
use crate::catalog::Located;
use crate::error::{Code, Error, Result};
use crate::store::reading::{Reading, our_error};
use crate::stored_archive::StoredArchive;
use crate::verify::Finding;

/// Every table and the large objects: first by the digest in the manifest's order; rows that come
/// in another order are looked at once more in the backup.
pub(super) async fn compare(
    located: &Located,
    stored: &Arc<StoredArchive>,
    again: &Again,
    excluded: &HashSet<i64>,
    report: &mut DrillReport,
) -> Result<()> {
    let mut tables: HashMap<(&str, &str), &Gathered> = HashMap::new();
    let mut objects: Vec<&Gathered> = Vec::new();
    for found in &again.found {
        let entry = &again.head.data[found.index];
        match entry.block_kind() {
            BlockKind::Table => {
                tables.insert((entry.namespace.as_deref().unwrap_or_default(), &entry.tag), found);
            }
            BlockKind::LargeObjects => objects.push(found),
        }
    }
    let differs = |table: String, what: String| Finding {
        file: RESTORED.to_owned(),
        table: Some(table),
        what,
    };
    let mut blocks_of_objects = Vec::new();
    for (index, entry) in stored.head.data.iter().enumerate() {
        let Some((schema, name)) = &stored.tables[index] else {
            blocks_of_objects.push(index);
            continue;
        };
        let promise = &stored.promises[index];
        let rows = match promise.content {
            BlockContent::Table { rows } => rows,
            BlockContent::LargeObjects { .. } => 0,
        };
        let found = tables.remove(&(entry.namespace.as_deref().unwrap_or_default(), entry.tag.as_str()));
        let result = match found {
            _ if excluded.contains(&entry.dump_id) => Proof::NotProved,
            None => {
                report.problems.push(differs(stored.name(index), "is not there".into()));
                Proof::Differs
            }
            Some(found) if found.digest == *promise => Proof::Equal,
            Some(found) if found.digest.content != promise.content => {
                let what = match found.digest.content {
                    BlockContent::Table { rows: there } => format!("has {there} rows, the backup {rows}"),
                    BlockContent::LargeObjects { .. } => "is no table".into(),
                };
                report.problems.push(differs(stored.name(index), what));
                Proof::Differs
            }
            Some(found) if found.unordered == unordered(located, stored, &[index]).await? => Proof::EqualInOtherOrder,
            Some(_) => {
                let what = "has as many rows as the backup, and other ones";
                report.problems.push(differs(stored.name(index), what.into()));
                Proof::Differs
            }
        };
        report.tables.push(TableProof {
            schema: schema.clone(),
            name: name.clone(),
            rows,
            result,
        });
    }
    for (schema, name) in tables.keys() {
        let what = "is there and not in the backup";
        report.problems.push(differs(format!("{schema}.{name}"), what.into()));
    }
    compare_objects(located, stored, &blocks_of_objects, &objects, report).await
}

/// Large objects may be grouped into blocks otherwise: all of them together are compared.
async fn compare_objects(
    located: &Located,
    stored: &Arc<StoredArchive>,
    blocks: &[usize],
    found: &[&Gathered],
    report: &mut DrillReport,
) -> Result<()> {
    let count = |content: &BlockContent| match content {
        BlockContent::LargeObjects { count } => *count,
        BlockContent::Table { .. } => 0,
    };
    report.large_objects = blocks.iter().map(|index| count(&stored.promises[*index].content)).sum();
    let same_blocks = blocks.len() == found.len()
        && blocks
            .iter()
            .zip(found)
            .all(|(index, found)| stored.promises[*index] == found.digest);
    if same_blocks {
        return Ok(());
    }
    let mut there = Unordered::default();
    for gathered in found {
        there.merge(gathered.unordered);
    }
    if there != unordered(located, stored, blocks).await? {
        let number: u64 = found.iter().map(|gathered| count(&gathered.digest.content)).sum();
        report.problems.push(Finding {
            file: RESTORED.to_owned(),
            table: Some("large objects".to_owned()),
            what: format!(
                "{number} are there, and not those {} of the backup",
                report.large_objects
            ),
        });
    }
    Ok(())
}

/// The same of the backup's own blocks, read once more.
async fn unordered(located: &Located, stored: &Arc<StoredArchive>, blocks: &[usize]) -> Result<Unordered> {
    let mut sum = Unordered::default();
    for &index in blocks {
        let place = stored.places[index].clone();
        let reading = Reading::start(Arc::clone(&located.store), stored.key.clone(), place.clone()).into_blocking();
        let archive = Arc::clone(stored);
        let gathered = tokio::task::spawn_blocking(move || {
            let mut sink = Unpack::new(archive.head.compression, Gather::new(&archive.head));
            Blocks::new(reading, place.start).read(&archive.head, index, &place, &mut sink)?;
            Ok(sink
                .inner()
                .found
                .pop()
                .map(|gathered| gathered.unordered)
                .unwrap_or_default())
        });
        let gathered = gathered
            .await
            .map_err(|error| Error::internal("the thread that reads the backup died").source(error))?;
        sum.merge(gathered.map_err(|error| match error {
            ArchiveError::Io(error) => match our_error(error) {
                Ok(ours) => ours,
                Err(error) => Error::new(Code::Store, format!("cannot read {}", stored.key)).source(error),
            },
            other => Error::new(
                Code::Integrity,
                format!("{}: {}: {other}", stored.key, stored.name(index)),
            ),
        })?);
    }
    Ok(sum)
}
