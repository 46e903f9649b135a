//! `prune`: the retention plan, carried out in stores that have no lifecycle rules. In a bucket
//! nothing is removed: its rules do that, and the writer has no permission to. Where it has none, and the
//! key may, `--allow-delete` does it.

mod removal;
mod report;
mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::error::{Error, ErrorReport, Result};
use crate::repository::backup_id::BackupId;
use crate::repository::catalog::{
    Listed, Newest, Overview, database_folder, keeps_no_tags, nothing_found, overviews, reachable_folders,
};
use crate::repository::lease::{self, Seen};
use crate::repository::retention::{Candidate, Decision, State, Terms, applying, plan};
use crate::repository::signature::{Flaw, Standing, Trust};
use crate::repository::verification::Verdict;
use crate::run::stop::Stop;
use crate::settings::{Policy, Retention};
use crate::store::{Lifecycle, Store, Unfinished};

pub use report::{Action, Outcome, PruneReport, Pruned, StorePrune};
pub use request::PruneRequest;

/// Every store for itself: a copy has its own backups, and its own last good one. What fails in
/// one of them, or with one backup, is told in the report; the rest goes on.
pub async fn run(
    stores: &[Arc<dyn Store>],
    retention: &Retention,
    request: &PruneRequest,
    trust: &Trust,
    now: Timestamp,
    stop: &Stop,
) -> Result<PruneReport> {
    let terms = Terms {
        policy: &retention.policy,
        keep_last: retention.keep_last,
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
        let decisions = plan(&survey.candidates(), &terms);
        let lifecycle = store.lifecycle().filter(|_| !request.allow_delete);
        let mut part = StorePrune::of(store.url(), lifecycle.is_some());
        if let Some(lifecycle) = lifecycle {
            let newest = survey.newest.as_ref();
            let noting = async { Ok(without_rules(lifecycle, store.url(), &retention.policy, newest).await) };
            part.note = stop.or_stop(noting).await?;
        }
        part.backups = survey
            .folders
            .iter()
            .zip(&decisions)
            .map(|(folder, decision)| Pruned::planned(&folder.listed, decision))
            .collect();
        if !request.dry_run && lifecycle.is_none() {
            // Oldest first, so that a prune that is stopped has done what matters most.
            for at in (0..part.backups.len()).rev() {
                if !matches!(decisions[at], Decision::Remove(_)) {
                    continue;
                }
                if let Some(reason) = stop.reason() {
                    report.stores.push(part);
                    return Err(report.stopped(&reason.into()));
                }
                let done = removal::remove(&**store, &survey.folders[at]).await;
                part.backups[at].outcome = Some(done.into());
            }
        }
        report.stores.push(part);
    }
    // Of a database that no store knows, the name is wrong.
    let has_none = |part: &StorePrune| part.backups.is_empty() && part.error.is_none();
    if let (Some(database), Some(first)) = (request.database.as_deref(), stores.first())
        && report.stores.iter().all(has_none)
    {
        report.fail(&nothing_found(first.as_ref(), Some(database), None).await);
    }
    Ok(report.concluded())
}

/// What a person should know where the bucket is to do the work and may not.
async fn without_rules(
    lifecycle: &dyn Lifecycle,
    url: &str,
    policy: &Policy,
    newest: Option<&Newest>,
) -> Option<String> {
    let remedy = format!(
        "install them with `{}`, or, where the store has no such rules, prune with --allow-delete and a key that may delete",
        applying(url, policy)
    );
    if keeps_no_tags(lifecycle, newest).await {
        return Some(format!(
            "{url} keeps no object tags, so that none of its rules can tell the backups apart: prune with --allow-delete and \
             a key that may delete"
        ));
    }
    match lifecycle.rules().await {
        Ok(rules) if rules.foreign.iter().any(|rule| rule.acts_for(lifecycle.prefix())) => None,
        Ok(rules) if rules.ours.is_empty() => Some(format!(
            "this bucket has no lifecycle rules of pgstow's, so nothing removes what goes here: {remedy}"
        )),
        Ok(_) => None,
        Err(error) => Some(format!(
            "whether this bucket has lifecycle rules is not known: {}; if it has none, {remedy}",
            error.message()
        )),
    }
}

/// What a plan for one store is made from, newest first.
struct Survey {
    folders: Vec<Folder>,
    newest: Option<Newest>,
}

