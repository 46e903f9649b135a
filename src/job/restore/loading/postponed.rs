//! Tables that the server refused, perhaps because a function looked for rows that were not there yet. They are loaded
//! again after others: all of them by one pg_restore, until it loads none.

use std::collections::{BTreeMap, HashSet};

use tokio_util::sync::CancellationToken;

use super::{Loader, Manner, alive};
use crate::error::{Error, Result};
use crate::job::restore::load::Load;
use crate::job::restore::order::LoadOrder;
use crate::job::restore::queue;

/// A table, as a load of its own, and the server's refusal.
pub(super) struct RefusedTable {
    load: Load,
    error: Error,
}

impl Loader<'_> {
    /// Runs one load, past the tables that may be loaded after others. Returns those of them that were refused.
    pub(super) async fn load_most(
        &self,
        number: usize,
        load: &Load,
        order: &LoadOrder,
        cancel: &CancellationToken,
    ) -> Result<Vec<RefusedTable>> {
        let entry = |block: usize| self.archive.head.data[block].dump_id;
        let manner = Manner {
            may_fail: queue::may_wait(load, order, entry),
            ..Manner::default()
        };
        let end = self.load_in(number, load, cancel, manner).await?;
        alive(&end)?;
        let mut seen = HashSet::new();
        let mut refused = Vec::new();
        for complaint in end.refused {
            if complaint.entry.is_some_and(|id| !seen.insert(id)) {
                continue;
            }
            let table = complaint.entry.and_then(|id| queue::alone(load, id, entry));
            let error = complaint.into_error();
            let Some(load) = table else { return Err(error) };
            tracing::debug!("tried again after other tables are loaded: {}", error.message());
            refused.push(RefusedTable { load, error });
        }
        Ok(refused)
    }
}

/// The refused tables of a restore.
pub(super) struct PostponedTables<'a> {
    loader: &'a Loader<'a>,
    order: &'a LoadOrder,
    cancel: &'a CancellationToken,
    /// Of the last load.
    number: usize,
    open: Vec<RefusedTable>,
}

impl<'a> PostponedTables<'a> {
    /// Their loads have greater numbers than `number`.
    pub fn new(loader: &'a Loader<'a>, order: &'a LoadOrder, number: usize, cancel: &'a CancellationToken) -> Self {
        Self {
            loader,
            order,
            cancel,
            number,
            open: Vec::new(),
        }
    }

    pub fn add(&mut self, refused: Vec<RefusedTable>) {
        self.open.extend(refused);
    }

    /// Loads them again, until a round loads none of them. Those that are left may need tables that are not loaded
    /// yet.
    pub async fn again(&mut self) -> Result<()> {
        // They were refused in the archive's order. Of tables that look at their neighbours, one of the two directions
        // loads many in one round.
        let mut backwards = true;
        while !self.open.is_empty() {
            let tried = self.open.len();
            for load in self.round(backwards) {
                self.number += 1;
                let refused = self.loader.load_most(self.number, &load, self.order, self.cancel);
                self.open.extend(refused.await?);
            }
            if self.open.len() == tried {
                break;
            }
            backwards = !backwards;
        }
        Ok(())
    }

    /// The same after all other tables. The error is about the first in the archive.
    pub async fn finish(&mut self) -> Result<()> {
        self.again().await?;
        let first = self.open.drain(..).min_by_key(|one| one.load.blocks.clone());
        first.map_or(Ok(()), |first| Err(first.error))
    }

    /// The loads of a round: all whole tables together. Tables with computed columns come last, in the archive's order,
    /// because they would silently get other values earlier.
    fn round(&mut self, backwards: bool) -> Vec<Load> {
        let mut parts = Vec::new();
        let mut whole: BTreeMap<usize, Load> = BTreeMap::new();
        for RefusedTable { load, .. } in self.open.drain(..) {
            match load.blocks[..] {
                [block] if load.part.is_none() => drop(whole.insert(block, load)),
                _ => parts.push(load),
            }
        }
        let (computed, mut others): (Vec<Load>, Vec<Load>) =
            whole.into_values().partition(|load| self.order.computes(load));
        if backwards {
            others.reverse();
        }
        let mut together = Load::default();
        for load in others.into_iter().chain(computed) {
            together.blocks.extend(load.blocks);
            together.list.extend(load.list);
        }
        parts.extend((!together.blocks.is_empty()).then_some(together));
        parts
    }
}
