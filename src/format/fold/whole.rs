//! The changes of a table whose rows are only known as a whole (REPLICA IDENTITY FULL): how often each row was taken
//! away, and how often it was added. Equal rows cannot be told apart, and do not have to be.

use std::borrow::Cow;
use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::FoldError;
use super::images::{Image, Memory};

/// A longer row is known by its digest.
const LONGEST: usize = 256;
/// Before the digest, so that no row's text is like it: COPY writes no such field.
const DIGESTED: &[u8] = b"\\U";

#[derive(Debug, Default)]
pub(super) struct Whole {
    places: HashMap<Box<[u8]>, u32>,
    weights: Vec<Weight>,
    free: Vec<u32>,
    pub emptied: bool,
}

#[derive(Debug, Default)]
pub(super) struct Weight {
    /// How many of the base's rows like it are gone.
    pub taken: u64,
    /// How many were added.
    pub added: u64,
    /// Set while rows are added.
    pub row: Option<Image>,
}

impl Whole {
    pub fn is_untouched(&self) -> bool {
        self.weights.is_empty() && !self.emptied
    }

    pub fn add(&mut self, memory: &Memory, row: &[u8]) -> Result<(), FoldError> {
        let number = self.place(memory, row)?;
        let weight = &mut self.weights[number as usize];
        weight.added += 1;
        if weight.row.is_none() {
            weight.row = Some(memory.keep(row)?);
        }
        Ok(())
    }

    pub fn take(&mut self, memory: &Memory, row: &[u8]) -> Result<(), FoldError> {
        let number = self.place(memory, row)?;
        let weight = &mut self.weights[number as usize];
        if weight.added == 0 {
            if self.emptied {
                return Err(FoldError::Changes("a row is removed that was removed before".into()));
            }
            weight.taken += 1;
            return Ok(());
        }
        weight.added -= 1;
        if weight.added > 0 {
            return Ok(());
        }
        if let Some(row) = weight.row.take() {
            memory.release(&row);
        }
        if weight.taken == 0 {
            let key = key(row);
            self.places.remove(&*key);
            self.free.push(number);
            memory.give_key_back(&key);
        }
        Ok(())
    }

    pub fn truncate(&mut self, memory: &Memory) {
        for key in self.places.keys() {
            memory.give_key_back(key);
        }
        for row in self.weights.iter().filter_map(|weight| weight.row.as_ref()) {
            memory.release(row);
        }
        *self = Self {
            emptied: true,
            ..Self::default()
        };
    }

    fn place(&mut self, memory: &Memory, row: &[u8]) -> Result<u32, FoldError> {
        let key = key(row);
        if let Some(number) = self.places.get(&*key) {
            return Ok(*number);
        }
        memory.take_key(&key)?;
        let number = match self.free.pop() {
            Some(free) => free,
            None => {
                self.weights.push(Weight::default());
                u32::try_from(self.weights.len() - 1)
                    .map_err(|_| FoldError::Changes("more than 4 billion rows were changed".into()))?
            }
        };
        self.places.insert(key.into(), number);
        Ok(number)
    }

    /// The number and the weight of rows like this one.
    pub fn meet(&self, row: &[u8]) -> Option<(u32, &Weight)> {
        let number = *self.places.get(&*key(row))?;
        Some((number, &self.weights[number as usize]))
    }

    pub fn weights(&self) -> &[Weight] {
        &self.weights
    }
}

fn key(row: &[u8]) -> Cow<'_, [u8]> {
    match row.len() <= LONGEST {
        true => Cow::Borrowed(row),
        false => Cow::Owned([DIGESTED, &Sha256::digest(row)].concat()),
    }
}
