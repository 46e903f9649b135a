//! What killed runs left behind, dealt with by the next run, which holds the lease: uploads in
//! progress are aborted, files without a manifest given up.
//!
//! Everything stays strictly below the database's own folder, and within it to names that we make:
//! other databases' runs share the store, and people keep their own files there.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::repository::backup_id::{BackupId, database_folder, lease_key};
use crate::repository::catalog::{self, Listed, backups};
use crate::repository::retention::Tag;
use crate::store::{Store, Unfinished};

/// Left-overs dealt with per run: a folder that somebody filled by mistake must not eat a backup's
/// time. The next run goes on.
const AT_MOST: usize = 1_000;
/// A store that is ill costs all the patience of a request each time.
const FAILURES: usize = 3;
/// Commands that hold no lease write small files too (a verification beside a finished backup,
/// a lease about to be refused): what is younger than this may be theirs.
const SURELY_DEAD: SignedDuration = SignedDuration::from_hours(24);

/// One left-over and what became of it: for the report.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct LeftOver {
    /// The store, where it is not the primary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    pub key: String,
    pub found: What,
    #[serde(flatten)]
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A multipart upload in progress, or a temporary file.
    UnfinishedUpload,
    /// A file of a backup that was never committed, or whose manifest is gone.
    FileWithoutManifest,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "outcome", content = "error", rename_all = "snake_case")]
pub enum Outcome {
    Aborted,
    /// Tagged `pending` for the bucket to expire, or deleted where the store has no lifecycle.
    Discarded,
    Failed(String),
}

impl Outcome {
    pub fn name(&self) -> &str {
        match self {
            Outcome::Aborted => "aborted",
            Outcome::Discarded => "given up",
            Outcome::Failed(why) => why,
        }
    }
}

/// All that was found, and what went wrong: warnings, since a backup can be made all the same.
#[derive(Debug, Default)]
pub struct Cleared {
    pub left_overs: Vec<LeftOver>,
    pub warnings: Vec<Error>,
}

/// Deals with the left-overs of a database in the store that the lease is in. To be called by its
/// holder, before it writes anything; `own` is its id, `listed` the database's folders as they are
/// now.
pub async fn clear(store: &dyn Store, own: &BackupId, listed: &[Listed], now: Timestamp) -> Cleared {
    let dead = |id: &BackupId| id != own && id.database() == own.database();
    let sweep = Sweep {
        store,
        own,
        listed,
        now,
        dead,
        cleared: Cleared::default(),
    };
    sweep.run().await
}

/// As [`clear`], in a store that gets a copy. Its lease is not held, so it may be used by runs that
/// have another primary: only what `dead` has left, the backup of the run whose lease was taken
/// over, is known to be nobody's, and what is older than any run.
pub async fn clear_copy(store: &dyn Store, own: &BackupId, dead: Option<&BackupId>, now: Timestamp) -> Cleared {
    let listed = match backups(store, Some(own.database())).await {
        Ok(listed) => listed,
        Err(error) => {
            return Cleared {
                warnings: vec![error],
                ..Cleared::default()
            };
        }
    };
    let dead = |id: &BackupId| {
        let old = now.duration_since(id.timestamp()) > SURELY_DEAD;
        id != own && id.database() == own.database() && (Some(id) == dead || old)
    };
    let sweep = Sweep {
        store,
        own,
        listed: &listed,
        now,
        dead,
        cleared: Cleared::default(),
    };
    let mut cleared = sweep.run().await;
    for left_over in &mut cleared.left_overs {
        left_over.store = Some(store.url().to_owned());
    }
    cleared
}

/// One look for what dead runs have left in a store.
struct Sweep<'a, D> {
    store: &'a dyn Store,
    own: &'a BackupId,
    /// The database's folders.
    listed: &'a [Listed],
    now: Timestamp,
    /// Whether a backup's run is known to have ended.
    dead: D,
    cleared: Cleared,
}

impl<'a, D: Fn(&BackupId) -> bool> Sweep<'a, D> {
    async fn run(mut self) -> Cleared {
        let abandoned = self.abandoned_folders().await;
        self.abort_uploads(&abandoned).await;
        self.give_up_files(&abandoned).await;
        if self.store.lifecycle().is_none()
            && let Err(error) = self.remove_empty_folders().await
        {
            self.cleared.warnings.push(error);
        }
        self.cleared
    }

    async fn abandoned_folders(&mut self) -> BTreeMap<&'a BackupId, &'a Listed> {
        let mut abandoned = BTreeMap::new();
        let mut failures = 0;
        for folder in self.listed {
            if folder.has_manifest || !(self.dead)(&folder.id) {
                continue;
            }
            // A store's list may lag behind, and what is missing there is here a good backup.
            match catalog::is_committed(self.store, &folder.id).await {
                Ok(false) => {
                    abandoned.insert(&folder.id, folder);
                }
                Ok(true) => {}
                Err(error) => {
                    failures += 1;
                    self.cleared.warnings.push(
                        Error::new(error.code(), format!("cannot see whether {} has a manifest", folder.id))
                            .hint("its files stay as they are; the next run looks again")
                            .source(error),
                    );
                }
            }
            if abandoned.len() > AT_MOST || failures == FAILURES {
                break;
            }
        }
        abandoned
    }

