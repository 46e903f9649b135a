//! Carries out the plan of tags. The order of the changes is such that an interruption loses no backup.
//!
//! **The manifest is tagged last, both for promotion and for demotion.** The next run reads its tag, so that tag must
//! not promise anything that is not done yet. In a promotion the data comes first: if the manifest came first, an
//! interruption would leave an archive that expires under a manifest with the tag `latest`, and no run would look at
//! it again. An interrupted demotion leaves some data tagged with its tier under a manifest that still says `latest`.
//! The next run does the rest. That backup may expire anyway, since a newer good one is committed.

mod increments;

use futures::future::{join_all, try_join_all};
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::genuine::{Said, doubt};
use super::{Listed, Overview, backups, found_damaged, fulls, manifest_bytes, until};
use crate::error::{Error, Result};
use crate::repository::backup_id::BackupId;
use crate::repository::manifest::{Summary, Tagged};
use crate::repository::retention::{Retag, SHA256_TAG, TIER_TAG, Tag, TagCandidate, settled, tag_plan};
use crate::store::{Lifecycle, Store};

/// A backup whose files now have another tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Retagged {
    pub id: BackupId,
    /// `latest`, or the name of a tier.
    pub to: String,
}

/// The two tags of a file.
pub(super) fn of_file(tag: Tag, sha256: &str) -> Vec<(String, String)> {
    vec![
        (TIER_TAG.to_owned(), tag.name().to_owned()),
        (SHA256_TAG.to_owned(), sha256.to_owned()),
    ]
}

/// Tags all files of a backup (given by names and hex digests, without the manifest) `latest`, right before the
/// manifest is put: so a committed backup never has the tag `pending`. If the run dies between the two, the next run
/// finds files without a manifest and tags them `pending` again.
pub async fn commit_tags(store: &dyn Store, id: &BackupId, files: &[(String, String)]) -> Result<()> {
    let Some(lifecycle) = store.lifecycle() else {
        return Ok(());
    };
    // There are few files, so all are tagged at once. After a failure the others are awaited: a request that arrives
    // after the clean-up has tagged its file `pending` would make that file stay for ever.
    let tagged = join_all(files.iter().map(|(name, sha256)| async move {
        let tags = of_file(Tag::Latest, sha256);
        lifecycle.set_tags(&id.key(name), &tags).await
    }))
    .await;
    tagged.into_iter().collect()
}

/// A store's newest backup. Its tags show whether the store keeps tags.
pub struct Newest {
    id: BackupId,
    /// Whether its files have tags if the store keeps tags, by its manifest. A backup that was made for another store
    /// does not count, since tools that copy objects do not copy tags.
    should_bear: bool,
}

impl Newest {
    pub fn of(overview: &Overview, url: &str) -> Self {
        let figures = overview.figures();
        let own = figures.filter(|figures| figures.store.as_deref() == Some(url));
        Self {
            id: overview.id().clone(),
            should_bear: own.and_then(|own| own.tags).is_some_and(Tagged::should_show),
        }
    }
}

/// Whether a store says that it has no tags when it is asked for those of the newest backup, or shows none although
/// that backup was given some. If there is no backup, or the permission is missing, this is not known.
pub async fn keeps_no_tags(lifecycle: &dyn Lifecycle, newest: Option<&Newest>) -> bool {
    if lifecycle.keeping().is_lost() {
        return true;
    }
    let Some(newest) = newest else {
        return false;
    };
    let Ok(tags) = lifecycle.tags(&newest.id.manifest_key()).await else {
        return false;
    };
    let shows_none = tags.is_some_and(|tags| tags.is_empty());
    lifecycle.keeping().is_lost() || (newest.should_bear && shows_none)
}

/// One good backup of the walk.
pub(super) struct Backup {
    pub(super) listed: Listed,
    pub(super) summary: Summary,
    manifest_sha256: String,
}

