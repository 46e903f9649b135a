//! The net effect of changes on one table.

use std::sync::Arc;

use super::FoldError;
use super::images::{Image, Memory};
use super::keyed::Keyed;
use super::text::{self, Written};
use super::whole::Whole;
use crate::format::pgoutput::Value;

/// How the changes of a table say which row they mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowKey {
    /// By these columns, ascending.
    Columns(Vec<usize>),
    /// By all of its values.
    Whole,
    /// Not at all: rows are only inserted, and the table is emptied.
    Nothing,
}

/// How many changes were taken in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub inserts: u64,
    pub updates: u64,
    pub deletes: u64,
    pub truncates: u64,
}

impl Tally {
    pub fn sum(&self) -> u64 {
        self.inserts + self.updates + self.deletes + self.truncates
    }
}

#[derive(Debug)]
pub struct Net {
    columns: usize,
    pub(super) rows: Rows,
    pub(super) memory: Arc<Memory>,
    tally: Tally,
    new: Vec<u8>,
    old: Vec<u8>,
    key: Vec<u8>,
    old_key: Vec<u8>,
    merged: Vec<u8>,
}

#[derive(Debug)]
pub(super) enum Rows {
    Keyed(Keyed),
    Whole(Whole),
    Appended { rows: Vec<Image>, emptied: bool },
}

impl Net {
    /// A table whose rows have this many columns.
    pub fn new(columns: usize, key: RowKey, memory: Arc<Memory>) -> Self {
        let rows = match key {
            RowKey::Columns(columns) => Rows::Keyed(Keyed::new(columns)),
            RowKey::Whole => Rows::Whole(Whole::default()),
            RowKey::Nothing => Rows::Appended {
                rows: Vec::new(),
                emptied: false,
            },
        };
        Self {
            columns,
            rows,
            memory,
            tally: Tally::default(),
            new: Vec::new(),
            old: Vec::new(),
            key: Vec::new(),
            old_key: Vec::new(),
            merged: Vec::new(),
        }
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// What was counted before it began anew.
    pub(super) fn had(&mut self, tally: Tally) {
        self.tally = tally;
    }

    pub fn row_key(&self) -> RowKey {
        match &self.rows {
            Rows::Keyed(keyed) => RowKey::Columns(keyed.columns.clone()),
            Rows::Whole(_) => RowKey::Whole,
            Rows::Appended { .. } => RowKey::Nothing,
        }
    }

    /// Whether the table is as in the base.
    pub fn is_untouched(&self) -> bool {
        match &self.rows {
            Rows::Keyed(keyed) => keyed.is_untouched(),
            Rows::Whole(whole) => whole.is_untouched(),
            Rows::Appended { rows, emptied } => rows.is_empty() && !emptied,
        }
    }

    /// Whether no changed row is known: nothing was changed, or the table was emptied and nothing came after that.
    pub fn is_bare(&self) -> bool {
        match &self.rows {
            Rows::Keyed(keyed) => keyed.is_bare(),
            Rows::Whole(whole) => whole.weights().is_empty(),
            Rows::Appended { rows, .. } => rows.is_empty(),
        }
    }

    /// Whether no row of the base is left.
    pub fn is_emptied(&self) -> bool {
        match &self.rows {
            Rows::Keyed(keyed) => keyed.emptied,
            Rows::Whole(whole) => whole.emptied,
            Rows::Appended { emptied, .. } => *emptied,
        }
    }

    pub fn insert<'a>(&mut self, new: impl Iterator<Item = Value<'a>>) -> Result<(), FoldError> {
        self.tally.inserts += 1;
        let written = text::write(new, &mut self.new);
        self.complete(written)?;
        match &mut self.rows {
            Rows::Keyed(keyed) => {
                text::key(&self.new, &keyed.columns, &mut self.key);
                keyed.insert(&self.memory, &self.key, &self.new)
            }
            Rows::Whole(whole) => whole.add(&self.memory, &self.new),
            Rows::Appended { rows, .. } => {
                self.memory.take_key(b"")?;
                rows.push(self.memory.keep(&self.new)?);
                Ok(())
            }
        }
    }

