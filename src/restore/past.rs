//! A restore that goes on past what fails, as far as it comes: each step is stock pg_restore's own way on past errors.
//! What it could not do is learnt from its words; the server's codes, which these do not hold, from the server itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use tokio_util::sync::CancellationToken;

use super::failed::{Loss, Losses};
use super::loading::Loader;
use super::plan::{Load, is_given_away};
use super::prepared::Archive;
use super::queue::Queue;
use super::ready::Target;
use super::rows::{self, Backup, Copy};
use super::tables::named;
use super::{Job, state};
use crate::archive::{BlockContent, Item};
use crate::error::{Code, Error, Result};
use crate::postgres::{Complaint, Named, Refusal, RestoreEnd, Session, Wire};

/// How long asking for the server's codes may take in all, and each question of it.
const ASKING: Duration = Duration::from_secs(60);
const QUESTION: &str = "10s";
/// More stored bytes than this are not sent once more only to learn a code.
const SENT_AGAIN: u64 = 256 << 20;

pub(super) struct Past<'a> {
    job: &'a Job<'a>,
    archive: &'a Archive,
    backup: Backup<'a>,
    target: &'a Target,
    loader: &'a Loader<'a>,
    items: HashMap<i64, &'a Item>,
    pub losses: Losses,
    /// Lists of entries, and loads: each has a name of its own.
    number: usize,
}