/// A folder of a backup, finished or not.
struct Folder {
    listed: Listed,
    state: State,
    /// Names of files by its manifest.
    named: Vec<String>,
    /// Uploads that never became a file of it.
    unfinished: Vec<Unfinished>,
}

impl Survey {
    fn candidates(&self) -> Vec<Candidate> {
        let candidate = |folder: &Folder| Candidate {
            id: folder.listed.id.clone(),
            state: folder.state,
        };
        self.folders.iter().map(candidate).collect()
    }
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
    let mut folders: Vec<Folder> = seen.into_iter().map(finished).collect();

    let prefix = database.map_or(String::new(), database_folder);
    let mut unfinished: BTreeMap<BackupId, Vec<Unfinished>> = BTreeMap::new();
    for one in store.unfinished(&prefix).await? {
        let Some((id, _)) = BackupId::of_key(&one.key) else {
            continue;
        };
        // A run that died early has left nothing else.
        if !with_manifest.contains(&id) {
            left_overs.entry(id.clone()).or_insert_with(|| Listed {
                id: id.clone(),
                has_manifest: false,
                files: Vec::new(),
            });
        }
        unfinished.entry(id).or_default().push(one);
    }
    let mut at_work: BTreeMap<String, bool> = BTreeMap::new();
    for listed in left_overs.into_values() {
        let database = listed.id.database().to_owned();
        let run_at_work = match at_work.get(&database) {
            Some(known) => *known,
            None => run_at_work(store, stores, &database, now).await,
        };
        at_work.insert(database, run_at_work);
        folders.push(Folder {
            listed,
            state: State::LeftOver { run_at_work },
            named: Vec::new(),
            unfinished: Vec::new(),
        });
    }
    for folder in &mut folders {
        folder.unfinished = unfinished.remove(&folder.listed.id).unwrap_or_default();
    }
    folders.sort_by(|one, other| {
        let (one, other) = (&one.listed.id, &other.listed.id);
        other.timestamp().cmp(&one.timestamp()).then_with(|| one.cmp(other))
    });
    Ok(Survey { folders, newest })
}

fn finished(overview: Overview) -> Folder {
    // Never one of the good ones that stay, nor one that an older one stands in for. A signature by a
    // stranger, or by a key that is trusted no more, says as little as none.
    let is_strangers = matches!(
        overview.signature,
        Some(Standing::Bad {
            why: Flaw::Untrusted(_)
        })
    );
    let counts = !is_strangers && overview.signature != Some(Standing::Unsigned);
    if let (true, Some(why)) = (overview.is_archived(), overview.flaw()) {
        tracing::warn!("{} stays: {why}", overview.id());
    }
    let (state, named) = match overview.figures() {
        // A forged manifest decides nothing.
        _ if overview.forgery().is_some() && !is_strangers => (State::Unreadable, Vec::new()),
        None => (State::Unreadable, Vec::new()),
        Some(figures) => (
            State::Backup {
                tier: figures.tier,
                whole: overview.lacks.is_empty() && counts,
                // It displaces none, and goes in its time.
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
        unfinished: Vec::new(),
    }
}

/// Whether a run may be writing below this database: by the lease of this store, whose runs may
/// have it as their primary, and by that of ours. A lease that cannot be read may be held.
async fn run_at_work(store: &dyn Store, stores: &[Arc<dyn Store>], database: &str, now: Timestamp) -> bool {
    let primary = stores.first().map(|primary| &**primary);
    let others = primary.filter(|primary| primary.url() != store.url());
    for store in [Some(store), others].into_iter().flatten() {
        match lease::look(store, database, now).await {
            Ok(Seen::Free | Seen::Expired(_)) => {}
            Ok(Seen::Held(_)) => return true,
            Err(error) => {
                tracing::warn!("left-overs stay, since a run may be at work: {error}");
                return true;
            }
        }
    }
    false
}

impl From<Result<removal::Removed>> for Outcome {
    fn from(done: Result<removal::Removed>) -> Self {
        match done {
            Ok(removed) => Outcome::Removed {
                bytes_removed: removed.bytes,
                versions_stay: removed.versions_stay,
                foreign: removed.foreign,
            },
            Err(error) => Outcome::failed(&error),
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
