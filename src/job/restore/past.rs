//! A restore that continues after failures: each step is stock pg_restore, which continues after errors by itself.
//! Its messages say what failed. They have no SQLSTATE, so the server is asked for it again.

mod data;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::failed::{Loss, Losses};
use super::loading::{Loader, alive};
use super::plan::is_relation;
use super::prepared::PreparedArchive;
use super::ready::Target;
use super::rows::{self, BackupRows};
use super::{Job, state};
use crate::error::Result;
use crate::format::archive::Item;
use crate::postgres::{Complaint, Refusal, RestoreEnd, Session, Wire};

/// How long asking for the server's codes may take in all, and each single question.
const ASKING: Duration = Duration::from_secs(60);
const QUESTION: &str = "10s";
/// Kinds of entries that are made on one table alone, so that others can be made at the same time.
const BY_TABLE: [&str; 2] = ["CONSTRAINT", "INDEX"];

pub(super) struct Past<'a> {
    job: &'a Job<'a>,
    archive: &'a PreparedArchive,
    backup: BackupRows<'a>,
    target: &'a Target,
    loader: &'a Loader<'a>,
    items: HashMap<i64, &'a Item>,
    pub losses: Losses,
    /// Numbers lists of entries and loads, so that each has a name of its own.
    number: usize,
}

impl<'a> Past<'a> {
    pub fn load_by(&mut self, loader: &'a Loader<'a>) {
        self.loader = loader;
    }

    pub fn new(job: &'a Job<'a>, archive: &'a PreparedArchive, target: &'a Target, loader: &'a Loader<'a>) -> Past<'a> {
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

    /// Makes definitions, or what comes after the data, one after the other.
    pub async fn step(&mut self, name: &str, list: &[i64]) -> Result<()> {
        let end = self.loader.finish_past(name, list).await?;
        alive(&end)?;
        self.take(list, end);
        Ok(())
    }

    /// Makes indexes and constraints, several at once, each process with tables of its own; then the rest. One
    /// pg_restore with several jobs would mix its messages.
    pub async fn finish(&mut self, list: &[i64], jobs: usize) -> Result<()> {
        if jobs == 1 {
            return self.step("after", list).await;
        }
        let (lists, rest) = self.divide(list, jobs);
        let loader = self.loader;
        let made = lists.iter().enumerate().map(|(number, list)| async move {
            let end = loader.finish_past(&format!("after-{number}"), list).await?;
            alive(&end).map(|()| end)
        });
        let ends = futures::future::try_join_all(made).await?;
        for (list, end) in lists.iter().zip(ends) {
            self.take(list, end);
        }
        self.step("after", &rest).await
    }

    /// Fills materialized views. One may wait for another.
    pub async fn refresh(&mut self, list: &[i64]) -> Result<()> {
        let mut open = list.to_vec();
        for round in 0.. {
            let end = self.loader.finish_past(&format!("refreshes-{round}"), &open).await?;
            alive(&end)?;
            let failed: HashSet<i64> = end.refused.iter().filter_map(|one| one.entry).collect();
            let still: Vec<i64> = open.iter().copied().filter(|id| failed.contains(id)).collect();
            if still.is_empty() || still.len() == open.len() {
                self.take(&open, end);
                break;
            }
            open = still;
        }
        Ok(())
    }

    /// As many lists as there are jobs, with about the same work each; and the entries that do not belong to one
    /// table alone.
    fn divide(&self, list: &[i64], jobs: usize) -> (Vec<Vec<i64>>, Vec<i64>) {
        let stored = self.backup.stored;
        let mut bytes: HashMap<i64, u64> = HashMap::new();
        for (entry, promise) in stored.head.data.iter().zip(&stored.promises) {
            if let Some(table) = self.items.get(&entry.dump_id).and_then(|item| self.table_of(item)) {
                bytes.insert(table, promise.bytes);
            }
        }
        let mut of_tables: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        let mut rest = Vec::new();
        for id in list {
            let item = self
                .items
                .get(id)
                .filter(|item| BY_TABLE.contains(&item.entry.desc.as_str()));
            match item.and_then(|item| self.table_of(item)) {
                Some(table) => of_tables.entry(table).or_default().push(*id),
                None => rest.push(*id),
            }
        }
        let work = |(table, made): &(i64, Vec<i64>)| bytes.get(table).copied().unwrap_or_default() * made.len() as u64;
        let mut of_tables: Vec<(i64, Vec<i64>)> = of_tables.into_iter().collect();
        of_tables.sort_by_key(|one| Reverse(work(one)));
        let mut lists: Vec<(u64, Vec<i64>)> = vec![Default::default(); jobs];
        for one in of_tables {
            if let Some(least) = lists.iter_mut().min_by_key(|(work, _)| *work) {
                least.0 += work(&one) + 1;
                least.1.extend(one.1);
            }
        }
        (lists.into_iter().map(|(_, list)| list).collect(), rest)
    }

