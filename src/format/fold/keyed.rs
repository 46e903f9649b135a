//! The changes of a table whose rows are found by key columns.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;

use super::images::{Image, Memory};
use super::{FoldError, text};

/// No entry.
const NONE: u32 = u32::MAX;

/// Changed rows, and by which key each is found.
#[derive(Debug, Default)]
pub(super) struct Keyed {
    /// The columns of the key, ascending.
    pub columns: Vec<usize>,
    slots: HashMap<Box<[u8]>, Slot>,
    entries: Vec<Entry>,
    /// Places of `entries` that may be used again.
    free: Vec<u32>,
    /// The base's rows are gone.
    pub emptied: bool,
    scratch: Vec<u8>,
}

/// What a key stands for.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// The entry of the base's row with this key, if that row was changed.
    base: u32,
    /// The entry of the row that has this key now.
    now: u32,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub from_base: bool,
    /// `None`: the row is gone.
    pub row: Option<Image>,
    /// Values are missing in it: those of the base's row.
    pub partial: bool,
}

/// What a base row's key says about it.
pub(super) enum Met<'a> {
    /// It was not changed.
    Untouched,
    /// Number and entry.
    Changed(u32, &'a Entry),
    /// A row with this key was added, so the base may not have it.
    Added,
}

impl Keyed {
    pub fn new(columns: Vec<usize>) -> Self {
        Self {
            columns,
            ..Self::default()
        }
    }

    pub fn is_untouched(&self) -> bool {
        self.is_bare() && !self.emptied
    }

    pub fn is_bare(&self) -> bool {
        self.slots.is_empty()
    }

    pub fn insert(&mut self, memory: &Memory, key: &[u8], row: &[u8]) -> Result<(), FoldError> {
        let image = memory.keep(row)?;
        let entry = self.enter(Entry {
            from_base: false,
            row: Some(image),
            partial: false,
        })?;
        self.set(memory, key, entry)
    }

    /// The row that has the key `old` becomes `new`, which has the key `key`. `partial`: it lacks values.
    pub fn update(
        &mut self,
        memory: &Memory,
        (old, key): (&[u8], &[u8]),
        new: &[u8],
        mut partial: bool,
    ) -> Result<(), FoldError> {
        let number = self.find(memory, old)?;
        let entry = &mut self.entries[number as usize];
        let mut whole = std::mem::take(&mut self.scratch);
        whole.clear();
        if let (true, Some(before)) = (partial, &entry.row) {
            let mut known = Vec::new();
            memory.read(before, &mut known)?;
            partial = text::merge(new, &known, |_| true, &mut whole);
        } else {
            whole.extend_from_slice(new);
        }
        if let Some(before) = entry.row.take() {
            memory.release(&before);
        }
        entry.row = Some(memory.keep(&whole)?);
        entry.partial = partial;
        self.scratch = whole;
        if old != key {
            self.clear(memory, old);
            self.set(memory, key, number)?;
        }
        Ok(())
    }

    pub fn delete(&mut self, memory: &Memory, key: &[u8]) -> Result<(), FoldError> {
        let number = self.find(memory, key)?;
        let entry = &mut self.entries[number as usize];
        if let Some(row) = entry.row.take() {
            memory.release(&row);
        }
        entry.partial = false;
        if !entry.from_base {
            self.free.push(number);
        }
        self.clear(memory, key);
        Ok(())
    }

    pub fn truncate(&mut self, memory: &Memory) {
        for key in self.slots.keys() {
            memory.give_key_back(key);
        }
        for row in self.entries.iter().filter_map(|entry| entry.row.as_ref()) {
            memory.release(row);
        }
        self.slots = HashMap::new();
        self.entries = Vec::new();
        self.free = Vec::new();
        self.emptied = true;
    }

    /// The entry of the row that has this key now. A key that no change named before is that of a base row.
    fn find(&mut self, memory: &Memory, key: &[u8]) -> Result<u32, FoldError> {
        let known = self.slots.get(key).copied();
        match known {
            Some(Slot { now, .. }) if now != NONE => return Ok(now),
            Some(Slot { base, .. }) if base != NONE => return Err(absent()),
            _ if self.emptied => return Err(absent()),
            _ => {}
        }
        let number = self.enter(Entry {
            from_base: true,
            row: None,
            partial: false,
        })?;
        let slot = Slot {
            base: number,
            now: number,
        };
        if self.slots.insert(key.into(), slot).is_none() {
            memory.take_key(key)?;
        }
        Ok(number)
    }

    /// The row of this entry has this key from now on.
    fn set(&mut self, memory: &Memory, key: &[u8], number: u32) -> Result<(), FoldError> {
        // Two look-ups only for a new key: most keys of a busy table come more than once.
        if let Some(slot) = self.slots.get_mut(key) {
            if slot.now != NONE {
                return Err(FoldError::Changes("a key that a row has is given to another row".into()));
            }
            slot.now = number;
            return Ok(());
        }
        memory.take_key(key)?;
        self.slots.insert(key.into(), Slot { base: NONE, now: number });
        Ok(())
    }

    /// No row has this key any more.
    fn clear(&mut self, memory: &Memory, key: &[u8]) {
        if let MapEntry::Occupied(mut slot) = self.slots.entry(key.into()) {
            if slot.get().base == NONE {
                memory.give_key_back(key);
                slot.remove();
            } else {
                slot.get_mut().now = NONE;
            }
        }
    }

    fn enter(&mut self, entry: Entry) -> Result<u32, FoldError> {
        if let Some(free) = self.free.pop() {
            self.entries[free as usize] = entry;
            return Ok(free);
        }
        match u32::try_from(self.entries.len()) {
            Ok(number) if number != NONE => {
                self.entries.push(entry);
                Ok(number)
            }
            _ => Err(FoldError::Changes("more than 4 billion rows were changed".into())),
        }
    }

    pub fn meet(&self, key: &[u8]) -> Met<'_> {
        match self.slots.get(key) {
            None => Met::Untouched,
            Some(Slot { base: NONE, .. }) => Met::Added,
            Some(slot) => Met::Changed(slot.base, &self.entries[slot.base as usize]),
        }
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The rows that are there and not in the base. Places that were given back have no row.
    pub fn added(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| !entry.from_base && entry.row.is_some())
    }

    pub fn of_base(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.from_base)
    }
}

fn absent() -> FoldError {
    FoldError::Changes("a row is changed that was removed before".into())
}