    /// `old` is what the stream says of the row before, if it says anything: its key, or all of its values.
    pub fn update<'a>(
        &mut self,
        old: Option<impl Iterator<Item = Value<'a>>>,
        new: impl Iterator<Item = Value<'a>>,
    ) -> Result<(), FoldError> {
        self.tally.updates += 1;
        let mut written = text::write(new, &mut self.new);
        self.counts(written)?;
        let has_old = old.is_some();
        if let Some(old) = old {
            let old = text::write(old, &mut self.old);
            self.complete(old)?;
        }
        match &mut self.rows {
            Rows::Keyed(keyed) => {
                if has_old && written.partial {
                    // A large key that did not change is only in the old row, whose other values are not known.
                    self.merged.clear();
                    let of_key = |column| keyed.columns.contains(&column);
                    written.partial = text::merge(&self.new, &self.old, of_key, &mut self.merged);
                    std::mem::swap(&mut self.new, &mut self.merged);
                }
                text::key(&self.new, &keyed.columns, &mut self.key);
                if written.partial && lacks_value(&self.key) {
                    return Err(FoldError::Changes("a changed row comes without its key".into()));
                }
                let old_key = if has_old {
                    text::key(&self.old, &keyed.columns, &mut self.old_key);
                    &self.old_key
                } else {
                    &self.key
                };
                keyed.update(&self.memory, (old_key, &self.key), &self.new, written.partial)
            }
            Rows::Whole(whole) => {
                if !has_old {
                    return Err(FoldError::Changes("a changed row comes without the row before".into()));
                }
                if written.partial {
                    self.merged.clear();
                    if text::merge(&self.new, &self.old, |_| true, &mut self.merged) {
                        return Err(FoldError::Changes("a changed row lacks a value".into()));
                    }
                    std::mem::swap(&mut self.new, &mut self.merged);
                }
                whole.take(&self.memory, &self.old)?;
                whole.add(&self.memory, &self.new)
            }
            Rows::Appended { .. } => Err(without_identity()),
        }
    }

    pub fn delete<'a>(&mut self, old: impl Iterator<Item = Value<'a>>) -> Result<(), FoldError> {
        self.tally.deletes += 1;
        let written = text::write(old, &mut self.old);
        self.complete(written)?;
        match &mut self.rows {
            Rows::Keyed(keyed) => {
                text::key(&self.old, &keyed.columns, &mut self.old_key);
                keyed.delete(&self.memory, &self.old_key)
            }
            Rows::Whole(whole) => whole.take(&self.memory, &self.old),
            Rows::Appended { .. } => Err(without_identity()),
        }
    }

    pub fn truncate(&mut self) {
        self.tally.truncates += 1;
        match &mut self.rows {
            Rows::Keyed(keyed) => keyed.truncate(&self.memory),
            Rows::Whole(whole) => whole.truncate(&self.memory),
            Rows::Appended { rows, emptied } => {
                for row in rows.iter() {
                    self.memory.give_key_back(b"");
                    self.memory.release(row);
                }
                *rows = Vec::new();
                *emptied = true;
            }
        }
    }

    /// How many rows the table has, if the base has so many. `None`: more rows are gone than the base has.
    pub fn rows_after(&self, base: u64) -> Option<u64> {
        let (gone, added) = match &self.rows {
            Rows::Keyed(keyed) => (
                keyed.of_base().filter(|entry| entry.row.is_none()).count() as u64,
                keyed.added().count() as u64,
            ),
            Rows::Whole(whole) => {
                let sum = |of: fn(&super::whole::Weight) -> u64| whole.weights().iter().map(of).sum();
                (sum(|weight| weight.taken), sum(|weight| weight.added))
            }
            Rows::Appended { rows, .. } => (0, rows.len() as u64),
        };
        let base = if self.is_emptied() { 0 } else { base };
        base.checked_sub(gone).map(|left| left + added)
    }

    fn counts(&self, written: Written) -> Result<(), FoldError> {
        if written.columns == self.columns {
            return Ok(());
        }
        Err(FoldError::Changes(format!(
            "a row of {} columns where the table has {}",
            written.columns, self.columns
        )))
    }

    fn complete(&self, written: Written) -> Result<(), FoldError> {
        self.counts(written)?;
        match written.partial {
            true => Err(FoldError::Changes("a row lacks a value".into())),
            false => Ok(()),
        }
    }
}

impl Drop for Net {
    /// Other tables may use the same memory.
    fn drop(&mut self) {
        self.truncate();
    }
}

fn lacks_value(key: &[u8]) -> bool {
    key.split(|byte| *byte == b'\t').any(|field| field == text::UNCHANGED)
}

fn without_identity() -> FoldError {
    FoldError::Changes("a row is changed or removed in a table whose rows have no identity".into())
}