/// After a success: gives the newest `keep_last` good backups the tag `latest`, and the backups before them the tier
/// that their manifest names. Starts at the newest and stops when all older ones are known to be right. Does nothing
/// in a store without a lifecycle. Safe to repeat. An error leaves the rest to the next run, and never lets a backup
/// expire that must stay.
///
/// A backup dated later than `now` is not counted and not changed: it would take the place of a backup that must
/// stay. A damaged backup takes no place of a good one, and keeps its own tag.
pub async fn retag(store: &dyn Store, database: &str, keep_last: usize, now: Timestamp) -> Result<Vec<Retagged>> {
    walk(store, database, keep_last, now, Until::Settled).await
}

/// The same after a check has found a backup damaged, which may be any of them. The backups before it may be about to
/// expire; they are promoted. Nothing is demoted: a check may only make backups stay, and the next backup decides
/// which may expire. Reads all manifests of the database.
pub async fn retag_all(store: &dyn Store, database: &str, keep_last: usize, now: Timestamp) -> Result<Vec<Retagged>> {
    walk(store, database, keep_last, now, Until::Oldest).await
}

/// How far the walk goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Settled,
    Oldest,
}

async fn walk(
    store: &dyn Store,
    database: &str,
    keep_last: usize,
    now: Timestamp,
    until_where: Until,
) -> Result<Vec<Retagged>> {
    let Some(lifecycle) = store.lifecycle() else {
        return Ok(Vec::new());
    };
    if lifecycle.keeping().is_lost() {
        return Ok(Vec::new());
    }
    let past = until(&backups(store, Some(database)).await?, now);
    let Some(Seen { whole, standings }) = see(store, lifecycle, &past, (keep_last, until_where)).await? else {
        return Ok(Vec::new());
    };
    let plan = tag_plan(keep_last, &standings);
    let mut done = Vec::new();
    let is_wanted = |change: &&Retag| until_where == Until::Settled || change.to == Tag::Latest;
    for change in plan.iter().filter(is_wanted) {
        let backup = &whole[change.index];
        // Only newer ones refer to it, and the walk has read them.
        if change.to != Tag::Latest && refers(&whole[..change.index], &backup.listed.id) {
            continue;
        }
        apply(lifecycle, backup, change.to).await?;
        done.push(Retagged {
            id: backup.listed.id.clone(),
            to: change.to.name().to_owned(),
        });
    }
    // A full backup that is good again needs the increments that follow it. They come before those that may go.
    let oldest = (0..whole.len()).rev().find(|&at| {
        let planned = plan.iter().find(|retag| retag.index == at).map(|retag| retag.to);
        planned.or(standings[at].bears) == Some(Tag::Latest)
    });
    let oldest = oldest.map(|at| whole[at].listed.id.timestamp());
    let promotes = plan.iter().any(|retag| retag.to == Tag::Latest);
    let demotes = until_where == Until::Settled;
    done.extend(increments::retag(store, lifecycle, &past, oldest, (promotes, demotes)).await?);
    Ok(done)
}

/// The good full backups that a walk has read, newest first, and how each stands.
#[derive(Default)]
struct Seen {
    whole: Vec<Backup>,
    standings: Vec<TagCandidate>,
}

/// `None`: the store keeps no tags.
async fn see(
    store: &dyn Store,
    lifecycle: &dyn Lifecycle,
    past: &[Listed],
    (keep_last, until_where): (usize, Until),
) -> Result<Option<Seen>> {
    let mut seen = Seen::default();
    for listed in fulls(past).cloned() {
        // A backup with an unreadable manifest keeps its tag: pgstow neither counts it nor discards it.
        let Some(backup) = read_backup(store, listed).await? else {
            continue;
        };
        let standing = TagCandidate {
            tier: backup.summary.tier,
            damaged: found_damaged(store, &backup.listed).await?,
            bears: bears(lifecycle, &backup).await?,
        };
        if lifecycle.keeping().is_lost() {
            return Ok(None);
        }
        if until_where == Until::Settled && settled(keep_last, &seen.standings, standing) {
            break;
        }
        seen.whole.push(backup);
        seen.standings.push(standing);
    }
    Ok(Some(seen))
}

