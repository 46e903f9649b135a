//! `prune`: carries out the retention plan in stores without lifecycle rules. In a bucket it removes nothing, because
//! the bucket's rules do that and the writer may not delete. For a bucket without rules, `--allow-delete` removes
//! backups with a key that may delete.

mod removal;
mod report;
mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::error::{Error, ErrorReport, Result};
use crate::repository::backup_id::{BackupId, BackupKind};
use crate::repository::catalog::{
    Counting, Listed, Newest, Overview, database_folder, histories, keeps_no_tags, nothing_found, overviews,
    reachable_folders,
};
use crate::repository::chain::{History, Link};
use crate::repository::lease::{self, LeaseState};
use crate::repository::retention::{BackupState, Candidate, Decision, Stays, Terms, applying, keep_referred, plan};
use crate::repository::signature::{Flaw, SignatureState, Trust};
use crate::repository::verification::Verdict;
use crate::repository::window::{self, Need};
use crate::run::stop::{Reason, Stop};
use crate::settings::Retention;
use crate::store::{Lifecycle, Store, Unfinished};

pub use report::{Action, PruneReport, PruneStatus, Pruned, RemovalOutcome, StorePrune};
pub use request::PruneRequest;

/// What `prune` works with.
pub struct Job<'a> {
    pub stores: &'a [Arc<dyn Store>],
    pub retention: &'a Retention,
    pub trust: &'a Trust,
    pub now: Timestamp,
    pub stop: &'a Stop,
}

/// Prunes every store separately: a copy has its own backups, and its own last good one. A failure in one store or with
/// one backup is noted in the report; `prune` continues with the rest.
pub async fn run(job: &Job<'_>, request: &PruneRequest) -> Result<PruneReport> {
    let Job {
        stores,
        retention,
        trust,
        now,
        stop,
    } = *job;
    let terms = Terms {
        retention,
        verified_only: request.verified_only,
        now,
    };
    let mut report = PruneReport::new(request.dry_run);
    for store in stores {
        let surveyed = stop.or_stop(survey(&**store, stores, request.database.as_deref(), trust, now));
        let survey = match surveyed.await {
            Ok(survey) => survey,
            Err(error) if stop.reason().is_some() => return Err(report.stopped(&error)),
            Err(error) => {
                report.failed(store.url(), &error);
                continue;
            }
        };
        let mut decisions = spared(&survey, plan(&survey.candidates(), &terms), &terms);
        keep_referred(&survey.references(), &mut decisions);
        let lifecycle = store.lifecycle().filter(|_| !request.allow_delete);
        let mut part = StorePrune::of(store.url(), lifecycle.is_some());
        if let Some(lifecycle) = lifecycle {
            let newest = survey.newest.as_ref();
            let noting = async { Ok(without_rules(lifecycle, store.url(), retention, newest).await) };
            part.note = stop.or_stop(noting).await?;
        }
        part.backups = survey
            .folders
            .iter()
            .zip(&decisions)
            .map(|(folder, decision)| Pruned::planned(&folder.listed, decision))
            .collect();
        if !request.dry_run
            && lifecycle.is_none()
            && let Err(reason) = remove(&**store, &survey.folders, &decisions, (&mut part, stop)).await
        {
            report.stores.push(part);
            return Err(report.stopped(&reason.into()));
        }
        report.stores.push(part);
    }
    // If no store knows the database, its name is wrong.
    let has_none = |part: &StorePrune| part.backups.is_empty() && part.error.is_none();
    if let (Some(database), Some(first)) = (request.database.as_deref(), stores.first())
        && report.stores.iter().all(has_none)
    {
        report.fail(&nothing_found(first.as_ref(), Some(database), None).await);
    }
    Ok(report.concluded())
}

/// Removes the oldest backups first, so that they are gone if `prune` is stopped. Then the error is the reason.
async fn remove(
    store: &dyn Store,
    folders: &[Folder],
    decisions: &[Decision],
    (part, stop): (&mut StorePrune, &Stop),
) -> std::result::Result<(), Reason> {
    for at in (0..part.backups.len()).rev() {
        if !matches!(decisions[at], Decision::Remove(_)) {
            continue;
        }
        if let Some(reason) = stop.reason() {
            return Err(reason);
        }
        let done = removal::remove(store, &folders[at]).await;
        part.backups[at].outcome = Some(done.into());
    }
    Ok(())
}

