//! What a store holds: the backups, found by the folders that their ids name, and their manifests. Every answer comes
//! from the store; pgstow keeps no other state.

mod before;
mod expiry;
mod find;
mod genuine;
mod history;
mod overview;
mod publish;
mod spelling;
mod tags;
mod tier;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::future::try_join_all;
use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};

use crate::error::{Code, Error, Result};
use crate::repository::manifest::{FileRecord, Manifest, ManifestError, Summary};
use crate::repository::signature::{Subject, Trust};
use crate::repository::verification::{Verdict, Verification};
use crate::store::{ListedObject, Store};

pub use crate::repository::backup_id::{
    BackupId, BackupKind, GLOBALS, MANIFEST, MANIFEST_DIGEST, MD5SUMS, SHA256SUMS, SYSTEM_INFO, VERIFICATION,
    database_folder, lease_key,
};
pub use before::{Before, before};
pub use expiry::{Expiry, ExpiryFinding, expiry};
pub use find::{Located, Meant, find, meant, not_there};
pub use genuine::{Demand, Genuine, Read, Seal, read_genuine};
pub use history::{Counting, histories};
pub use overview::{
    ManifestState, Overview, contradiction_of_times, is_reachable, nothing_found, overviews, reachable_folders,
    stored_before,
};
pub use publish::{NotPublished, PublishedManifest, object_info, publish};
pub use tags::{Newest, Retagged, commit_tags, keeps_no_tags, retag, retag_all};
pub use tier::choose_tier;

/// Listings requested from a store at the same time, when all databases are wanted.
const LISTINGS_AT_ONCE: usize = 4;
/// How long the sender of an event may deliver it again. EventBridge and Lambda stop after 24 hours at most; twice
/// that costs nothing.
const EVENT_MEMORY: SignedDuration = SignedDuration::from_hours(48);
/// The most manifests that are read in search of an event. More runs than this in two days have another cause than an
/// event that was delivered twice.
const EVENT_READS: usize = 50;
/// The most manifests that are read in search of a few good ones: if the keys are new, no older manifest is good.
const LOOKED_AT: usize = 50;

/// The folder of one backup, finished or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub id: BackupId,
    /// A folder without a manifest is not a backup: it is a left-over, or its run is still in progress.
    pub has_manifest: bool,
    /// The files directly in the folder, in the order of their keys.
    pub files: Vec<ListedObject>,
}

impl Listed {
    pub fn file(&self, name: &str) -> Option<&ListedObject> {
        let key = self.id.key(name);
        self.files.iter().find(|file| file.key == key)
    }

    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Whether a run left this folder: it has files with pgstow's names, and no manifest. Other files in such a
    /// folder belong to other people, and pgstow ignores them.
    pub fn is_left_over(&self) -> bool {
        !self.has_manifest && self.own_files().next().is_some()
    }

    /// The files with names that pgstow gives.
    pub fn own_files(&self) -> impl Iterator<Item = &ListedObject> {
        self.files.iter().filter(|file| {
            let name = BackupId::of_key(&file.key).map(|(_, name)| name);
            name.is_some_and(|name| self.id.makes(name))
        })
    }

    /// Whether the store has all files that the manifest names, with their sizes. A bucket expires a backup's objects
    /// one by one, so a manifest may outlive its archive by some hours.
    pub fn holds(&self, summary: &Summary) -> bool {
        self.lacking(&summary.files).next().is_none()
    }

    /// The files of a manifest that are missing or have another size.
    pub fn lacking<'a>(&'a self, files: &'a BTreeMap<String, FileRecord>) -> impl Iterator<Item = &'a FileRecord> {
        let there = |file: &FileRecord| self.file(&file.name).is_some_and(|entry| entry.bytes == file.bytes);
        files.values().filter(move |file| !there(file))
    }
}

/// All backup folders, newest first, of one database or of all. Needs one listing per database; skips keys that
/// pgstow does not make.
pub async fn backups(store: &dyn Store, database: Option<&str>) -> Result<Vec<Listed>> {
    let prefixes = match database {
        Some(database) => vec![database_folder(database)],
        None => databases(store)
            .await?
            .iter()
            .map(|database| database_folder(database))
            .collect(),
    };
    let listings: Vec<Vec<ListedObject>> = stream::iter(prefixes)
        .map(|prefix| async move { store.list(&prefix).await })
        .buffered(LISTINGS_AT_ONCE)
        .try_collect()
        .await?;
    let mut listed = gather(listings.into_iter().flatten());
    listed.sort_by(|a, b| {
        let age = |one: &Listed| Reverse(one.id.timestamp());
        age(a).cmp(&age(b)).then_with(|| a.id.cmp(&b.id))
    });
    Ok(listed)
}

