//! Counts the changes of each transaction while they pass.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::report::{ChangedTable, TransactionChanges};
use crate::error::Result;
use crate::format::changes::{Item, Transaction};
use crate::format::pgoutput::{Message, Relation};
use crate::repository::stored_changes::ChangesReading;

/// The most tables that are told of one transaction: those that it changed first.
const TABLES: usize = 100;

/// The matching transactions of one increment, in the order of the commits.
pub(super) struct Counted {
    pub transactions: VecDeque<TransactionChanges>,
    /// There were more; the earliest were left out.
    pub more: bool,
    /// The bytes that were read from the store.
    pub bytes: u64,
}

impl Counted {
    pub fn nothing(bytes: u64) -> Self {
        Self {
            transactions: VecDeque::new(),
            more: false,
            bytes,
        }
    }

    pub fn with_bytes(self, bytes: u64) -> Self {
        Self { bytes, ..self }
    }
}

/// Reads to the end, and keeps the last `most` transactions that changed a row.
pub(super) fn count(
    mut reading: ChangesReading,
    relids: Option<&BTreeSet<u32>>,
    most: usize,
) -> Result<Counted> {
    let mut counted = Counted::nothing(0);
    let mut open: Option<Open> = None;
    while let Some(item) = reading.next()? {
        let Some(transaction) = item.transaction else {
            continue;
        };
        // If frames are left out, a transaction may lack its commit.
        let is_same = open.as_ref().is_some_and(|open| open.is(&transaction));
        if !is_same {
            counted.take(open.replace(Open::new(transaction)), most);
        }
        if let Some(open) = &mut open {
            open.take(&item, relids);
        }
    }
    counted.take(open, most);
    Ok(counted)
}

impl Counted {
    fn take(&mut self, open: Option<Open>, most: usize) {
        let Some(told) = open.and_then(Open::told) else {
            return;
        };
        self.transactions.push_back(told);
        if self.transactions.len() > most {
            self.transactions.pop_front();
            self.more = true;
        }
    }
}

/// A transaction whose changes are being counted.
struct Open {
    transaction: Transaction,
    counts: Counts,
    tables: BTreeMap<u32, ChangedTable>,
    more_tables: BTreeSet<u32>,
}

#[derive(Default)]
struct Counts {
    inserts: u64,
    updates: u64,
    deletes: u64,
    truncates: u64,
}

impl Open {
    fn new(transaction: Transaction) -> Self {
        Self {
            transaction,
            counts: Counts::default(),
            tables: BTreeMap::new(),
            more_tables: BTreeSet::new(),
        }
    }

    fn is(&self, other: &Transaction) -> bool {
        (self.transaction.xid, self.transaction.final_lsn) == (other.xid, other.final_lsn)
    }

    fn take(&mut self, item: &Item<'_>, relids: Option<&BTreeSet<u32>>) {
        if let Some(end) = item.transaction.and_then(|transaction| transaction.end) {
            self.transaction.end = Some(end);
        }
        match &item.message {
            Message::Insert { relid, .. } => {
                self.counts.inserts += 1;
                self.table(*relid, item.relation, |table| table.inserts += 1);
            }
            Message::Update { relid, .. } => {
                self.counts.updates += 1;
                self.table(*relid, item.relation, |table| table.updates += 1);
            }
            Message::Delete { relid, .. } => {
                self.counts.deletes += 1;
                self.table(*relid, item.relation, |table| table.deletes += 1);
            }
            Message::Truncate { relids: emptied, .. } => {
                let wanted = emptied.iter().filter(|relid| relids.is_none_or(|relids| relids.contains(relid)));
                for relid in wanted {
                    self.counts.truncates += 1;
                    self.table(relid, item.relation_of(relid), |table| table.truncates += 1);
                }
            }
            _ => {}
        }
    }

    fn table(&mut self, relid: u32, relation: Option<&Relation>, count: impl FnOnce(&mut ChangedTable)) {
        if let Some(table) = self.tables.get_mut(&relid) {
            return count(table);
        }
        if self.tables.len() >= TABLES {
            self.more_tables.insert(relid);
            return;
        }
        let mut table = ChangedTable::new(relid, relation);
        count(&mut table);
        self.tables.insert(relid, table);
    }

    /// `None`: it changed no row.
    fn told(self) -> Option<TransactionChanges> {
        let Counts {
            inserts,
            updates,
            deletes,
            truncates,
        } = self.counts;
        (inserts + updates + deletes + truncates > 0).then(|| TransactionChanges {
            time: self.transaction.time,
            before: self.transaction.final_lsn,
            lsn: self.transaction.end.unwrap_or(self.transaction.final_lsn),
            xid: self.transaction.xid,
            increment: None,
            inserts,
            updates,
            deletes,
            truncates,
            tables: self.tables.into_values().collect(),
            more_tables: self.more_tables.len() as u64,
        })
    }
}
