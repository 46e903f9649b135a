//! Checks whether the target holds the rows of the backup: every table is read again at the end and compared with the
//! digest in the manifest. If the rows come in another order than in the archive, sums are compared instead, and the
//! backup's rows are read once more for that. Large objects are compared one by one.

mod objects;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio_postgres::error::SqlState;

use super::Job;
use super::context::{ArchiveRun, RestoreRun};
use super::plan::LeftOut;
use super::ready::{Target, some_of};
use super::rows::{self, BackupRows, BlockCopy, RowDigests};
use crate::error::{Code, Error, Result};
use crate::format::archive::{BlockContent, Loading};
use crate::format::script::Sum;
use crate::postgres::{Refusal, Session, Wire, not_locked};
use crate::repository::manifest::Manifest;
use crate::units::count;

/// How long the server may take to count the changes of a session that is idle now: 10 s, from PostgreSQL 15 on.
const HANDED_IN: Duration = Duration::from_secs(11);

/// The result.
#[derive(Debug, Default)]
pub(super) struct ComparedRows {
    /// How many tables hold the backup's rows.
    pub equal: usize,
    /// The tables that hold other rows, by block.
    pub different: BTreeMap<usize, String>,
    /// Whether the large objects differ too: they are then under the first of their blocks.
    objects_differ: bool,
    /// Whether the large objects are among those that could not be compared.
    objects_unproved: bool,
    pub not_proved: Vec<LeftOut>,
}

enum Verdict {
    Equal,
    Different(String),
    NotProved(String),
}

/// Compares all tables that were loaded, except the entries in `lost`, as many at once as there are jobs; then the
/// large objects.
pub(super) async fn run(steps: ArchiveRun<'_>, manifest: &Manifest, lost: &HashSet<i64>) -> Result<ComparedRows> {
    let ArchiveRun { run, archive, loader } = steps;
    let RestoreRun { job, target, .. } = run;
    let backup = archive.backup(loader.store);
    let is_lost = |copy: &BlockCopy| lost.contains(&backup.stored.head.data[copy.index].dump_id);
    // All blocks whose rows go through one root are compared together.
    let mut places: BTreeMap<Vec<u8>, Vec<BlockCopy>> = BTreeMap::new();
    let mut comparison = ComparedRows::default();
    for copy in rows::copies(backup)? {
        places.entry(copy.place.clone()).or_default().push(copy);
    }
    places.retain(|_, copies| match copies.iter().filter(|copy| is_lost(copy)).count() {
        0 => true,
        all if all == copies.len() => false,
        _ => {
            let others = copies.iter().filter(|copy| !is_lost(copy));
            comparison.not_proved.extend(others.map(|copy| LeftOut {
                what: backup.stored.name(copy.index),
                why: "other rows that go through its root were lost".into(),
            }));
            false
        }
    });
    let id = |index: &usize| backup.stored.head.data[*index].dump_id;
    let mut objects: Vec<usize> = backup
        .plan
        .blocks()
        .filter(|index| !matches!(backup.stored.promises[*index].content, BlockContent::Table { .. }))
        .filter(|index| !lost.contains(&id(index)))
        .collect();
    objects.sort_unstable();
    let workers = job.settings.jobs.clamp(1, places.len().max(1));
    let at = Comparing {
        job,
        backup,
        target,
        source_major: manifest.server.version_num / 10_000,
        beside: !archive.around.ties.is_empty(),
        open: Mutex::new(places.into_values().collect()),
        found: Mutex::new(comparison),
        has_waited: OnceCell::new(),
    };
    futures::future::try_join_all((0..workers).map(|_| at.work())).await?;
    at.objects(&objects).await?;
    Ok(at.found.into_inner().unwrap_or_else(PoisonError::into_inner))
}

struct Comparing<'a> {
    job: &'a Job<'a>,
    backup: BackupRows<'a>,
    target: &'a Target,
    source_major: u32,
    /// Partitions that the backup does not have were attached again.
    beside: bool,
    open: Mutex<VecDeque<Vec<BlockCopy>>>,
    found: Mutex<ComparedRows>,
    /// Waits once until the server has counted the changes of other sessions.
    has_waited: OnceCell<()>,
}

