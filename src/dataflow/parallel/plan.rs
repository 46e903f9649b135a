//! Which session reads what, and in which order: a pure function of the table of contents and of the server's facts
//! about its tables.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::statement::{Statement, Stretch};
use crate::format::archive::{BlockKind, Head};

/// The size of one task. It is large enough that starting a COPY does not matter (a start takes the server 0.1 or 0.2
/// ms, this much text about 70 ms), and small enough that some tasks may wait in memory for their turn.
pub const TASK: u64 = 8 << 20;
/// The cost of a table besides its bytes, in bytes: so a task holds a hundred empty tables.
const TABLE: u64 = 64 << 10;

/// The server's facts about a table, when it cannot change any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The name with its schema, quoted, in the database's encoding.
    pub table: Vec<u8>,
    pub pages: u32,
    /// The size, with out-of-line values.
    pub bytes: u64,
    /// Whether it can be read by ranges of pages: a plain table in a heap, on PostgreSQL 14 or newer (Tid Range
    /// Scan).
    pub has_pages: bool,
    pub condition: Option<Vec<u8>>,
}

/// One COPY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableRead {
    /// The index in [`Head::data`].
    pub block: usize,
    /// `None`: the whole table.
    pub stretch: Option<Stretch>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct ReadPlan {
    /// By block; `None` for large objects.
    pub statements: Vec<Option<Statement>>,
    /// In the order of the archive.
    pub reads: Vec<TableRead>,
    /// The reads that a worker takes at once; they are adjacent.
    pub tasks: Vec<Range<usize>>,
    /// The bytes of all tables together.
    pub bytes: u64,
}

impl ReadPlan {
    /// Does not read these blocks.
    pub fn leave_out(&mut self, blocks: &HashSet<usize>) {
        let reads = std::mem::take(&mut self.reads);
        for task in std::mem::take(&mut self.tasks) {
            let begin = self.reads.len();
            let stay = reads[task].iter().filter(|read| !blocks.contains(&read.block));
            self.reads.extend(stay);
            if self.reads.len() > begin {
                self.tasks.push(begin..self.reads.len());
            }
        }
    }

    pub fn statement(&self, read: usize, out: &mut Vec<u8>) {
        let TableRead { block, stretch } = self.reads[read];
        match (&self.statements[block], stretch) {
            (Some(statement), Some(stretch)) => statement.stretch(stretch, out),
            (Some(statement), None) => statement.whole(out),
            (None, _) => unreachable!("reads are of tables"),
        }
    }
}

/// `Err` names the entry about which the server gave no facts.
pub fn plan(head: &Head, copies: &[Vec<u8>], facts: &HashMap<u32, Facts>) -> Result<ReadPlan, String> {
    let mut plan = ReadPlan::default();
    let mut task = 0..0;
    let mut weight = 0;
    for ((block, entry), copy) in head.data.iter().enumerate().zip(copies) {
        if entry.block_kind() == BlockKind::LargeObjects {
            plan.statements.push(None);
            continue;
        }
        // They come last in every known pg_dump, and so they are written last.
        if plan.statements.iter().any(Option::is_none) {
            return Err(format!("{entry} after large objects"));
        }
        let known = facts.get(&entry.oid);
        let statement = known.and_then(|facts| Statement::parse(copy, &facts.table, facts.condition.as_deref()));
        let (Some(facts), Some(statement)) = (known, statement) else {
            return Err(entry.to_string());
        };
        let stretches = stretches(facts).filter(|_| statement.is_plain());
        plan.statements.push(Some(statement));
        plan.bytes += facts.bytes;
        for stretch in stretches.unwrap_or_else(|| vec![None]) {
            let bytes = if stretch.is_some() { TASK } else { facts.bytes };
            plan.reads.push(TableRead { block, stretch });
            task.end = plan.reads.len();
            weight += TABLE + bytes;
            if weight >= TASK {
                plan.tasks.push(task.clone());
                task = task.end..task.end;
                weight = 0;
            }
        }
    }
    if !task.is_empty() {
        plan.tasks.push(task);
    }
    Ok(plan)
}

/// A large table in ranges of pages, each with about the bytes of one task.
fn stretches(facts: &Facts) -> Option<Vec<Option<Stretch>>> {
    let count = facts.bytes / TASK;
    if !facts.has_pages || count < 2 || facts.pages < 2 {
        return None;
    }
    let pages = u32::try_from(u64::from(facts.pages).div_ceil(count)).unwrap_or(u32::MAX);
    let mut stretches = Vec::new();
    let mut from = 0_u32;
    loop {
        let to = from.saturating_add(pages);
        // If the last range is less than half the size, it is joined to the one before.
        if to.saturating_add(pages / 2) >= facts.pages {
            stretches.push(Some(Stretch { from, to: None }));
            return Some(stretches);
        }
        stretches.push(Some(Stretch { from, to: Some(to) }));
        from = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(pages: u32, bytes: u64) -> Facts {
        Facts {
            table: b"public.t".to_vec(),
            pages,
            bytes,
            has_pages: true,
            condition: None,
        }
    }

    #[test]
    fn stretches_cover_every_page_once_and_leave_the_end_open() {
        for pages in [2u32, 3, 1000, 1024, 1025, 131_072, u32::MAX] {
            for bytes in [u64::from(pages) * 8192, 16 << 20, 17 << 20, 1 << 32] {
                let Some(stretches) = stretches(&facts(pages, bytes)) else {
                    continue;
                };
                let mut next = 0;
                for (index, stretch) in stretches.iter().enumerate() {
                    let stretch = stretch.unwrap();
                    assert_eq!(stretch.from, next);
                    assert_eq!(stretch.to.is_none(), index + 1 == stretches.len());
                    next = stretch.to.unwrap_or(pages);
                }
                assert!(stretches.len() as u64 <= bytes / TASK + 1, "{pages} {bytes}");
            }
        }
    }

    #[test]
    fn what_is_left_out_leaves_the_order_of_the_other_reads() {
        let read = |block| TableRead { block, stretch: None };
        let mut plan = ReadPlan {
            reads: vec![read(0), read(1), read(1), read(2), read(3)],
            tasks: vec![0..2, 2..3, 3..5],
            ..ReadPlan::default()
        };
        plan.leave_out(&HashSet::from([1, 3]));
        assert_eq!(plan.reads, [read(0), read(2)]);
        assert_eq!(plan.tasks, [0..1, 1..2]);
        plan.leave_out(&HashSet::from([0, 2]));
        assert_eq!((plan.reads.len(), plan.tasks.len()), (0, 0));
    }

    #[test]
    fn small_tables_and_those_without_pages_are_read_whole() {
        assert_eq!(stretches(&facts(2047, 2047 * 8192)), None);
        assert_eq!(
            stretches(&Facts {
                has_pages: false,
                ..facts(1 << 20, 1 << 33)
            }),
            None
        );
        // One page with values of a gigabyte.
        assert_eq!(stretches(&facts(1, 1 << 30)), None);
        assert_eq!(stretches(&facts(2, 1 << 30)).unwrap().len(), 2);
    }
}
