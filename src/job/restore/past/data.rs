//! Loads the rows. Continues after tables that the server refuses, or whose bytes differ from the manifest.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::stream::{FuturesUnordered, StreamExt};
use tokio_util::sync::CancellationToken;

use super::{Past, alive};
use crate::error::{Code, Error, Result};
use crate::format::archive::{Item, Loading};
use crate::job::restore::failed::Loss;
use crate::job::restore::load::Load;
use crate::job::restore::queue::Queue;
use crate::job::restore::rows::{self, BackupRows, BlockCopy};
use crate::job::restore::tables::named;
use crate::postgres::{Complaint, Named, RestoreEnd, Wire};

/// A table with more stored bytes is not sent again only to learn a code.
const SENT_AGAIN: u64 = 256 << 20;

impl Past<'_> {
    /// Loads all rows, and then sets the sequences.
    pub async fn data(&mut self) -> Result<()> {
        let plan = self.backup.plan;
        let gone = self.tables_that_are_not_there().await?;
        let doubtful = self.doubtful(&gone).await?;
        let mut loads = Vec::new();
        let mut positions = Vec::new();
        for load in &plan.loads {
            match load.blocks.is_empty() {
                true => positions.push(load),
                false => {
                    let kept = self.without(load, &gone);
                    loads.extend(kept.into_iter().flat_map(|load| apart(load, &doubtful, self.backup)));
                }
            }
        }
        let refused = self.load_all(&loads).await?;
        self.again(refused).await?;
        for load in positions {
            self.number += 1;
            let end = self
                .loader
                .load_past(self.number, load, &CancellationToken::new())
                .await?;
            alive(&end)?;
            self.take(&load.list, end);
        }
        Ok(())
    }

    /// The tables whose definitions failed and that do not exist, by their dump ids. One may exist and only lack its
    /// owner.
    async fn tables_that_are_not_there(&self) -> Result<HashSet<i64>> {
        let failed: Vec<&Item> = self
            .archive
            .items
            .iter()
            .filter(|item| self.losses.has(item.entry.dump_id) && item.entry.desc.ends_with("TABLE"))
            .collect();
        if failed.is_empty() {
            return Ok(HashSet::new());
        }
        let asked: Vec<Named<'_>> = failed.iter().map(|item| named(item)).collect();
        let there = self.session().await?.exist(&asked).await?;
        let gone = failed.iter().zip(there).filter(|(_, there)| !there);
        Ok(gone.map(|(item, _)| item.entry.dump_id).collect())
    }

    /// Blocks, by dump ids, whose tables cannot show whether their rows were loaded: partitions that are loaded
    /// through their root may hold each other's rows; extensions bring rows of their own; and some tables had rows
    /// before.
    async fn doubtful(&self, gone: &HashSet<i64>) -> Result<HashSet<i64>> {
        let stored = self.backup.stored;
        let statements = stored.head.copy_statements()?;
        let of_extensions = &self.backup.plan.order.of_extensions;
        let blocks: Vec<usize> = self.backup.plan.blocks().collect();
        let mut session = None;
        let mut doubtful = HashSet::new();
        for index in blocks {
            let Some((schema, name)) = &stored.tables[index] else {
                continue;
            };
            let entry = &stored.head.data[index];
            let through_another = Loading::parse(&statements[index]).is_none_or(|one| one.is_through_another(entry));
            if through_another || of_extensions.contains(&entry.dump_id) {
                doubtful.insert(entry.dump_id);
                continue;
            }
            let Some(item) = self.items.get(&entry.dump_id) else {
                continue;
            };
            let needed = &item.details.dependencies;
            if !needed.iter().any(|id| self.losses.has(*id)) || needed.iter().any(|id| gone.contains(id)) {
                continue;
            }
            let session = match &mut session {
                Some(session) => session,
                none => none.insert(self.session().await?),
            };
            // If it cannot be asked now, it could not be asked later.
            if session.holds_rows(schema, name).await.unwrap_or(true) {
                doubtful.insert(entry.dump_id);
            }
        }
        Ok(doubtful)
    }

    /// The load without the rows of these tables, which are reported as lost.
    fn without(&mut self, load: &Load, gone: &HashSet<i64>) -> Option<Load> {
        let lost: HashSet<i64> = load
            .list
            .iter()
            .copied()
            .filter(|id| {
                let needs = self.items.get(id).map(|item| &item.details.dependencies);
                needs.is_some_and(|needs| needs.iter().any(|id| gone.contains(id)))
            })
            .collect();
        for id in &lost {
            self.lose(*id, Loss::quoted("its table does not exist"));
        }
        let kept = Load {
            blocks: load
                .blocks
                .iter()
                .copied()
                .filter(|index| !lost.contains(&self.id(*index)))
                .collect(),
            list: load.list.iter().copied().filter(|id| !lost.contains(id)).collect(),
            ..load.clone()
        };
        (!kept.blocks.is_empty()).then_some(kept)
    }

    fn id(&self, block: usize) -> i64 {
        self.backup.stored.head.data[block].dump_id
    }

    /// Reports rows or large objects as lost.
    fn lose(&mut self, id: i64, loss: Loss) {
        let stored = self.backup.stored;
        let block = stored.head.data.iter().position(|entry| entry.dump_id == id);
        let rows = block.and_then(|index| stored.rows(index));
        self.losses.note(id, Loss { rows, ..loss });
    }

    /// Returns the entries that the server refused, with its messages.
    async fn load_all(&mut self, loads: &[Load]) -> Result<BTreeMap<i64, String>> {
        let (jobs, order) = (self.job.settings.jobs, &self.backup.plan.order);
        let mut queue = Queue::new(loads, order, jobs);
        let mut refused = BTreeMap::new();
        let mut single = Vec::new();
        let mut stray = Vec::new();
        let cancel = CancellationToken::new();
        let mut running = FuturesUnordered::new();
        let mut halt = None;
        loop {
            while halt.is_none()
                && running.len() < jobs
                && let Some(next) = queue.next()
            {
                let (loader, cancel, first) = (self.loader, &cancel, self.number);
                running.push(async move {
                    let number = first + 1 + next;
                    (next, loader.load_past(number, &loads[next], cancel).await)
                });
            }
            let Some((ended, loaded)) = running.next().await else {
                break;
            };
            queue.ended(ended);
            match loaded.and_then(|end| alive(&end).map(|()| end)) {
                Ok(end) => stray.extend(heed(&loads[ended], end, &mut refused)),
                Err(_) if halt.is_some() => {}
                Err(error) if is_about_rows(&error) => single.push((&loads[ended], error)),
                Err(error) => {
                    cancel.cancel();
                    halt = Some(error);
                }
            }
        }
        drop(running);
        self.number += loads.len() + 1;
        if let Some(error) = halt {
            return Err(error);
        }
        for complaint in &stray {
            self.stray(complaint);
        }
        for (load, error) in single {
            self.one_by_one(load, error, &mut refused).await?;
        }
        Ok(refused)
    }

    /// After a load whose pg_restore did not finish: loads what is not there yet, each table by itself. Loads have
    /// several blocks only if their tables can show this: see [`Past::doubtful`].
    async fn one_by_one(&mut self, load: &Load, error: Error, refused: &mut BTreeMap<i64, String>) -> Result<()> {
        // If the server is lost, it would refuse all of them.
        let session = self.session().await?;
        if let [only] = load.blocks[..] {
            let loss = Loss {
                code: error.code(),
                ..Loss::quoted(error.message())
            };
            self.lose(self.id(only), loss);
            return Ok(());
        }
        for one in singles(load, self.backup) {
            let index = one.blocks[0];
            if self.backup.stored.rows(index) == Some(0) {
                continue;
            }
            if let Some((schema, name)) = &self.backup.stored.tables[index]
                && session.holds_rows(schema, name).await?
            {
                continue;
            }
            self.number += 1;
            let loaded = self
                .loader
                .load_past(self.number, &one, &CancellationToken::new())
                .await;
            match loaded.and_then(|end| alive(&end).map(|()| end)) {
                Ok(end) => {
                    for complaint in heed(&one, end, refused) {
                        self.stray(&complaint);
                    }
                }
                Err(error) if is_about_rows(&error) => {
                    let loss = Loss {
                        code: error.code(),
                        ..Loss::quoted(error.message())
                    };
                    self.lose(self.id(index), loss);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Loads the refused tables again, in sessions of ours, which learn the server's code. Repeats as long as a round
    /// loads others, which may have the rows that were missing.
    async fn again(&mut self, refused: BTreeMap<i64, String>) -> Result<()> {
        if refused.is_empty() {
            return Ok(());
        }
        let copies = rows::copies(self.backup).unwrap_or_default();
        let copies: HashMap<i64, BlockCopy> = copies.into_iter().map(|copy| (self.id(copy.index), copy)).collect();
        let order = &self.backup.plan.order;
        let minds = |id: &i64| order.late.contains(id) || order.behind.contains_key(id);
        let mut wire = self.wire().await?;
        let mut open: Vec<(i64, String)> = Vec::new();
        for (id, words) in refused {
            let small = |copy: &BlockCopy| self.backup.stored.places[copy.index].length <= SENT_AGAIN;
            match copies.get(&id) {
                Some(copy) if small(copy) || minds(&id) => open.push((id, words)),
                _ => self.lose(id, Loss::quoted(words)),
            }
        }
        loop {
            let tried = open.len();
            let mut still = Vec::new();
            for (id, words) in open {
                match self.copy(&mut wire, &copies[&id], words).await? {
                    Ok(()) => tracing::debug!("{} was loaded after others", self.items[&id].entry),
                    Err((words, loss)) => still.push((id, words, loss)),
                }
            }
            let over = still.len() == tried || !still.iter().any(|(id, ..)| minds(id));
            if over {
                for (id, _, loss) in still {
                    self.lose(id, loss);
                }
                break;
            }
            open = still.into_iter().map(|(id, words, _)| (id, words)).collect();
        }
        wire.close().await;
        Ok(())
    }

    /// The inner error is about the rows: from the server or from the backup.
    async fn copy(
        &self,
        wire: &mut Wire,
        copy: &BlockCopy,
        words: String,
    ) -> Result<std::result::Result<(), (String, Loss)>> {
        rows::execute(wire, "BEGIN").await?;
        let loaded = rows::load(self.job, self.backup, wire, copy);
        let unloaded = match self.job.stop.or_stop(async { Ok(loaded.await) }).await? {
            Ok(_) => match wire.execute(b"COMMIT").await {
                Ok(()) => return Ok(Ok(())),
                Err(refusal) => rows::Unloaded::refused("the rows could not be committed", refusal),
            },
            Err(unloaded) => unloaded,
        };
        let rows::Unloaded { state, error } = unloaded;
        if state.is_none() && !is_about_rows(&error) {
            return Err(error);
        }
        rows::execute(wire, "ROLLBACK").await?;
        let loss = Loss {
            code: error.code(),
            state: state.map(|state| state.code().to_owned()),
            message: error.message(),
            rows: None,
        };
        Ok(Err((words, loss)))
    }
}

/// Whether a failure is about the loaded rows, and not about the store, the server or pgstow.
fn is_about_rows(error: &Error) -> bool {
    matches!(error.code(), Code::Integrity | Code::RestoreErr | Code::Permission)
}

/// Records by entry what was refused; returns the complaints that belong to no entry.
fn heed(load: &Load, end: RestoreEnd, refused: &mut BTreeMap<i64, String>) -> Vec<Complaint> {
    let mut stray = Vec::new();
    for complaint in end.refused {
        match complaint
            .entry
            .filter(|id| !complaint.is_of_owner && load.list.contains(id))
        {
            Some(id) => {
                refused.entry(id).or_insert(complaint.words);
            }
            None => stray.push(complaint),
        }
    }
    stray
}

/// Splits a load so that each of these blocks has one of its own, which is loaded as a whole or not at all.
fn apart(load: Load, doubtful: &HashSet<i64>, backup: BackupRows<'_>) -> Vec<Load> {
    let is_doubtful = |load: &Load| load.list.iter().any(|id| doubtful.contains(id));
    if load.blocks.len() == 1 || !is_doubtful(&load) {
        return vec![load];
    }
    let mut loads = Vec::new();
    let mut open: Option<Load> = None;
    for one in singles(&load, backup) {
        if is_doubtful(&one) {
            loads.extend(open.take());
            loads.push(one);
            continue;
        }
        match &mut open {
            Some(load) => {
                load.stored_bytes += one.stored_bytes;
                load.blocks.extend(one.blocks);
                load.list.extend(one.list);
            }
            None => open = Some(one),
        }
    }
    loads.extend(open);
    loads
}

/// Splits a load into single blocks; large objects come with the entries that make them.
fn singles(load: &Load, backup: BackupRows<'_>) -> Vec<Load> {
    let mut blocks = load.blocks.iter().peekable();
    let mut list = Vec::new();
    let mut loads = Vec::new();
    for id in &load.list {
        list.push(*id);
        if let Some(index) = blocks.next_if(|index| backup.stored.head.data[**index].dump_id == *id) {
            loads.push(Load {
                blocks: vec![*index],
                list: std::mem::take(&mut list),
                stored_bytes: backup.stored.places[*index].length,
                ..Load::default()
            });
        }
    }
    loads
}