    fn table_of(&self, item: &Item) -> Option<i64> {
        let mut needed = item.details.dependencies.iter().copied();
        needed.find(|id| self.items.get(id).is_some_and(|item| is_relation(item)))
    }

    fn take(&mut self, list: &[i64], end: RestoreEnd) {
        for complaint in end.refused {
            match complaint.entry.filter(|id| list.contains(id)) {
                Some(id) if !complaint.is_of_owner => self.losses.note(id, Loss::quoted(told(&complaint))),
                _ => self.stray(&complaint),
            }
        }
    }

    /// Counts a failure even if its entry is not known.
    fn stray(&mut self, complaint: &Complaint) {
        if let (Some(id), true) = (complaint.entry, complaint.is_of_owner) {
            self.losses.note_owner(id, told(complaint));
            return;
        }
        let text = complaint.text();
        tracing::warn!("pg_restore: {text}");
        self.losses.note_stray(text);
    }

    async fn wire(&self) -> Result<Wire> {
        let mut wire = self.session().await?.open_loading_wire().await?;
        let wait = self.job.settings.postgres.lock_wait;
        rows::settle(&mut wire, &rows::encoding(self.backup.items), wait).await?;
        rows::execute(&mut wire, "SET check_function_bodies = off; SET xmloption = content").await?;
        Ok(wire)
    }

    /// Asks for the server's codes for the objects that it refused: sends each statement again, in a transaction that
    /// is rolled back. An answer counts only if the server says the same as before. The failures are known without
    /// the codes, so codes that cannot be found are left out.
    pub async fn ask_for_codes(&mut self) {
        let mut known = HashMap::new();
        if let Err(error) = self.ask(&mut known).await {
            tracing::warn!(
                "the server's codes for what failed are not all known: {}",
                error.message()
            );
        }
        for (id, loss) in self.losses.without_state() {
            if let Some((state, said)) = known.remove(&id)
                && loss.message.contains(&said)
            {
                loss.state = Some(state);
            }
        }
    }

    /// Codes and messages by dump ids, as they arrive.
    async fn ask(&mut self, known: &mut HashMap<i64, (String, String)>) -> Result<()> {
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
                // A statement may have changed its session in any way, so the next ones use another session.
                Err(()) => drop(open),
            }
        }
        if let Some(wire) = wire {
            wire.close().await;
        }
        Ok(())
    }

    /// The state in which a failure while rows were loaded left the target.
    pub async fn survey(&self) -> state::Milestone {
        let (stored, plan) = (self.backup.stored, self.backup.plan);
        state::survey(stored, plan, &[], &self.target.info, &self.job.settings.postgres).await
    }
}

/// The server's message.
fn told(complaint: &Complaint) -> &str {
    let words = &complaint.words;
    words.strip_prefix("could not execute query: ").unwrap_or(words)
}

/// The server's code and message for a statement that it refuses. An error if the session is lost.
async fn refusal(wire: &mut Wire, statement: &[u8]) -> std::result::Result<Option<(String, String)>, ()> {
    let begin = format!("BEGIN; SET LOCAL statement_timeout = '{QUESTION}'; SET LOCAL lock_timeout = '{QUESTION}'");
    wire.execute(begin.as_bytes()).await.map_err(drop)?;
    let answer = match wire.execute(statement).await {
        Ok(()) => None,
        Err(Refusal::Server { state, error, .. }) => {
            let words = error.message();
            let said = words.split_once("the server says: ").map_or(&*words, |(_, said)| said);
            // The details follow in brackets, with values that are not in pg_restore's messages here.
            let said = said.split(" (").next().unwrap_or(said);
            Some((state.code().to_owned(), said.to_owned()))
        }
        Err(Refusal::Broken(_)) => return Err(()),
    };
    wire.execute(b"ROLLBACK").await.map_err(drop)?;
    Ok(answer)
}
