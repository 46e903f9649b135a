//! Whether every table and all large objects hold the same as in the backup.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::columns::{ColumnOrder, Layout, Path, Wanted, layouts};
use super::exclusion::DrillExclusion;
use super::gather::{Gather, Gathered, Unordered};
use super::{Again, DrillReport, ProofOutcome, RESTORED, TableProof};
use crate::error::Result;
use crate::format::archive::BlockContent;
use crate::job::restore::{LeftOut, unread};
use crate::repository::catalog::Located;
use crate::repository::stored_archive::StoredArchive;
use crate::repository::verification::Finding;
use crate::run::threads::apart;
use crate::units::count;

/// The blocks of tables that are compared together: one table, or all tables whose rows are loaded through one root.
/// Then the flag is set. Each group has the index of its first block.
type Groups = BTreeMap<(bool, usize), Vec<usize>>;

/// The backup's rows, and how to compare them.
pub(super) struct Ours {
    layouts: Vec<Option<Layout>>,
    pub wanted: Wanted,
    orders: Arc<Vec<ColumnOrder>>,
}

impl Ours {
    pub fn of(stored: &StoredArchive) -> Result<Ours> {
        let layouts = layouts(&stored.head)?;
        let wanted = Wanted::of(&layouts);
        Ok(Ours {
            orders: Arc::new(orders(&wanted, &layouts)),
            wanted,
            layouts,
        })
    }

    /// The blocks of tables, in groups, and the blocks of large objects.
    fn groups(&self) -> (Groups, Vec<usize>) {
        let mut blocks_of_objects = Vec::new();
        let mut groups = Groups::new();
        let mut roots: HashMap<&Path, usize> = HashMap::new();
        for (index, layout) in self.layouts.iter().enumerate() {
            let key = match layout {
                None => {
                    blocks_of_objects.push(index);
                    continue;
                }
                Some(Layout { root: Some(root), .. }) => (true, *roots.entry(root).or_insert(index)),
                Some(_) => (false, index),
            };
            groups.entry(key).or_default().push(index);
        }
        (groups, blocks_of_objects)
    }
}

/// The order of columns for every block; large objects have none.
pub(super) fn orders(wanted: &Wanted, layouts: &[Option<Layout>]) -> Vec<ColumnOrder> {
    let order = |layout: &Option<Layout>| {
        layout
            .as_ref()
            .map_or(ColumnOrder::AsTheyAre, |layout| wanted.order(layout))
    };
    layouts.iter().map(order).collect()
}

/// A backup, and the dump of what a restore made of it.
#[derive(Clone, Copy)]
pub(super) struct Pair<'a> {
    pub located: &'a Located,
    pub stored: &'a Arc<StoredArchive>,
    pub ours: &'a Ours,
    pub again: &'a Again,
    pub exclusion: &'a DrillExclusion<'a>,
}

/// Compares every table and the large objects: first by the digest in the manifest, which depends on the order. If rows
/// come in another order, pgstow reads them once more from the backup.
pub(super) async fn compare(pair: &Pair<'_>, report: &mut DrillReport) -> Result<()> {
    let Pair {
        located,
        stored,
        ours,
        again,
        exclusion,
    } = *pair;
    let mut theirs: HashMap<&Path, &Gathered> = HashMap::new();
    let mut objects: Vec<&Gathered> = Vec::new();
    for found in &again.found {
        match &again.layouts[found.index] {
            Some(layout) => drop(theirs.insert(&layout.table, found)),
            None => objects.push(found),
        }
    }
    let (groups, blocks_of_objects) = ours.groups();
    let mut comparison = Comparison {
        located,
        stored,
        ours,
        again,
        exclusion,
        theirs: &mut theirs,
        results: BTreeMap::new(),
        problems: Vec::new(),
        not_proved: Vec::new(),
    };
    let is_left_out = |index: &usize| exclusion.excluded().contains(&stored.head.data[*index].dump_id);
    for ((through_root, _), blocks) in &groups {
        if blocks.iter().any(is_left_out) {
            comparison.leave_out(blocks);
        } else if *through_root {
            comparison.compare_partitions(blocks).await?;
        } else {
            comparison.compare_table(blocks[0]).await?;
        }
    }
    let Comparison {
        results,
        problems,
        not_proved,
        ..
    } = comparison;
    report.problems.extend(problems);
    report.not_proved.extend(not_proved);
    report.tables.extend(proofs(stored, results));
    theirs
        .values()
        .for_each(|found| found_more(found, again, exclusion, report));
    compare_objects(pair, &blocks_of_objects, &objects, report).await
}