/// The databases that have a folder in the store.
pub async fn databases(store: &dyn Store) -> Result<Vec<String>> {
    let folders = store.folders("").await?;
    Ok(folders
        .iter()
        .filter_map(|folder| crate::repository::backup_id::database_of_folder(folder))
        .collect())
}

/// The databases that have a backup among these folders.
pub fn with_backups(listed: &[Listed]) -> BTreeSet<&str> {
    let committed = listed.iter().filter(|one| one.has_manifest);
    committed.map(|one| one.id.database()).collect()
}

fn gather(entries: impl Iterator<Item = ListedObject>) -> Vec<Listed> {
    let mut folders: BTreeMap<BackupId, Listed> = BTreeMap::new();
    for entry in entries {
        let Some((id, file)) = BackupId::of_key(&entry.key) else {
            continue;
        };
        let is_manifest = file == MANIFEST;
        let folder = folders.entry(id.clone()).or_insert_with(|| Listed {
            id,
            has_manifest: false,
            files: Vec::new(),
        });
        folder.has_manifest |= is_manifest;
        folder.files.push(entry);
    }
    folders.into_values().collect()
}

/// What a store has under the name of a manifest. A broken manifest concerns one backup; the command that reads it
/// continues.
#[derive(Debug, Clone, PartialEq)]
pub enum Found<T> {
    Good(T),
    Broken(ManifestError),
    Missing,
}

impl<T> Found<T> {
    pub fn good(self) -> Option<T> {
        match self {
            Found::Good(found) => Some(found),
            Found::Broken(_) | Found::Missing => None,
        }
    }

    /// For a command that was given exactly this backup.
    pub fn require(self, id: &BackupId) -> Result<T> {
        match self {
            Found::Good(found) => Ok(found),
            Found::Broken(broken) => Err(broken.into_error(id)),
            Found::Missing => Err(Error::new(Code::NotFound, format!("no backup {id} in the store"))),
        }
    }
}

pub async fn read_manifest(store: &dyn Store, id: &BackupId) -> Result<Found<Manifest>> {
    let found = parsed(store, id, |bytes| Manifest::parse(bytes, id)).await?;
    Ok(match found {
        Found::Good((_, manifest)) => Found::Good(manifest),
        Found::Broken(broken) => Found::Broken(broken),
        Found::Missing => Found::Missing,
    })
}

/// A manifest's bytes, parsed. If they cannot be parsed, they are read again: a bit that flipped on the way from the
/// store does not prove that the stored file is damaged.
async fn parsed<T>(
    store: &dyn Store,
    id: &BackupId,
    parse: impl Fn(&[u8]) -> Result<T, ManifestError>,
) -> Result<Found<(Bytes, T)>> {
    let once = async || {
        Ok(match manifest_bytes(store, id).await? {
            Found::Missing => Found::Missing,
            Found::Broken(broken) => Found::Broken(broken),
            Found::Good(bytes) => match parse(&bytes) {
                Ok(said) => Found::Good((bytes, said)),
                Err(broken) => Found::Broken(broken),
            },
        })
    };
    match once().await? {
        Found::Broken(_) => once().await,
        found => Ok(found),
    }
}

/// `Broken` if the key is not a file, or is too long for a manifest: this concerns one backup, and is no failure of
/// the store.
async fn manifest_bytes(store: &dyn Store, id: &BackupId) -> Result<Found<Bytes>> {
    match store.get(&id.manifest_key()).await {
        Ok(Some(object)) => Ok(Found::Good(object.body)),
        Ok(None) => Ok(Found::Missing),
        Err(error) if error.code() == Code::Integrity => Ok(Found::Broken(ManifestError::Unreadable(error.message()))),
        Err(error) => Err(error),
    }
}

/// Whether the store has anything under the name of this backup's manifest. Asks the store itself, because a listing
/// may be out of date. Anything that cannot be read, such as a link, counts as present.
pub async fn is_committed(store: &dyn Store, id: &BackupId) -> Result<bool> {
    match store.head(&id.manifest_key()).await {
        Ok(Some(_)) => return Ok(true),
        Ok(None) => {}
        Err(error) if error.code() == Code::Integrity => return Ok(true),
        Err(error) => return Err(error),
    }
    // In a folder store, a folder with this name is no file, but it still counts as present.
    if store.lifecycle().is_some() {
        return Ok(false);
    }
    let folders = store.folders(&id.folder()).await?;
    Ok(folders.iter().any(|name| name == MANIFEST))
}