    async fn abort_uploads(&mut self, folders: &BTreeMap<&BackupId, &Listed>) {
        let unfinished = match self.store.unfinished(&database_folder(self.own.database())).await {
            Ok(unfinished) => unfinished,
            Err(error) => {
                self.cleared.warnings.push(error);
                return;
            }
        };
        let abandoned = unfinished.iter().filter(|one| self.is_abandoned(one, folders));
        let abandoned: Vec<&Unfinished> = abandoned.take(AT_MOST).collect();
        for one in abandoned {
            let result = self.store.abort_unfinished(one).await;
            self.cleared
                .note(&one.key, What::UnfinishedUpload, Outcome::Aborted, result);
        }
    }

    /// Whether nobody can be writing this any more. What lies beside a finished backup, or is a lease,
    /// may be another command's, which holds no lease, and gets a day.
    fn is_abandoned(&self, unfinished: &Unfinished, folders: &BTreeMap<&BackupId, &Listed>) -> bool {
        let old = || {
            unfinished
                .started
                .is_some_and(|started| self.now.duration_since(started) > SURELY_DEAD)
        };
        match BackupId::of_key(&unfinished.key) {
            Some((id, _)) if !(self.dead)(&id) => false,
            Some((id, _)) => {
                let has_files = self.listed.iter().any(|folder| folder.id == id);
                let finished = has_files && !folders.contains_key(&id);
                !finished || old()
            }
            None => unfinished.key == lease_key(self.own.database()) && old(),
        }
    }

    async fn give_up_files(&mut self, folders: &BTreeMap<&BackupId, &Listed>) {
        let orphans = folders.values().flat_map(|folder| folder.own_files());
        for (number, file) in orphans.enumerate() {
            if number == AT_MOST {
                self.cleared.warnings.push(Error::new(
                    crate::error::Code::Store,
                    format!(
                        "more than {AT_MOST} files without a manifest below {}: the next run goes on with them",
                        database_folder(self.own.database())
                    ),
                ));
                break;
            }
            let result = match expires(self.store, &file.key).await {
                // An earlier run has seen to it, or it had a manifest once: the bucket will expire it.
                Ok(true) => continue,
                Ok(false) => self.store.discard(&file.key).await,
                Err(error) => Err(error),
            };
            self.cleared
                .note(&file.key, What::FileWithoutManifest, Outcome::Discarded, result);
        }
    }

    /// A run that is killed right after it has made its folder leaves it with nothing in it. Only a
    /// store without a lifecycle has folders of their own; nothing was lost, so nothing is reported.
    async fn remove_empty_folders(&self) -> Result<()> {
        let around = database_folder(self.own.database());
        let folders = self.store.folders(&around).await?;
        let unlisted = folders
            .iter()
            .filter_map(|name| format!("{around}{name}").parse::<BackupId>().ok())
            .filter(|id| (self.dead)(id) && !self.listed.iter().any(|folder| folder.id == *id));
        let unlisted: Vec<BackupId> = unlisted.take(AT_MOST).collect();
        for id in unlisted {
            // What is missing is no error, and takes the folder along where nothing else is in it.
            self.store.discard(&id.key(&id.dump_name())).await?;
        }
        Ok(())
    }
}

impl Cleared {
    pub fn add(&mut self, more: Cleared) {
        self.left_overs.extend(more.left_overs);
        self.warnings.extend(more.warnings);
    }

    fn note(&mut self, key: &str, found: What, done: Outcome, result: Result<()>) {
        let outcome = match result {
            Ok(()) => done,
            Err(error) => {
                let message = error.message();
                self.warnings.push(
                    error
                        .context(format!("cannot clear the left-over {key}"))
                        .hint("the next run tries again"),
                );
                Outcome::Failed(message)
            }
        };
        self.left_overs.push(LeftOver {
            store: None,
            key: key.to_owned(),
            found,
            outcome,
        });
    }
}

/// Whether it bears a tag that some rule expires. From a tier it is not tagged `pending`: the bucket's
/// policy refuses that to all, since it is what a thief would do.
async fn expires(store: &dyn Store, key: &str) -> Result<bool> {
    let Some(lifecycle) = store.lifecycle() else {
        return Ok(false);
    };
    let tags = lifecycle.tags(key).await?;
    Ok(tags.is_some_and(|tags| matches!(Tag::of(&tags), Some(Tag::Pending | Tag::Tier(_)))))
}

#[cfg(test)]
mod tests;