fn proofs(stored: &StoredArchive, results: BTreeMap<usize, ProofOutcome>) -> impl Iterator<Item = TableProof> {
    results.into_iter().filter_map(|(index, result)| {
        let (schema, name) = stored.tables[index].clone().unwrap_or_default();
        let rows = stored.rows(index)?;
        Some(TableProof {
            schema,
            name,
            rows,
            result,
        })
    })
}

/// A table that is not in the backup.
fn found_more(found: &Gathered, again: &Again, exclusion: &DrillExclusion<'_>, report: &mut DrillReport) {
    let entry = &again.head.data[found.index];
    let schema = entry.namespace.as_deref().unwrap_or_default();
    match exclusion.doubt_of_more(&entry.desc, schema, &entry.tag) {
        Some(why) => report.not_proved.push(LeftOut {
            what: entry.to_string(),
            why: format!("{why} (it is there and not in the backup)"),
        }),
        None => report.problems.push(differs(
            format!("{schema}.{}", entry.tag),
            "is there and not in the backup".into(),
        )),
    }
}

fn differs(table: String, what: String) -> Finding {
    Finding {
        file: RESTORED.to_owned(),
        table: Some(table),
        what,
    }
}

fn rows(content: &BlockContent) -> u64 {
    match content {
        BlockContent::Table { rows } => *rows,
        BlockContent::LargeObjects { .. } => 0,
    }
}

fn objects(content: &BlockContent) -> u64 {
    match content {
        BlockContent::LargeObjects { count } => *count,
        BlockContent::Table { .. } => 0,
    }
}

struct Comparison<'a, 'b> {
    located: &'a Located,
    stored: &'a Arc<StoredArchive>,
    ours: &'a Ours,
    again: &'a Again,
    exclusion: &'a DrillExclusion<'a>,
    /// The restored blocks that were not compared yet.
    theirs: &'b mut HashMap<&'a Path, &'a Gathered>,
    results: BTreeMap<usize, ProofOutcome>,
    problems: Vec<Finding>,
    not_proved: Vec<LeftOut>,
}

impl<'a> Comparison<'a, '_> {
    fn leave_out(&mut self, blocks: &[usize]) {
        for index in blocks {
            self.take(*index);
            self.results.insert(*index, ProofOutcome::NotProved);
        }
    }

    fn take(&mut self, index: usize) -> Option<&'a Gathered> {
        let layout = self.ours.layouts[index].as_ref()?;
        self.theirs.remove(&layout.table)
    }

    fn found_otherwise(&mut self, index: usize, what: String) {
        self.problems.push(differs(self.stored.name(index), what));
        self.results.insert(index, ProofOutcome::Differs);
    }

    /// Why the rows of these blocks may be the same although they are printed differently here.
    fn doubt(&self, blocks: &[usize]) -> Option<String> {
        let entry = |index: &usize| self.stored.head.data[*index].dump_id;
        blocks
            .iter()
            .find_map(|index| self.exclusion.doubt_of_rows(entry(index)))
    }

    fn not_proved(&mut self, blocks: &[usize], what: &str, why: &str) {
        for index in blocks {
            self.results.insert(*index, ProofOutcome::NotProved);
        }
        let what = match blocks {
            [only] => self.stored.head.data[*only].to_string(),
            _ => what.to_owned(),
        };
        self.not_proved.push(LeftOut {
            what,
            why: format!("{why} (it has as many rows as the backup, but they are printed differently)"),
        });
    }

    /// The restored table, if it exists with the same columns.
    fn counterpart(&mut self, index: usize) -> Option<&'a Gathered> {
        let Some(found) = self.take(index) else {
            self.found_otherwise(index, "is not there".into());
            return None;
        };
        if let ColumnOrder::Other(difference) = &self.again.orders[found.index] {
            self.found_otherwise(index, difference.clone());
            return None;
        }
        Some(found)
    }

    async fn compare_table(&mut self, index: usize) -> Result<()> {
        let Some(found) = self.counterpart(index) else {
            return Ok(());
        };
        let (there, ours) = (rows(&found.digest.content), self.stored.rows(index).unwrap_or_default());
        if self.stored.promise(index) == Some(&found.digest) {
            self.results.insert(index, ProofOutcome::Equal);
        } else if there != ours {
            self.found_otherwise(index, format!("has {}, the backup {ours}", count(there, "row")));
        } else if found.unordered == unordered(self.located, self.stored, self.ours, &[index]).await? {
            self.results.insert(index, ProofOutcome::EqualInOtherOrder);
        } else if let Some(why) = self.doubt(&[index]) {
            self.not_proved(&[index], "", &why);
        } else {
            let what = "has as many rows as the backup, and other ones";
            self.found_otherwise(index, what.into());
        }
        Ok(())
    }

    /// Compares all partitions of a root together, because the partition of a row may differ between databases.
    async fn compare_partitions(&mut self, blocks: &[usize]) -> Result<()> {
        let mut pairs = Vec::new();
        for index in blocks {
            if let Some(found) = self.counterpart(*index) {
                pairs.push((*index, found));
            }
        }
        if pairs.len() < blocks.len() {
            // The rows of a missing partition may be in any other one, or nowhere.
            let differ = |(index, _): (usize, _)| (index, ProofOutcome::Differs);
            self.results.extend(pairs.into_iter().map(differ));
            return Ok(());
        }
        let promise = |index: usize| self.stored.promise(index);
        if pairs
            .iter()
            .all(|(index, found)| promise(*index) == Some(&found.digest))
        {
            let equal = |index: &usize| (*index, ProofOutcome::Equal);
            self.results.extend(blocks.iter().map(equal));
            return Ok(());
        }
        let there: u64 = pairs.iter().map(|(_, found)| rows(&found.digest.content)).sum();
        let ours: u64 = blocks.iter().filter_map(|index| self.stored.rows(*index)).sum();
        let what = if there == ours {
            let mut sum = Unordered::default();
            for (_, found) in &pairs {
                sum.merge(found.unordered);
            }
            if sum == unordered(self.located, self.stored, self.ours, blocks).await? {
                let same = |index: &usize| (*index, ProofOutcome::EqualInOtherOrder);
                self.results.extend(blocks.iter().map(same));
                return Ok(());
            }
            if let Some(why) = self.doubt(blocks) {
                let root = format!("TABLE DATA {}", self.root(blocks[0]));
                self.not_proved(blocks, &root, &why);
                return Ok(());
            }
            "has partitions with as many rows as in the backup, and other ones".to_owned()
        } else {
            format!("has {} in its partitions, the backup {ours}", count(there, "row"))
        };
        self.results
            .extend(blocks.iter().map(|index| (*index, ProofOutcome::Differs)));
        self.problems.push(differs(self.root(blocks[0]), what));
        Ok(())
    }

    fn root(&self, index: usize) -> String {
        let root = self.ours.layouts[index]
            .as_ref()
            .and_then(|layout| layout.root.as_ref());
        let names = root.into_iter().flatten().map(|name| String::from_utf8_lossy(name));
        names.collect::<Vec<_>>().join(".")
    }
}