/// A warning if the bucket should remove backups but may not do it.
async fn without_rules(
    lifecycle: &dyn Lifecycle,
    url: &str,
    retention: &Retention,
    newest: Option<&Newest>,
) -> Option<String> {
    let remedy = format!(
        "install them with `{}`; if the store has no such rules, prune with --allow-delete and a key that may delete",
        applying(url, retention)
    );
    if keeps_no_tags(lifecycle, newest).await {
        return Some(format!(
            "{url} keeps no object tags, so its rules cannot select backups: prune with --allow-delete and a key that \
             may delete"
        ));
    }
    match lifecycle.rules().await {
        Ok(rules) if rules.foreign.iter().any(|rule| rule.acts_for(lifecycle.prefix())) => None,
        Ok(rules) if rules.ours.is_empty() => Some(format!(
            "this bucket has no lifecycle rules of pgstow's, so nothing removes its old backups: {remedy}"
        )),
        Ok(_) => None,
        Err(error) => Some(format!(
            "the lifecycle rules of this bucket could not be read: {}; if it has none, {remedy}",
            error.message()
        )),
    }
}

/// The facts for the plan of one store, newest first.
struct Survey {
    folders: Vec<Folder>,
    newest: Option<Newest>,
    /// The chains of all databases: those of the good backups, and those of all. That a backup is found damaged must
    /// not make other backups needless.
    histories: Vec<History>,
}

/// The folder of a backup, finished or not.
struct Folder {
    listed: Listed,
    state: BackupState,
    /// The names of files in its manifest.
    named: Vec<String>,
    /// The backup that it refers to.
    refers_to: Option<BackupId>,
    /// Uploads that were never completed.
    unfinished: Vec<Unfinished>,
}

impl Survey {
    fn references(&self) -> Vec<(&BackupId, Option<&BackupId>)> {
        let folders = self.folders.iter();
        folders
            .map(|folder| (&folder.listed.id, folder.refers_to.as_ref()))
            .collect()
    }

    fn candidates(&self) -> Vec<Candidate> {
        let candidate = |folder: &Folder| Candidate {
            id: folder.listed.id.clone(),
            state: folder.state,
        };
        self.folders.iter().map(candidate).collect()
    }
}

/// Keeps what restores to moments need: every increment and base of the span, and what follows the newest full backups.
/// Of a chain only the oldest backups are removed.
fn spared(survey: &Survey, mut decisions: Vec<Decision>, terms: &Terms<'_>) -> Vec<Decision> {
    let since = terms.retention.begins(terms.now);
    let place: BTreeMap<&BackupId, usize> = (survey.folders.iter().enumerate())
        .map(|(at, folder)| (&folder.listed.id, at))
        .collect();
    let days = terms.retention.span_days();
    for history in &survey.histories {
        let never_expires = |id: &BackupId| place.get(id).is_some_and(|at| decisions[*at].never_expires());
        for (id, need) in window::needed(history, since, never_expires) {
            let Some(at) = place.get(&id) else { continue };
            if let Decision::Remove(_) = decisions[*at] {
                decisions[*at] = Decision::Keep(match need {
                    Need::Window => Stays::InWindow { days },
                    Need::Newest => Stays::FollowsNewest,
                });
            }
        }
        for run in history.runs() {
            let at = |link: &Link| place.get(&link.id).copied();
            let stays = |link: &Link| at(link).is_some_and(|at| matches!(decisions[at], Decision::Keep(_)));
            let kept = run.links().iter().position(stays).unwrap_or(run.links().len());
            for at in run.links()[kept..].iter().filter_map(at) {
                if let Decision::Remove(_) = decisions[at] {
                    decisions[at] = Decision::Keep(Stays::Joins);
                }
            }
        }
    }
    decisions
}

async fn survey(
    store: &dyn Store,
    stores: &[Arc<dyn Store>],
    database: Option<&str>,
    trust: &Trust,
    now: Timestamp,
) -> Result<Survey> {
    let listed = reachable_folders(store, database).await?;
    let mut left_overs: BTreeMap<BackupId, Listed> = listed
        .iter()
        .filter(|one| one.is_left_over())
        .map(|one| (one.id.clone(), one.clone()))
        .collect();
    let with_manifest: BTreeSet<BackupId> = listed
        .iter()
        .filter(|one| one.has_manifest)
        .map(|one| one.id.clone())
        .collect();
    let seen = overviews(store, listed, trust).await?;
    let newest = seen.iter().max_by_key(|one| one.id().timestamp());
    let newest = newest.map(|one| Newest::of(one, store.url()));
    let histories = [Counting::Good, Counting::Readable].map(|counting| histories(&seen, counting, now));
    let histories = histories.into_iter().flat_map(BTreeMap::into_values).collect();
    let mut folders: Vec<Folder> = seen.into_iter().map(finished).collect();

    let prefix = database.map_or(String::new(), database_folder);
    let mut unfinished: BTreeMap<BackupId, Vec<Unfinished>> = BTreeMap::new();
    for one in store.unfinished(&prefix).await? {
        let Some((id, _)) = BackupId::of_key(&one.key) else {
            continue;
        };
        // A run that died early left only these.
        if !with_manifest.contains(&id) {
            left_overs.entry(id.clone()).or_insert_with(|| Listed {
                id: id.clone(),
                has_manifest: false,
                files: Vec::new(),
            });
        }
        unfinished.entry(id).or_default().push(one);
    }
    folders.extend(left_over(store, stores, left_overs, now).await);
    for folder in &mut folders {
        folder.unfinished = unfinished.remove(&folder.listed.id).unwrap_or_default();
    }
    folders.sort_by(|one, other| {
        let (one, other) = (&one.listed.id, &other.listed.id);
        other.timestamp().cmp(&one.timestamp()).then_with(|| one.cmp(other))
    });
    Ok(Survey {
        folders,
        newest,
        histories,
    })
}