pub(super) async fn read_backup(store: &dyn Store, listed: Listed) -> Result<Option<Backup>> {
    if !listed.has_manifest {
        return Ok(None);
    }
    let Some(bytes) = manifest_bytes(store, &listed.id).await?.good() else {
        return Ok(None);
    };
    let sha256: [u8; 32] = Sha256::digest(&bytes).into();
    let Ok(summary) = Summary::parse(&bytes, &listed.id) else {
        return Ok(None);
    };
    let said = Said::new(summary.digest_file.as_ref(), summary.store.as_ref());
    if doubt(store, &listed, &sha256, said).await?.altered.is_some() {
        return Ok(None);
    }
    Ok(Some(summary)
        .filter(|summary| listed.holds(summary))
        .map(|summary| Backup {
            listed,
            summary,
            manifest_sha256: hex::encode(sha256),
        }))
}

fn refers(newer: &[Backup], id: &BackupId) -> bool {
    let from = |one: &Backup| {
        one.summary
            .references
            .as_ref()
            .is_some_and(|references| references.from == *id)
    };
    newer.iter().any(from)
}

/// The tag of the backup as a whole. The manifest's tag is enough, except for `latest`: that tag promises that
/// nothing expires, so all files are asked. A run whose manifest arrived after the run had stopped has tagged the
/// others `pending`, and an interrupted demotion has tagged some with a tier.
pub(super) async fn bears(lifecycle: &dyn Lifecycle, backup: &Backup) -> Result<Option<Tag>> {
    let tag_of = async |key: &str| -> Result<Option<Tag>> {
        let tags = lifecycle.tags(key).await?;
        Ok(tags.and_then(|tags| Tag::of(&tags)))
    };
    let manifest_key = backup.listed.id.manifest_key();
    let manifest = tag_of(&manifest_key).await?;
    if manifest != Some(Tag::Latest) {
        return Ok(manifest);
    }
    let others = backup.listed.files.iter().filter(|file| file.key != manifest_key);
    let others = try_join_all(others.map(|file| tag_of(&file.key))).await?;
    Ok(manifest.filter(|_| others.iter().all(|other| *other == manifest)))
}

pub(super) async fn apply(lifecycle: &dyn Lifecycle, backup: &Backup, to: Tag) -> Result<()> {
    let manifest = backup.listed.id.manifest_key();
    let files = backup.listed.files.iter().map(|file| file.key.as_str());
    for key in files.filter(|key| *key != manifest) {
        let recorded = backup
            .summary
            .files
            .values()
            .find(|file| backup.listed.id.key(&file.name) == key);
        let sha256 = recorded.map(|file| file.sha256.as_str());
        retag_file(lifecycle, key, to, sha256).await?;
    }
    retag_file(lifecycle, &manifest, to, Some(&backup.manifest_sha256)).await
}

/// Sets pgstow's tags and keeps the tags of others, for example for cost allocation.
pub(super) async fn retag_file(lifecycle: &dyn Lifecycle, key: &str, to: Tag, sha256: Option<&str>) -> Result<()> {
    let context = |error: Error| error.context(format!("cannot tag {key} as {to}"));
    let before = lifecycle.tags(key).await.map_err(context)?.unwrap_or_default();
    let mut after = before.clone();
    set(&mut after, TIER_TAG, to.name());
    // The run that made the file has set the digest, and that run knows what it made.
    if let Some(sha256) = sha256
        && !after.iter().any(|(name, _)| name == SHA256_TAG)
    {
        set(&mut after, SHA256_TAG, sha256);
    }
    if after != before {
        lifecycle.set_tags(key, &after).await.map_err(context)?;
    }
    Ok(())
}

fn set(tags: &mut Vec<(String, String)>, key: &str, value: &str) {
    match tags.iter_mut().find(|(name, _)| name == key) {
        Some((_, old)) => value.clone_into(old),
        None => tags.push((key.to_owned(), value.to_owned())),
    }
}

#[cfg(test)]
mod tests;