/// Compares all large objects together, because their groups in blocks may differ.
async fn compare_objects(
    pair: &Pair<'_>,
    blocks: &[usize],
    found: &[&Gathered],
    report: &mut DrillReport,
) -> Result<()> {
    let Pair {
        located, stored, ours, ..
    } = *pair;
    let promise = |index: &usize| &stored.promises[*index];
    report.large_objects = blocks.iter().map(|index| objects(&promise(index).content)).sum();
    let pairs = || blocks.iter().zip(found);
    if blocks.len() == found.len() && pairs().all(|(index, found)| *promise(index) == found.digest) {
        return Ok(());
    }
    let mut there = Unordered::default();
    for gathered in found {
        there.merge(gathered.unordered);
    }
    if there != unordered(located, stored, ours, blocks).await? {
        let number: u64 = found.iter().map(|gathered| objects(&gathered.digest.content)).sum();
        let what = format!("{number} are there, not the {} of the backup", report.large_objects);
        match pair.exclusion.missing().large_objects() {
            Some(why) => report.not_proved.push(LeftOut {
                what: "large objects".into(),
                why: format!("{why} ({what})"),
            }),
            None => report.problems.push(differs("large objects".into(), what)),
        }
    }
    Ok(())
}

/// Digests without order for the backup's own blocks, which are read once more.
async fn unordered(located: &Located, stored: &Arc<StoredArchive>, ours: &Ours, blocks: &[usize]) -> Result<Unordered> {
    let mut sum = Unordered::default();
    for &index in blocks {
        let store = Arc::clone(&located.store);
        let archive = Arc::clone(stored);
        let orders = Arc::clone(&ours.orders);
        let gathered = apart("gather", move || {
            let mut sink = Gather::new(&archive.head, &orders);
            archive.read_block(&store, index, &mut sink, &|_| {})?;
            let found = sink.found.pop();
            Ok(found.map(|gathered| gathered.unordered).unwrap_or_default())
        });
        let gathered = gathered.await?;
        sum.merge(gathered.map_err(|error| unread(stored, index, error))?);
    }
    Ok(sum)
}