impl Comparing<'_> {
    async fn work(&self) -> Result<()> {
        let mut wire = None;
        loop {
            let next = self.open.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(copies) = next else { break };
            let wire = match &mut wire {
                Some(wire) => wire,
                none => none.insert(self.wire().await?),
            };
            let verdict = self.compare(wire, &copies).await?;
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            let name = |copy: &BlockCopy| self.backup.stored.name(copy.index);
            match verdict {
                Verdict::Equal => found.equal += copies.len(),
                Verdict::Different(how) => {
                    found
                        .different
                        .extend(copies.iter().map(|copy| (copy.index, how.clone())));
                }
                Verdict::NotProved(why) => found.not_proved.extend(copies.iter().map(|copy| LeftOut {
                    what: name(copy),
                    why: why.clone(),
                })),
            }
        }
        if let Some(wire) = wire {
            wire.close().await;
        }
        Ok(())
    }

    async fn objects(&self, blocks: &[usize]) -> Result<()> {
        let [first, ..] = blocks else { return Ok(()) };
        let name = self.backup.stored.name(*first);
        self.job.observer.table(&name);
        let mut wire = self.wire().await?;
        let verdict = objects::compare(self.job, self.backup, &mut wire, blocks).await?;
        wire.close().await;
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        match verdict {
            Verdict::Equal => {}
            Verdict::Different(how) => {
                found.objects_differ = true;
                found.different.insert(*first, how);
            }
            Verdict::NotProved(why) => {
                found.objects_unproved = true;
                found.not_proved.push(LeftOut { what: name, why });
            }
        }
        Ok(())
    }

    async fn wire(&self) -> Result<Wire> {
        let session = Session::connect(&self.target.info, &self.job.settings.postgres).await?;
        let mut wire = session.open_wire().await?;
        let wait = self.job.settings.postgres.lock_wait;
        rows::settle(&mut wire, &rows::encoding(self.backup.items), wait).await?;
        Ok(wire)
    }

    async fn compare(&self, wire: &mut Wire, copies: &[BlockCopy]) -> Result<Verdict> {
        let stored = self.backup.stored;
        let [first, ..] = copies else { return Ok(Verdict::Equal) };
        self.job.observer.table(&stored.name(first.index));
        let seen = match rows::read_again(wire, first, self.job.settings.postgres.stall).await {
            Ok(seen) => seen,
            Err(refusal) if refusal.is(&SqlState::LOCK_NOT_AVAILABLE) => return Ok(self.locked(first, copies).await),
            Err(refusal) => return unread(refusal),
        };
        if copies.len() == 1 && stored.promise(first.index) == Some(&seen.digest) {
            return Ok(Verdict::Equal);
        }
        let rows = |content: &BlockContent| match content {
            BlockContent::Table { rows } => *rows,
            BlockContent::LargeObjects { .. } => 0,
        };
        let ours: u64 = copies.iter().filter_map(|copy| stored.rows(copy.index)).sum();
        let there = rows(&seen.digest.content);
        if there == ours && self.is_sum(copies, &seen).await? {
            return Ok(Verdict::Equal);
        }
        if self.is_of_extension(copies) {
            let why = "it is an extension's, which may put rows of its own into it";
            return Ok(Verdict::NotProved(why.into()));
        }
        if copies.len() > 1 && self.beside {
            let why = "partitions that the backup does not have were attached again, and hold rows too";
            return Ok(Verdict::NotProved(why.into()));
        }
        if self.others_have_written(wire, first, ours).await {
            let why = "other sessions have written to it since it was loaded";
            return Ok(Verdict::NotProved(why.into()));
        }
        if there != ours {
            return Ok(Verdict::Different(format!(
                "holds {}, the backup {ours}",
                count(there, "row")
            )));
        }
        let major = self.target.session.server().major;
        if major != self.source_major {
            return Ok(Verdict::NotProved(format!(
                "it holds as many rows as the backup, but PostgreSQL {} printed them differently from {major}",
                self.source_major
            )));
        }
        Ok(Verdict::Different(
            "holds as many rows as the backup, and other ones".into(),
        ))
    }

    /// Other sessions hold it and do not release it in time.
    async fn locked(&self, first: &BlockCopy, copies: &[BlockCopy]) -> Verdict {
        let stored = self.backup.stored;
        let own = copies.iter().filter_map(|copy| stored.tables[copy.index].clone());
        let mut names: Vec<(String, String)> = own.collect();
        let read = Loading {
            table: first.place.strip_prefix(b"ONLY ").unwrap_or(&first.place),
            columns: &[],
        };
        let path = read.path();
        let mut path = path.iter().map(|name| stored.head.text(name));
        names.extend(path.next().zip(path.next()));
        let holders = self.target.session.holders(&names).await;
        let wait = self.job.settings.postgres.lock_wait;
        Verdict::NotProved(not_locked(wait, &stored.name(first.index), &holders).message())
    }

    async fn is_sum(&self, copies: &[BlockCopy], seen: &RowDigests) -> Result<bool> {
        let mut sum = Sum::default();
        for copy in copies {
            sum.merge(rows::sum(self.job, self.backup, copy).await?);
        }
        Ok(sum == seen.sum)
    }

    fn is_of_extension(&self, copies: &[BlockCopy]) -> bool {
        let of_extensions = &self.backup.plan.order.of_extensions;
        let id = |copy: &BlockCopy| self.backup.stored.head.data[copy.index].dump_id;
        copies.iter().any(|copy| of_extensions.contains(&id(copy)))
    }

    /// Uses the server's statistics of a table that this run has made. A query would be planned over the table, and
    /// planning evaluates the expressions in its indexes.
    async fn others_have_written(&self, wire: &mut Wire, copy: &BlockCopy, ours: u64) -> bool {
        let Some(table) = copy.place.strip_prefix(b"ONLY ") else {
            return false;
        };
        if has_more_writes(wire, table, ours).await {
            return true;
        }
        if !has_company(wire).await {
            return false;
        }
        // Other tasks that need this meanwhile wait for the same.
        self.has_waited.get_or_init(|| tokio::time::sleep(HANDED_IN)).await;
        has_more_writes(wire, table, ours).await
    }
}

