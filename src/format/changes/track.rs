//! What is known at each message of the stream: the open transaction, the descriptions of the tables, and how often
//! each table was changed. Everything that writes, reads or checks a file goes through here.

use std::collections::HashMap;

use jiff::Timestamp;

use super::error::Misplaced;
use super::summary::TableSummary;
use crate::format::Lsn;
use crate::format::pgoutput::{Begin, Commit, Message, Relation, Tuple};

/// An open transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transaction {
    pub xid: u32,
    /// The source's clock at the commit.
    pub time: Timestamp,
    /// The position of the commit record.
    pub final_lsn: Lsn,
    /// Behind the commit record. A reader knows it at once if the transaction continues in another frame, else at the
    /// commit.
    pub end: Option<Lsn>,
}

impl Transaction {
    pub(super) fn of(begin: &Begin) -> Self {
        Self {
            xid: begin.xid,
            time: begin.time,
            final_lsn: begin.final_lsn,
            end: None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Track {
    /// The end of the last transaction; first, the position after which the file begins.
    pub position: Lsn,
    pub open: Option<Transaction>,
    pub transactions: u64,
    /// The time of the first and of the last commit.
    pub commits: Option<(Timestamp, Timestamp)>,
    tables: HashMap<u32, Table>,
}

#[derive(Debug)]
struct Table {
    relation: Relation,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    inserts: u64,
    updates: u64,
    deletes: u64,
    truncates: u64,
}

impl Track {
    pub fn new(from: Lsn) -> Self {
        Self {
            position: from,
            open: None,
            transactions: 0,
            commits: None,
            tables: HashMap::new(),
        }
    }

    pub fn relation(&self, oid: u32) -> Option<&Relation> {
        self.tables.get(&oid).map(|table| &table.relation)
    }

    /// Takes a table's description; the last one counts.
    pub fn describe(&mut self, relation: Relation) {
        match self.tables.get_mut(&relation.oid) {
            Some(table) => table.relation = relation,
            None => {
                let counts = Counts::default();
                self.tables.insert(relation.oid, Table { relation, counts });
            }
        }
    }

    /// Takes the next message.
    pub fn take(&mut self, message: &Message<'_>) -> Result<(), Misplaced> {
        match message {
            Message::Begin(begin) => {
                if self.open.is_some() {
                    return Err(Misplaced::Inside);
                }
                self.open = Some(Transaction::of(begin));
                return Ok(());
            }
            Message::Logical { transactional: false, .. } => return Ok(()),
            _ if self.open.is_none() => return Err(Misplaced::Outside),
            Message::Commit(commit) => return self.commit(commit),
            Message::Relation(relation) => self.describe(relation.clone()),
            Message::Insert { relid, new } => self.changed(*relid, &[*new])?.inserts += 1,
            Message::Update { relid, old: None, new } => self.changed(*relid, &[*new])?.updates += 1,
            Message::Update { relid, old: Some(old), new } => {
                self.changed(*relid, &[old.tuple(), *new])?.updates += 1;
            }
            Message::Delete { relid, old } => self.changed(*relid, &[old.tuple()])?.deletes += 1,
            Message::Truncate { relids, .. } => {
                for relid in relids.iter() {
                    self.changed(relid, &[])?.truncates += 1;
                }
            }
            Message::Origin { .. } | Message::Type { .. } | Message::Logical { .. } => {}
        }
        Ok(())
    }

    fn commit(&mut self, commit: &Commit) -> Result<(), Misplaced> {
        let open = self.open.take().ok_or(Misplaced::Outside)?;
        let is_its_own = open.final_lsn == commit.lsn && open.time == commit.time && commit.lsn < commit.end;
        if !is_its_own || open.end.is_some_and(|end| end != commit.end) {
            return Err(Misplaced::OtherCommit);
        }
        let before = std::mem::replace(&mut self.position, commit.end);
        if commit.end <= before {
            return Err(Misplaced::NotRising {
                end: commit.end,
                before,
            });
        }
        self.transactions += 1;
        self.commits = match self.commits {
            None => Some((commit.time, commit.time)),
            Some((first, _)) => Some((first, commit.time)),
        };
        Ok(())
    }

    /// The counts of the table, if its rows have as many columns as its description.
    fn changed(&mut self, relid: u32, tuples: &[Tuple<'_>]) -> Result<&mut Counts, Misplaced> {
        let table = self.tables.get_mut(&relid).ok_or(Misplaced::Unknown(relid))?;
        let columns = table.relation.columns.len();
        match tuples.iter().find(|tuple| tuple.len() != columns) {
            None => Ok(&mut table.counts),
            Some(tuple) => Err(Misplaced::Columns {
                table: table.relation.display(),
                found: tuple.len(),
                columns,
            }),
        }
    }

    /// The tables with changes, in the order of their OIDs.
    pub fn tables(&self) -> Vec<TableSummary> {
        let mut tables: Vec<TableSummary> = self
            .tables
            .values()
            .map(|Table { relation, counts }| {
                let (schema, name) = relation.names();
                TableSummary {
                    oid: relation.oid,
                    schema,
                    name,
                    identity: relation.identity,
                    inserts: counts.inserts,
                    updates: counts.updates,
                    deletes: counts.deletes,
                    truncates: counts.truncates,
                }
            })
            .filter(|table| table.changes() > 0)
            .collect();
        tables.sort_by_key(|table| table.oid);
        tables
    }
}
