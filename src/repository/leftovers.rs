//! Removes what killed runs left. The next run, which holds the lease, does this: it aborts uploads in progress and
//! discards files without a manifest.
//!
//! It touches only keys below the database's own folder, and there only names that pgstow makes: runs of other
//! databases share the store, and people keep their own files there.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::repository::backup_id::{BackupId, database_folder, lease_key_of};
use crate::repository::catalog::{self, Listed, backups};
use crate::repository::retention::Tag;
use crate::store::{Store, Unfinished};

/// How many left-overs one run removes: a folder with a great many files must not take a backup's time. The next run
/// continues.
const AT_MOST: usize = 1_000;
/// How many failures end the removal: each failure takes all the retries of a request.
const FAILURES: usize = 3;
/// Commands that hold no lease write small files too (a verification beside a finished backup, a lease that is about
/// to be refused). A younger file may be theirs.
const SURELY_DEAD: SignedDuration = SignedDuration::from_hours(24);

/// One left-over and its outcome, for the report.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct LeftOver {
    /// The store, if it is not the primary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    pub key: String,
    pub found: What,
    #[serde(flatten)]
    pub outcome: LeftOverOutcome,
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
pub enum LeftOverOutcome {
    Aborted,
    /// Tagged `pending` for the bucket to expire, or deleted if the store has no lifecycle.
    Discarded,
    Failed(String),
}

impl LeftOverOutcome {
    pub fn name(&self) -> &str {
        match self {
            LeftOverOutcome::Aborted => "aborted",
            LeftOverOutcome::Discarded => "discarded",
            LeftOverOutcome::Failed(why) => why,
        }
    }
}

/// All left-overs, and the failures. These are warnings, since a backup can be made anyway.
#[derive(Debug, Default)]
pub struct Cleared {
    pub left_overs: Vec<LeftOver>,
    pub warnings: Vec<Error>,
}

/// Removes the left-overs of a database in the store that the lease is in. Only the lease's holder may call this,
/// before it writes anything. `own` is its id; `listed` are the database's folders at this moment.
pub async fn clear(store: &dyn Store, own: &BackupId, listed: &[Listed], now: Timestamp) -> Cleared {
    // Runs of the other kind hold another lease, and one of them may be writing.
    let dead = |id: &BackupId| id != own && id.database() == own.database() && id.kind() == own.kind();
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

/// Like [`clear`], in a store that gets a copy. Its lease is not held, so runs with another primary may be using it.
/// Two things are known to belong to no running run: the backup of `dead`, the run whose lease was taken over, and
/// files that are older than any run.
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
        id != own && id.database() == own.database() && id.kind() == own.kind() && (Some(id) == dead || old)
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

/// One search for left-overs in a store.
struct Sweep<'a, D> {
    store: &'a dyn Store,
    own: &'a BackupId,
    /// The database's folders.
    listed: &'a [Listed],
    now: Timestamp,
    /// Whether the run of this backup is known to have ended.
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
            // A store's listing may be out of date, and the backup may be a good one.
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
                .note(&one.key, What::UnfinishedUpload, LeftOverOutcome::Aborted, result);
        }
    }

    /// Whether no run can still be writing this. A file beside a finished backup, or a lease, may belong to another
    /// command that holds no lease, so it must be a day old.
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
            None => unfinished.key == lease_key_of(self.own.database(), self.own.kind()) && old(),
        }
    }

    async fn give_up_files(&mut self, folders: &BTreeMap<&BackupId, &Listed>) {
        let orphans = folders.values().flat_map(|folder| folder.own_files());
        for (number, file) in orphans.enumerate() {
            if number == AT_MOST {
                self.cleared.warnings.push(Error::new(
                    crate::error::Code::Store,
                    format!(
                        "more than {AT_MOST} files without a manifest below {}: the next run removes the rest",
                        database_folder(self.own.database())
                    ),
                ));
                break;
            }
            let result = match expires(self.store, &file.key).await {
                // An earlier run has tagged it, or it once had a manifest: the bucket will expire it.
                Ok(true) => continue,
                Ok(false) => self.store.discard(&file.key).await,
                Err(error) => Err(error),
            };
            self.cleared
                .note(&file.key, What::FileWithoutManifest, LeftOverOutcome::Discarded, result);
        }
    }

    /// A run that is killed right after it made its folder leaves the folder empty. Only a store without a lifecycle
    /// has real folders. Nothing was lost, so nothing is reported.
    async fn remove_empty_folders(&self) -> Result<()> {
        let around = database_folder(self.own.database());
        let folders = self.store.folders(&around).await?;
        let unlisted = folders
            .iter()
            .filter_map(|name| format!("{around}{name}").parse::<BackupId>().ok())
            .filter(|id| (self.dead)(id) && !self.listed.iter().any(|folder| folder.id == *id));
        let unlisted: Vec<BackupId> = unlisted.take(AT_MOST).collect();
        for id in unlisted {
            // Discarding a missing file is no error, and removes the folder if it is empty.
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

    fn note(&mut self, key: &str, found: What, done: LeftOverOutcome, result: Result<()>) {
        let outcome = match result {
            Ok(()) => done,
            Err(error) => {
                let message = error.message();
                self.warnings.push(
                    error
                        .context(format!("cannot clear the left-over {key}"))
                        .hint("the next run tries again"),
                );
                LeftOverOutcome::Failed(message)
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

/// Whether the file has a tag that some rule expires. A file with a tier is not tagged `pending`: the bucket's policy
/// denies that to all roles, since a thief would do it.
async fn expires(store: &dyn Store, key: &str) -> Result<bool> {
    let Some(lifecycle) = store.lifecycle() else {
        return Ok(false);
    };
    let tags = lifecycle.tags(key).await?;
    Ok(tags.is_some_and(|tags| matches!(Tag::of(&tags), Some(Tag::Pending | Tag::Tier(_)))))
}

#[cfg(test)]
mod tests;