/// The backups of `listed` that are not dated in the future. A run uses only these to find the newest backup, its
/// next id, its tier, and what it has made before.
pub fn until(listed: &[Listed], now: Timestamp) -> Vec<Listed> {
    listed.iter().filter(|one| !one.id.is_ahead(now)).cloned().collect()
}

/// The summary of a backup that can be restored: its manifest is whole, signed if signatures are required, and its
/// files are there. Evidence against this counts only if a second look confirms it.
async fn read_good(store: &dyn Store, listed: &Listed, trust: &Trust) -> Result<Option<Summary>> {
    if !listed.has_manifest {
        return Ok(None);
    }
    match read_good_once(store, listed, trust).await? {
        None => read_good_once(store, listed, trust).await,
        good => Ok(good),
    }
}

async fn read_good_once(store: &dyn Store, listed: &Listed, trust: &Trust) -> Result<Option<Summary>> {
    let Some(bytes) = manifest_bytes(store, &listed.id).await?.good() else {
        return Ok(None);
    };
    let summary = Summary::parse(&bytes, &listed.id).ok();
    let Some(summary) = summary.filter(|summary| listed.holds(summary)) else {
        return Ok(None);
    };
    let subject = Subject::manifest(&listed.id);
    if trust.asks() && trust.look(store, subject, &bytes).await?.is_err() {
        return Ok(None);
    }
    Ok(Some(summary))
}

/// Whether a check has found the backup damaged, by its `verification.json`. This holds even if another person wrote
/// that file, because the answer only makes pgstow keep more.
async fn found_damaged(store: &dyn Store, listed: &Listed) -> Result<bool> {
    if listed.file(VERIFICATION).is_none() {
        return Ok(false);
    }
    let found = match store.get(&listed.id.key(VERIFICATION)).await {
        Ok(found) => found,
        // The file is missing, or longer than any verification.
        Err(error) if error.code() == Code::Integrity => None,
        Err(error) => return Err(error),
    };
    let found = found.and_then(|object| Verification::parse_outline(&object.body, &listed.id).ok());
    Ok(found.is_some_and(|found| found.verdict() == Verdict::Damaged))
}

/// A manifest may be large, and a function has little memory.
const MANIFESTS_AT_ONCE: usize = 2;

/// The full backups among these folders, in their order.
pub fn fulls(listed: &[Listed]) -> impl Iterator<Item = &Listed> {
    listed.iter().filter(|one| one.id.kind() == BackupKind::Full)
}

/// The newest good full backups of `listed` (a database's folders, newest first): at most `count`, among the newest
/// [`LOOKED_AT`].
pub async fn newest_good(store: &dyn Store, listed: &[Listed], count: usize, trust: &Trust) -> Result<Vec<Summary>> {
    let finished = fulls(listed).filter(|one| one.has_manifest);
    let finished: Vec<&Listed> = finished.take(LOOKED_AT).collect();
    let mut good = Vec::new();
    for some in finished.chunks(count.clamp(1, MANIFESTS_AT_ONCE)) {
        let read = try_join_all(some.iter().map(|one| read_good(store, one, trust))).await?;
        good.extend(read.into_iter().flatten());
        if good.len() >= count {
            break;
        }
    }
    good.truncate(count);
    Ok(good)
}

/// The good backup of this kind that was already made for this event, if the event was delivered before. Looks at the
/// backups of the last two days in `listed` (the database's folders, newest first).
pub async fn find_by_event(
    store: &dyn Store,
    listed: &[Listed],
    kind: BackupKind,
    event_id: &str,
    now: Timestamp,
    trust: &Trust,
) -> Result<Option<Summary>> {
    let recent = listed
        .iter()
        .filter(|one| {
            one.id.kind() == kind
                && one.has_manifest
                && !one.id.is_ahead(now)
                && now.duration_since(one.id.timestamp()) <= EVENT_MEMORY
        })
        .take(EVENT_READS);
    for one in recent {
        let summary = read_good(store, one, trust).await?;
        if let Some(summary) = summary.filter(|summary| summary.event_id.as_deref() == Some(event_id)) {
            return Ok(Some(summary));
        }
    }
    Ok(None)
}

#[cfg(test)]
pub(crate) mod tests;
