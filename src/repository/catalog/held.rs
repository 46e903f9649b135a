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
    let fulls: Vec<Listed> = listed
        .into_iter()
        .filter(|one| one.id.kind() == BackupKind::Full)
        .collect();
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
        referred.extend(
            backup
                .summary
                .references
                .iter()
                .map(|references| references.from.clone()),
        );
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

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::repository::catalog::tests::{id, plant};
    use crate::repository::catalog::{Demand, retag, sound};
    use crate::repository::manifest::References;
    use crate::repository::manifest::tests::sample;
    use crate::repository::retention::{TIER_TAG, Tier};
    use crate::repository::signature::Trust;
    use crate::store::memory::MemoryStore;

    const SPAN: SignedDuration = SignedDuration::from_hours(7 * 24);

    /// The bucket's rule: what is older than a week goes, unless it bears `latest`.
    fn expire(store: &MemoryStore, now: Timestamp) -> MemoryStore {
        let left = MemoryStore::with_lifecycle();
        for key in store.keys() {
            let of = key
                .rsplit_once('/')
                .and_then(|(folder, _)| folder.parse::<BackupId>().ok())
                .unwrap();
            let tag = store.tag(&key, TIER_TAG).unwrap();
            if tag == "latest" || now.duration_since(of.timestamp()) < SPAN {
                left.plant(&key, store.body(&key).unwrap(), &[(TIER_TAG, tag.as_str())]);
            }
        }
        left
    }

    async fn newest_full(store: &MemoryStore, now: Timestamp) -> Option<BackupId> {
        let trust = Trust::default();
        let demand = Demand {
            trust: &trust,
            manifest: None,
            now,
            altered: false,
        };
        for listed in backups(store, Some("shop")).await.unwrap() {
            let found = sound(store, &listed, &demand).await.unwrap();
            if let Some(found) = found.filter(|found| found.references.is_none()) {
                return Some(found.id);
            }
        }
        None
    }

    fn ids_with(store: &MemoryStore, wanted: &str) -> Vec<BackupId> {
        let manifests = store.keys().into_iter().filter(|key| key.ends_with("/manifest.json"));
        let tagged = manifests.filter(|key| store.tag(key, TIER_TAG).as_deref() == Some(wanted));
        tagged
            .map(|key| key.rsplit_once('/').unwrap().0.parse().unwrap())
            .collect()
    }

    #[tokio::test]
    async fn through_months_of_backups_none_is_left_without_the_one_that_it_refers_to() {
        for seed in 1..=8_u64 {
            let mut dice = seed;
            let mut roll = move |sides: u64| {
                dice = dice
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (dice >> 33) % sides
            };
            let mut store = MemoryStore::with_lifecycle();
            let first: Timestamp = "2025-01-01T04:05:00Z".parse().unwrap();
            let mut longest = 0;
            for day in 0..60 {
                let now = first + SignedDuration::from_hours(24 * day);
                store = expire(&store, now);
                // No run, a full one, or one that refers.
                let kind = roll(6);
                if kind == 0 {
                    continue;
                }
                let mut manifest = sample(
                    &id(&format!("shop/{}-full", now.strftime("%Y%m%dT%H%M%SZ"))),
                    Tier::Daily,
                );
                if let (2.., Some(from)) = (kind, newest_full(&store, now).await) {
                    hold(&store, &from).await.unwrap();
                    manifest.references = Some(References {
                        from,
                        file: manifest.files["dump"].clone(),
                        tables: 1,
                        bytes: 1,
                    });
                }
                plant(&store, &manifest, "latest");
                retag(&store, "shop", 1, now).await.unwrap();
                release(&store, "shop", 1, now).await.unwrap();

                let there = backups(&store, Some("shop")).await.unwrap();
                for one in &there {
                    let backup = read_backup(&store, one.clone()).await.unwrap().unwrap();
                    if let Some(references) = backup.summary.references {
                        let held = there.iter().find(|other| other.id == references.from);
                        assert!(held.is_some_and(|held| held.has_manifest), "seed {seed}, {}", one.id);
                        assert!(
                            ids_with(&store, "latest").contains(&references.from),
                            "seed {seed}, {}",
                            one.id
                        );
                    }
                }
                longest = longest.max(ids_with(&store, "latest").len());
            }
            // What nothing needs any more expires: only bases of the last week, and the newest, stay for long.
            assert!((2..=8).contains(&longest), "seed {seed}: {longest}");
        }
    }
}