/// Whether the database has sessions of others that may not have reported their statistics yet. A session that ends
/// reports them.
async fn has_company(wire: &mut Wire) -> bool {
    let question = b"SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity \
        WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database() \
        AND backend_type OPERATOR(pg_catalog.=) 'client backend' \
        AND application_name OPERATOR(pg_catalog.<>) pg_catalog.current_setting('application_name')";
    let counted = wire.query(question).await.unwrap_or_default();
    counted.first().and_then(|row| row.number::<u64>(0)).unwrap_or_default() > 0
}

/// Whether more happened to a table than that these rows were loaded. Rows that were refused and tried again are
/// counted as inserted too, but not as live.
async fn has_more_writes(wire: &mut Wire, table: &[u8], rows: u64) -> bool {
    let question = [
        b"SELECT pg_catalog.pg_stat_get_tuples_inserted(t), pg_catalog.pg_stat_get_tuples_updated(t), \
          pg_catalog.pg_stat_get_tuples_deleted(t), pg_catalog.pg_stat_get_live_tuples(t) FROM (VALUES (",
        &*rows::regclass(table),
        b"::pg_catalog.oid)) AS counted (t)",
    ]
    .concat();
    // Statistics that cannot be read are not judged.
    let counted = wire.query(&question).await.unwrap_or_default();
    let number = |column| {
        let number: Option<u64> = counted.first().and_then(|row| row.number(column));
        number.unwrap_or_default()
    };
    (number(0) > rows && number(3) > rows) || number(1) + number(2) > 0
}

/// The verdict on a table that cannot be read again.
fn unread(refusal: Refusal) -> Result<Verdict> {
    let Refusal::Server { state, error, .. } = refusal else {
        return Err(refusal.into_error());
    };
    match state {
        SqlState::UNDEFINED_TABLE | SqlState::UNDEFINED_COLUMN | SqlState::INVALID_SCHEMA_NAME => Ok(
            Verdict::Different(format!("is not there as it is in the backup: {}", error.message())),
        ),
        SqlState::INSUFFICIENT_PRIVILEGE => Ok(Verdict::NotProved(format!(
            "the role that restores may not read it: {}",
            error.message()
        ))),
        state if ["08", "53", "57"].iter().any(|class| state.code().starts_with(class)) => Err(error),
        _ => Ok(Verdict::NotProved(format!(
            "it could not be read again: {}",
            error.message()
        ))),
    }
}

impl ComparedRows {
    /// An error that names the differences; `None` if there are none.
    pub fn error(&self, name: impl Fn(usize) -> String) -> Option<Error> {
        if self.different.is_empty() {
            return None;
        }
        let named = self
            .different
            .iter()
            .map(|(index, how)| format!("{} ({how})", name(*index)));
        let named: Vec<String> = named.collect();
        let tables = self.different.len() - usize::from(self.objects_differ);
        let unproved = self.not_proved.len() - usize::from(self.objects_unproved);
        let all = tables + self.equal + unproved;
        let those = format!(
            "{tables} of {} {} not hold the rows of the backup",
            count(all, "table"),
            if tables == 1 { "does" } else { "do" },
        );
        let said = match (tables, self.objects_differ) {
            (0, _) => "the target does not hold the large objects of the backup".to_owned(),
            (_, false) => those,
            (_, true) => format!("{those}, and the large objects are not the backup's"),
        };
        let what = format!("{said}: {}", some_of(&named, named.len() as u64));
        Some(Error::new(Code::RestoreErr, what).hint(
            "look for what changes rows there: a type, domain or rule that the target had before, or sessions that \
             write to it; the backup's bytes were right",
        ))
    }
}
