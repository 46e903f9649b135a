//! `changes`: the transactions in the increments, to find the moment to which something must be restored.
//!
//! Only what can hold an answer is read: the manifests first; then the indexes of the increments of the time that was
//! asked for, the newest first; then the frames that name the tables. Commit times need not have the order of the
//! commits, so nothing is searched by time.

mod counting;
mod report;
mod request;
mod tables;
mod transaction;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use crate::error::{Code, Error, Result};
use crate::format::changes::Selection;
use crate::repository::backup_id::BackupId;
use crate::repository::catalog::{
    Counting, Demand, Overview, histories, nothing_found, overviews, reachable_folders, read_genuine,
};
use crate::repository::chain::{History, Link, Run};
use crate::repository::manifest::{Manifest, role};
use crate::repository::seen_catalog::SeenCatalog;
use crate::repository::signature::Trust;
use crate::repository::stored_archive::read_file;
use crate::repository::stored_changes::StoredChanges;
use crate::run::progress::Observer;
use crate::run::stop::Stop;
use crate::run::threads::apart;
use crate::store::Store;
use counting::Counted;
use tables::Wanted;

pub use report::{ChangesReport, ChangesStatus};
pub use request::ChangesRequest;
pub use transaction::{ChangedTable, TransactionChanges};

/// Everything that the command needs.
pub struct Job<'a> {
    pub stores: &'a [Arc<dyn Store>],
    /// The database, if the request or the settings name one.
    pub database: Option<&'a str>,
    pub trust: &'a Trust,
    pub now: Timestamp,
    pub stop: &'a Stop,
    pub observer: &'a Arc<dyn Observer>,
}

/// Tells the newest transactions that match, in the order of the commits. If a frame that must be read is damaged, the
/// error is `INTEGRITY`.
pub async fn run(job: &Job<'_>, request: &ChangesRequest) -> Result<ChangesReport> {
    let found = job.stop.or_stop(Found::first(job)).await?;
    let mut report = ChangesReport::new(request, &found.database, found.store.url());
    report.warnings.extend(found.warnings.iter().cloned());
    report.span(&found.history, request);
    let newest = job.stop.or_stop(found.manifest(job, &found.newest()?.id)).await?;
    let mut wanted = Wanted::new(&request.tables);
    report.warnings.extend(wanted.take_manifest(&newest));
    let search = ChangesSearch {
        job,
        request,
        found: &found,
        newest: &newest,
    };
    for link in found.selected(request) {
        if report.transactions.len() >= request.limit {
            report.earlier_left_out = true;
            break;
        }
        let most = request.limit.saturating_sub(report.transactions.len());
        let counted = search.read(link, &mut wanted, most);
        report.prepend(&link.id, job.stop.or_stop(counted).await?);
    }
    wanted.all_known()?;
    Ok(report)
}

/// A search in the increments of one database.
struct ChangesSearch<'a> {
    job: &'a Job<'a>,
    request: &'a ChangesRequest,
    found: &'a Found,
    /// The newest increment's.
    newest: &'a Manifest,
}

impl ChangesSearch<'_> {
    /// The matching transactions of one increment, at most so many.
    async fn read(&self, link: &Link, wanted: &mut Wanted, most: usize) -> Result<Counted> {
        let Self {
            job,
            request,
            found,
            newest,
        } = *self;
        job.observer.phase(&format!("reading the changes of {}", link.id));
        let own;
        let manifest = match newest.id == link.id {
            true => newest,
            false => {
                own = found.manifest(job, &link.id).await?;
                &own
            }
        };
        let stored = StoredChanges::open(&found.store, manifest).await?;
        if wanted.lacks_tables() {
            take_partitions(job, found, manifest, wanted).await?;
        }
        let relids = wanted.take_index(&stored.index);
        let nothing = relids.as_ref().is_some_and(BTreeSet::is_empty);
        let selection = Selection {
            relids,
            since: request.since.as_ref().map(|since| since.time),
            until: request.until.as_ref().map(|until| until.time),
        };
        let index_bytes = stored.file.bytes - stored.index.offset;
        if nothing {
            return Ok(Counted::nothing(index_bytes));
        }
        let frames = stored.index.frames(&selection).into_iter();
        let bytes: u64 = frames.map(|frame| stored.index.frames[frame].length).sum();
        let relids = selection.relids.clone();
        let reading = stored.read(selection)?;
        let counted = apart("changes", move || counting::count(reading, relids.as_ref(), most)).await??;
        Ok(counted.with_bytes(index_bytes + bytes))
    }
}

