//! Backups to which others refer. They bear `latest`, which no rule expires, as long as one of those is in the store:
//! another tag would outlive some references and not others.

use futures::future::try_join_all;
use jiff::Timestamp;

use super::tags::{Backup, Retagged, bears, read_backup, retag_file};
use super::{BackupId, Listed, backups, found_damaged, gather, until};
use crate::error::Result;
use crate::repository::backup_id::BackupKind;
use crate::repository::retention::Tag;
use crate::store::Store;

/// Before a backup that refers to this one is committed: gives all its files the tag `latest`. Safe to repeat. Does
/// nothing in a store without a lifecycle.
pub async fn hold(store: &dyn Store, id: &BackupId) -> Result<()> {
    let Some(lifecycle) = store.lifecycle() else {
        return Ok(());
    };
    if lifecycle.keeping().is_lost() {
        return Ok(());
    }
    let listed = gather(store.list(&id.folder()).await?.into_iter());
    let files = listed.iter().flat_map(|one| &one.files);
    let tagging = files.map(|file| retag_file(lifecycle, &file.key, Tag::Latest, None));
    try_join_all(tagging).await?;
    Ok(())
}

/// Gives the backups that were held, and to which no backup refers any more, the tier of their manifest. The newest
/// `keep_last` are not touched, nor is anything while one of them was found damaged: the walk over the newest backups
/// decides about those. An error leaves the rest to the next run.
pub async fn release(store: &dyn Store, database: &str, keep_last: usize, now: Timestamp) -> Result<Vec<Retagged>> {
    let Some(lifecycle) = store.lifecycle() else {
        return Ok(Vec::new());
    };
    if lifecycle.keeping().is_lost() {
        return Ok(Vec::new());
    }
    let listed = until(&backups(store, Some(database)).await?, now);
    let fulls: Vec<Listed> = listed.into_iter().filter(|one| one.id.kind() == BackupKind::Full).collect();
    let mut newest = 0;
    let mut referred: Vec<BackupId> = Vec::new();
    let mut held: Vec<Backup> = Vec::new();
    for one in fulls {
        if !one.has_manifest {
            continue;
        }
        let is_damaged = found_damaged(store, &one).await?;
        // What cannot be read may refer to anything.
        let Some(backup) = read_backup(store, one).await? else {
            return Ok(Vec::new());
        };
        referred.extend(backup.summary.references.iter().map(|references| references.from.clone()));
        if newest < keep_last.max(1) {
            if is_damaged {
                return Ok(Vec::new());
            }
            newest += 1;
        } else if !is_damaged && bears(lifecycle, &backup).await? == Some(Tag::Latest) {
            held.push(backup);
        }
    }
    let mut done = Vec::new();
    for backup in held.iter().filter(|backup| !referred.contains(&backup.listed.id)).rev() {
        let to = Tag::Tier(backup.summary.tier);
        super::tags::apply(lifecycle, backup, to).await?;
        done.push(Retagged {
            id: backup.listed.id.clone(),
            to: to.name().to_owned(),
        });
    }
    Ok(done)
}