impl<'a> Past<'a> {
    pub fn new(job: &'a Job<'a>, archive: &'a Archive, target: &'a Target, loader: &'a Loader<'a>) -> Past<'a> {
        let backup = archive.backup(loader.store);
        Past {
            job,
            archive,
            backup,
            target,
            loader,
            items: archive.items.iter().map(|item| (item.entry.dump_id, item)).collect(),
            losses: Losses::default(),
            number: archive.plan.loads.len(),
        }
    }

    async fn session(&self) -> Result<Session> {
        Session::connect(&self.target.info, &self.job.settings.postgres).await
    }

    /// Definitions, or what comes after the data.
    pub async fn step(&mut self, name: &str, list: &[i64], jobs: usize) -> Result<()> {
        let end = self.loader.finish_past(name, list, jobs).await?;
        alive(&end)?;
        if jobs == 1 || end.troubled.is_empty() {
            self.take(list, end);
            return Ok(());
        }
        // Of several at once, one may have been in another's way; and their words may stand among each other's.
        let again: Vec<i64> = list.iter().copied().filter(|id| end.troubled.contains(id)).collect();
        let mut first: HashMap<i64, String> = HashMap::new();
        for complaint in end.refused {
            if let Some(id) = complaint.entry {
                first.entry(id).or_insert(complaint.words);
            }
        }
        let mut end = self.loader.finish_past(&format!("{name}-again"), &again, 1).await?;
        alive(&end)?;
        for complaint in &mut end.refused {
            // What has an owner may have been made, and not given away: then it is there by now.
            if let Some(id) = complaint.entry
                && self.items.get(&id).is_some_and(|item| is_given_away(item))
                && let Some(words) = first.remove(&id)
            {
                complaint.words = words;
            }
        }
        self.take(&again, end);
        Ok(())
    }

    fn take(&mut self, list: &[i64], end: RestoreEnd) {
        for Complaint { entry, words, .. } in end.refused {
            if let Some(id) = entry.filter(|id| list.contains(id)) {
                self.losses.note(id, Loss::quoted(words));
            } else {
                tracing::warn!("pg_restore: {words}");
            }
        }
        for id in end.troubled {
            if list.contains(&id) {
                self.losses.note(id, Loss::quoted("pg_restore could not make it"));
            }
        }
    }

    /// All rows, and then where sequences stand.
    pub async fn data(&mut self) -> Result<()> {
        let plan = self.backup.plan;
        let gone = self.tables_that_are_not_there().await?;
        let mut loads = Vec::new();
        let mut positions = Vec::new();
        for load in &plan.loads {
            match load.blocks.is_empty() {
                true => positions.push(load),
                false => loads.extend(self.without(load, &gone)),
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

    /// Those of the definitions that failed, by their dump ids. One may be there and only lack its owner.
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

    /// The load but for the rows of these tables, which are lost with them.
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
            self.lose(*id, Loss::quoted("its table is not there"));
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

    /// Rows, or large objects.
    fn lose(&mut self, id: i64, loss: Loss) {
        let stored = self.backup.stored;
        let block = stored.head.data.iter().position(|entry| entry.dump_id == id);
        let rows = block.and_then(|index| match stored.promises[index].content {
            BlockContent::Table { rows } => Some(rows),
            BlockContent::LargeObjects { .. } => None,
        });
        self.losses.note(id, Loss { rows, ..loss });
    }

    /// Says which entries the server refused, and in which words.
    async fn load_all(&mut self, loads: &[Load]) -> Result<BTreeMap<i64, String>> {
        let (jobs, order) = (self.job.settings.jobs, &self.backup.plan.order);
        let mut queue = Queue::new(loads, order, jobs);
        let mut refused = BTreeMap::new();
        let mut single = Vec::new();
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
                Ok(end) => heed(&loads[ended], end, &mut refused),
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
        for (load, error) in single {
            self.one_by_one(load, error, &mut refused).await?;
        }
        Ok(refused)
    }

    /// Of a load whose pg_restore came to no end: what is not there yet, each by itself.
    async fn one_by_one(&mut self, load: &Load, error: Error, refused: &mut BTreeMap<i64, String>) -> Result<()> {
        // A server that is gone would refuse all of them.
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
            let rows = &self.backup.stored.promises[index].content;
            if *rows == (BlockContent::Table { rows: 0 }) {
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
                Ok(end) => heed(&one, end, refused),
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

    /// What was refused once more, in sessions of ours, which tell the server's code; and as often as others come in
    /// meanwhile, where these may be what was missing.
    async fn again(&mut self, refused: BTreeMap<i64, String>) -> Result<()> {
        if refused.is_empty() {
            return Ok(());
        }
        let copies = rows::copies(self.backup).unwrap_or_default();
        let copies: HashMap<i64, Copy> = copies.into_iter().map(|copy| (self.id(copy.index), copy)).collect();
        let order = &self.backup.plan.order;
        let minds = |id: &i64| order.late.contains(id) || order.behind.contains_key(id);
        let mut wire = self.wire().await?;
        let mut open: Vec<(i64, String)> = Vec::new();
        for (id, words) in refused {
            let small = |copy: &Copy| {
                let place = &self.backup.stored.places[copy.index];
                place.end - place.start <= SENT_AGAIN
            };
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
                    Ok(()) => tracing::debug!("{} came in when others were there", self.items[&id].entry),
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

    /// The inner error is the server's, or the backup's.
    async fn copy(
        &self,
        wire: &mut Wire,
        copy: &Copy,
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

    async fn wire(&self) -> Result<Wire> {
        let mut wire = self.session().await?.open_wire().await?;
        rows::settle(&mut wire, &rows::encoding(self.backup.items)).await?;
        rows::execute(&mut wire, "SET check_function_bodies = off; SET xmloption = content").await?;
        Ok(wire)
    }

    /// Learns the server's codes for what it refused to make: each statement once more, in a transaction that is
    /// rolled back. It counts where the server says what it said before.
    pub async fn ask_for_codes(&mut self) -> Result<()> {
        let until = Instant::now() + ASKING;
        let mut wire = None;
        let items = &self.items;
        let asked: Vec<i64> = {
            let unknown = self.losses.without_state();
            let made = |id: &i64| {
                items
                    .get(id)
                    .is_some_and(|item| !item.entry.has_data && !item.definition().is_empty())
            };
            unknown.map(|(id, _)| id).filter(made).collect()
        };
        let mut known = HashMap::new();
        for id in asked {
            if Instant::now() > until {
                break;
            }
            let mut open = match wire.take() {
                Some(open) => open,
                None => self.wire().await?,
            };
            let answer = self
                .job
                .stop
                .or_stop(async { Ok(refusal(&mut open, self.items[&id].definition()).await) });
            match answer.await? {
                Ok(answer) => {
                    known.extend(answer.map(|answer| (id, answer)));
                    wire = Some(open);
                }
                // Whatever this statement does to a session, others are asked in another one.
                Err(()) => drop(open),
            }
        }
        for (id, loss) in self.losses.without_state() {
            if let Some((state, said)) = known.remove(&id)
                && loss.message.contains(&said)
            {
                loss.state = Some(state);
            }
        }
        if let Some(wire) = wire {
            wire.close().await;
        }
        Ok(())
    }

    /// In what state a failure while rows were loaded left the target.
    pub async fn survey(&self) -> state::Stage {
        let (stored, plan) = (self.backup.stored, self.backup.plan);
        state::survey(stored, plan, &[], &self.target.info, &self.job.settings.postgres).await
    }
}

/// The server's code and words for a statement that it does not take; an error where the session is none any more.
async fn refusal(wire: &mut Wire, statement: &[u8]) -> std::result::Result<Option<(String, String)>, ()> {
    let begin = format!("BEGIN; SET LOCAL statement_timeout = '{QUESTION}'; SET LOCAL lock_timeout = '{QUESTION}'");
    wire.execute(begin.as_bytes()).await.map_err(drop)?;
    let answer = match wire.execute(statement).await {
        Ok(()) => None,
        Err(Refusal::Server { state, error }) => {
            let words = error.message();
            let said = words.split_once("the server says: ").map_or(&*words, |(_, said)| said);
            // Its detail follows in brackets, with values that pg_restore's words here do not have.
            let said = said.split(" (").next().unwrap_or(said);
            Some((state.code().to_owned(), said.to_owned()))
        }
        Err(Refusal::Broken(_)) => return Err(()),
    };
    wire.execute(b"ROLLBACK").await.map_err(drop)?;
    Ok(answer)
}

/// Whether a pg_restore that went on past errors had a server all the while. Its library says it in English.
fn alive(end: &RestoreEnd) -> Result<()> {
    const GONE: [&str; 3] = [
        "no connection to the server",
        "server closed the connection unexpectedly",
        "could not receive data from server",
    ];
    let gone = end
        .refused
        .iter()
        .find(|one| GONE.iter().any(|words| one.words.contains(words)));
    match gone {
        Some(complaint) => Err(Error::new(
            Code::ConnErr,
            format!("pg_restore lost the server: {}", complaint.text()),
        )),
        None => Ok(()),
    }
}

/// Whether a failure is of what was to be loaded, and not of the store, the server or us.
fn is_about_rows(error: &Error) -> bool {
    matches!(error.code(), Code::Integrity | Code::RestoreErr | Code::Permission)
}

fn heed(load: &Load, end: RestoreEnd, refused: &mut BTreeMap<i64, String>) {
    for complaint in end.refused {
        if let Some(id) = complaint.entry.filter(|id| load.list.contains(id)) {
            refused.entry(id).or_insert(complaint.words);
        }
    }
    for id in end.troubled.into_iter().filter(|id| load.list.contains(id)) {
        refused
            .entry(id)
            .or_insert_with(|| "pg_restore could not load it".to_owned());
    }
}

/// The same, a block at a time; large objects with what makes them.
fn singles(load: &Load, backup: Backup<'_>) -> Vec<Load> {
    let mut blocks = load.blocks.iter().peekable();
    let mut list = Vec::new();
    let mut loads = Vec::new();
    for id in &load.list {
        list.push(*id);
        if let Some(index) = blocks.next_if(|index| backup.stored.head.data[**index].dump_id == *id) {
            loads.push(Load {
                blocks: vec![*index],
                list: std::mem::take(&mut list),
                ..Load::default()
            });
        }
    }
    loads
}