/// Takes the partitions of partitioned tables at the beginning and at the end of an increment: they may be others now.
async fn take_partitions(job: &Job<'_>, found: &Found, manifest: &Manifest, wanted: &mut Wanted) -> Result<()> {
    let before = manifest
        .increment
        .as_ref()
        .and_then(|increment| increment.stream.predecessor.as_ref());
    let before = match before {
        Some(id) => match found.manifest(job, id).await {
            Ok(manifest) => Some(manifest),
            // It has expired.
            Err(error) if error.code() == Code::NotFound => None,
            Err(error) => return Err(error),
        },
        None => None,
    };
    for manifest in before.iter().chain([manifest]) {
        if let Some(file) = manifest.files.get(role::CATALOG) {
            let bytes = read_file(found.store.as_ref(), &manifest.id, file).await?;
            wanted.take_catalog(&SeenCatalog::parse(&bytes, &manifest.id)?);
        }
    }
    Ok(())
}

/// The store and the database whose increments are read.
struct Found {
    store: Arc<dyn Store>,
    database: String,
    history: History,
    /// Why stores before this one were not used.
    warnings: Vec<String>,
}

impl Found {
    /// The first store with increments of the database. If none has any, the error is the primary's.
    async fn first(job: &Job<'_>) -> Result<Self> {
        let mut failed: Vec<Error> = Vec::new();
        for store in job.stores {
            match Self::there(job, store).await {
                Ok((database, history)) => {
                    let mut warnings: Vec<String> = failed.iter().map(Error::message).collect();
                    if !warnings.is_empty() {
                        warnings.push(format!("the increments in {} are used instead", store.url()));
                    }
                    return Ok(Self {
                        store: Arc::clone(store),
                        database,
                        history,
                        warnings,
                    });
                }
                Err(error) => failed.push(error),
            }
        }
        let mut failed = failed.into_iter();
        let first = failed.next().unwrap_or_else(|| Error::config("no store is set"));
        let code = first.code();
        Err(failed.filter(|error| error.code() != code).fold(first, Error::also))
    }

    async fn there(job: &Job<'_>, store: &Arc<dyn Store>) -> Result<(String, History)> {
        let listed = reachable_folders(store.as_ref(), job.database).await?;
        let seen: Vec<Overview> = overviews(store.as_ref(), listed, job.trust).await?;
        if seen.is_empty() {
            return Err(nothing_found(store.as_ref(), job.database, None).await);
        }
        let mut histories = histories(&seen, Counting::Good, job.now);
        histories.retain(|_, history| history.newest().is_some());
        let names: Vec<&str> = histories.keys().map(String::as_str).collect();
        match names.len() {
            0 => Err(Error::new(Code::NotFound, format!("there are no increments in {}", store.url())).hint(
                "`pgstow incremental start` begins to record changes, `pgstow backup --kind incremental` stores them",
            )),
            1 => histories.pop_first().ok_or_else(|| Error::internal("a history was lost")),
            _ => Err(Error::config(format!(
                "{} holds increments of several databases: {}",
                store.url(),
                names.join(", ")
            ))
            .hint("name one of them: --database NAME")),
        }
    }

    fn newest(&self) -> Result<&Link> {
        let newest = self.history.newest().map(Run::last);
        newest.ok_or_else(|| Error::internal("a history has no increment"))
    }

    /// The increments that can hold the time that was asked for, newest first.
    fn selected(&self, request: &ChangesRequest) -> Vec<&Link> {
        let links = self.history.runs().iter().flat_map(Run::links);
        let in_time = |link: &&Link| {
            let index = &link.stream.index;
            let times = index.earliest.zip(index.latest);
            times.is_some_and(|(earliest, latest)| {
                request.since.as_ref().is_none_or(|since| since.time <= latest)
                    && request.until.as_ref().is_none_or(|until| earliest <= until.time)
            })
        };
        let mut links: Vec<&Link> = links.filter(in_time).collect();
        links.reverse();
        links
    }

    async fn manifest(&self, job: &Job<'_>, id: &BackupId) -> Result<Manifest> {
        let demand = Demand {
            trust: job.trust,
            manifest: None,
            now: job.now,
            altered: false,
        };
        let read = read_genuine(self.store.as_ref(), id, &demand).await?;
        read.require(id).map(|genuine| genuine.manifest)
    }
}