/// The folders without a manifest. A run may still be at work in one.
async fn left_over(
    store: &dyn Store,
    stores: &[Arc<dyn Store>],
    left_overs: BTreeMap<BackupId, Listed>,
    now: Timestamp,
) -> Vec<Folder> {
    let mut folders = Vec::new();
    // Each kind is made under a lease of its own.
    let mut at_work: BTreeMap<(String, BackupKind), bool> = BTreeMap::new();
    for listed in left_overs.into_values() {
        let runs = (listed.id.database().to_owned(), listed.id.kind());
        let run_at_work = match at_work.get(&runs) {
            Some(known) => *known,
            None => run_at_work(store, stores, (&runs.0, runs.1), now).await,
        };
        at_work.insert(runs, run_at_work);
        folders.push(Folder {
            listed,
            state: BackupState::LeftOver { run_at_work },
            named: Vec::new(),
            refers_to: None,
            unfinished: Vec::new(),
        });
    }
    folders
}

fn finished(overview: Overview) -> Folder {
    // Without a signature, or with one by a key that is unknown or no longer trusted, it never counts as one of the
    // good backups that stay, and no older backup stays in its place.
    let is_strangers = matches!(
        overview.signature,
        Some(SignatureState::Bad {
            why: Flaw::Untrusted(_)
        })
    );
    let counts = !is_strangers && overview.signature != Some(SignatureState::Unsigned);
    if let (true, Some(why)) = (overview.is_archived(), overview.flaw()) {
        tracing::warn!("{} stays: {why}", overview.id());
    }
    let references = overview.figures().and_then(|figures| figures.references.as_ref());
    let refers_to = references.map(|references| references.from.clone());
    let (state, named) = match overview.figures() {
        // A forged manifest must not decide anything.
        _ if overview.forgery().is_some() && !is_strangers => (BackupState::Unreadable, Vec::new()),
        None => (BackupState::Unreadable, Vec::new()),
        Some(figures) => (
            BackupState::Backup {
                tier: figures.tier,
                whole: overview.lacks.is_empty() && counts,
                // It takes no place of a good one, and goes when its time is over.
                verdict: match overview.altered {
                    Some(_) => Verdict::Damaged,
                    None => overview.verdict(),
                },
            },
            figures.files.values().map(|file| file.name.clone()).collect(),
        ),
    };
    Folder {
        listed: overview.listed,
        state,
        named,
        refers_to,
        unfinished: Vec::new(),
    }
}

/// Whether a run may be writing folders of this kind for this database, judged by two leases: that of this store, which may be
/// the primary of other runs, and that of the settings' own primary. A lease that cannot be read counts as held.
async fn run_at_work(
    store: &dyn Store,
    stores: &[Arc<dyn Store>],
    (database, kind): (&str, BackupKind),
    now: Timestamp,
) -> bool {
    let primary = stores.first().map(|primary| &**primary);
    let others = primary.filter(|primary| primary.url() != store.url());
    for store in [Some(store), others].into_iter().flatten() {
        match lease::look_for(store, database, kind, now).await {
            Ok(LeaseState::Free | LeaseState::Expired(_)) => {}
            Ok(LeaseState::Held(_)) => return true,
            Err(error) => {
                tracing::warn!("left-overs stay, because a run may be active: {error}");
                return true;
            }
        }
    }
    false
}

impl From<Result<removal::Removed>> for RemovalOutcome {
    fn from(done: Result<removal::Removed>) -> Self {
        match done {
            Ok(removed) => RemovalOutcome::Removed {
                bytes_removed: removed.bytes,
                versions_stay: removed.versions_stay,
                foreign: removed.foreign,
            },
            Err(error) => RemovalOutcome::failed(&error),
        }
    }
}

impl PruneReport {
    fn failed(&mut self, url: &str, error: &Error) {
        let mut part = StorePrune::of(url, false);
        part.error = Some(ErrorReport::from(error));
        self.fail(error);
        self.stores.push(part);
    }
}

#[cfg(test)]
mod tests;
