//! What is in a store: the backups, found by their ids' folders, and their manifests. The store
//! alone is enough to answer; there is no other state.

mod before;
mod expiry;
mod find;
mod genuine;
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
use crate::repository::manifest::{Broken, FileRecord, Manifest, Summary};
use crate::repository::signature::{Subject, Trust};
use crate::repository::verification::{Verdict, Verification};
use crate::store::{Entry, Store};

pub use crate::repository::backup_id::{
    BackupId, GLOBALS, Kind, MANIFEST, MANIFEST_DIGEST, MD5SUMS, SHA256SUMS, SYSTEM_INFO, VERIFICATION,
    database_folder, lease_key,
};
pub use before::{Before, before};
pub use expiry::{Expiry, Finding, expiry};
pub use find::{Located, Meant, find, meant, not_there};
pub use genuine::{Demand, Genuine, Read, Seal, read_genuine};
pub use overview::{
    Overview, Seen, contradiction_of_times, is_reachable, nothing_found, overviews, reachable_folders, stored_before,
};
pub use publish::{NotPublished, Published, object_info, publish};
pub use tags::{Newest, Retagged, commit_tags, keeps_no_tags, retag, retag_all};
pub use tier::choose_tier;

/// Listings asked of a store at once, when all databases are wanted.
const LISTINGS_AT_ONCE: usize = 4;
/// How long the sender of an event may deliver it again: EventBridge and Lambda give up after 24
/// hours at most; twice that costs nothing.
const EVENT_MEMORY: SignedDuration = SignedDuration::from_hours(48);
/// Manifests read at most in search of an event: beyond that many runs in two days, an event
/// delivered twice is not what is wrong.
const EVENT_READS: usize = 50;
/// Manifests read at most in search of a few good ones: where keys are new, all older ones are none.
const LOOKED_AT: usize = 50;

/// The folder of one backup, finished or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub id: BackupId,
    /// Without one it is no backup, but the left-over of a run, or a run in progress.
    pub has_manifest: bool,
    /// What lies directly in the folder, in order of the keys.
    pub files: Vec<Entry>,
}

impl Listed {
    pub fn file(&self, name: &str) -> Option<&Entry> {
        let key = self.id.key(name);
        self.files.iter().find(|file| file.key == key)
    }

    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Whether a run left it: it has files of ours, and no manifest. What somebody else keeps in
    /// such a folder is none of our business.
    pub fn is_left_over(&self) -> bool {
        !self.has_manifest && self.own_files().next().is_some()
    }

    /// The files whose names pgstow gives.
    pub fn own_files(&self) -> impl Iterator<Item = &Entry> {
        self.files.iter().filter(|file| {
            let name = BackupId::of_key(&file.key).map(|(_, name)| name);
            name.is_some_and(|name| self.id.makes(name))
        })
    }

    /// Whether all files that the manifest names are there with their sizes. Expiry takes a
    /// backup's objects one by one: a manifest may outlive its archive by some hours.
    pub fn holds(&self, summary: &Summary) -> bool {
        self.lacking(&summary.files).next().is_none()
    }

    /// Those of a manifest's files that are not there, or not with their sizes.
    pub fn lacking<'a>(&'a self, files: &'a BTreeMap<String, FileRecord>) -> impl Iterator<Item = &'a FileRecord> {
        let there = |file: &FileRecord| self.file(&file.name).is_some_and(|entry| entry.bytes == file.bytes);
        files.values().filter(move |file| !there(file))
    }
}

/// All folders of backups, newest first, of one database or of all. One listing per database;
/// keys that are not ours are passed over.
pub async fn backups(store: &dyn Store, database: Option<&str>) -> Result<Vec<Listed>> {
    let prefixes = match database {
        Some(database) => vec![database_folder(database)],
        None => databases(store)
            .await?
            .iter()
            .map(|database| database_folder(database))
            .collect(),
    };
    let listings: Vec<Vec<Entry>> = stream::iter(prefixes)
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

/// Those of which there is a backup among these folders.
pub fn with_backups(listed: &[Listed]) -> BTreeSet<&str> {
    let committed = listed.iter().filter(|one| one.has_manifest);
    committed.map(|one| one.id.database()).collect()
}

fn gather(entries: impl Iterator<Item = Entry>) -> Vec<Listed> {
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

/// What was found where a manifest should be. A broken one is news about one backup, not the
/// failure of the command that came across it.
#[derive(Debug, Clone, PartialEq)]
pub enum Found<T> {
    Good(T),
    Broken(Broken),
    Missing,
}

impl<T> Found<T> {
    pub fn good(self) -> Option<T> {
        match self {
            Found::Good(found) => Some(found),
            Found::Broken(_) | Found::Missing => None,
        }
    }

    /// For a command that was asked for exactly this backup.
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

/// A manifest's bytes and what they say. What cannot be read is read again: a bit that was flipped on the
/// way says nothing about what is stored.
async fn parsed<T>(
    store: &dyn Store,
    id: &BackupId,
    parse: impl Fn(&[u8]) -> Result<T, Broken>,
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

/// Broken where something else than a file of a manifest's length lies in its place: that is news
/// about one backup, and not the store's failure.
async fn manifest_bytes(store: &dyn Store, id: &BackupId) -> Result<Found<Bytes>> {
    match store.get(&id.manifest_key()).await {
        Ok(Some(object)) => Ok(Found::Good(object.body)),
        Ok(None) => Ok(Found::Missing),
        Err(error) if error.code() == Code::Integrity => Ok(Found::Broken(Broken::Unreadable(error.message()))),
        Err(error) => Err(error),
    }
}

/// Whether anything at all bears the name of this backup's manifest, asked of the store itself and not
/// of a listing, which may lag. What cannot be read for what it is, such as a link, is there.
pub async fn is_committed(store: &dyn Store, id: &BackupId) -> Result<bool> {
    match store.head(&id.manifest_key()).await {
        Ok(Some(_)) => return Ok(true),
        Ok(None) => {}
        Err(error) if error.code() == Code::Integrity => return Ok(true),
        Err(error) => return Err(error),
    }
    // In a folder store, a folder of this name is no file, and not nothing either.
    if store.lifecycle().is_some() {
        return Ok(false);
    }
    let folders = store.folders(&id.folder()).await?;
    Ok(folders.iter().any(|name| name == MANIFEST))
}

/// Those of `listed` that are not dated in the future: what a run goes by when it looks for the
/// newest, for its next id, its tier, and what it has made before.
pub fn until(listed: &[Listed], now: Timestamp) -> Vec<Listed> {
    listed.iter().filter(|one| !one.id.is_ahead(now)).cloned().collect()
}

/// The summary of a backup that can be restored: its manifest is whole, signed where that is asked
/// for, and its files are there. What says otherwise has to do so twice.
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

/// Whether a check has found it wanting, by its `verification.json`. Whoever wrote that, it is only ever
/// a reason to keep more.
async fn found_damaged(store: &dyn Store, listed: &Listed) -> Result<bool> {
    if listed.file(VERIFICATION).is_none() {
        return Ok(false);
    }
    let found = match store.get(&listed.id.key(VERIFICATION)).await {
        Ok(found) => found,
        // No file, or absurdly long.
        Err(error) if error.code() == Code::Integrity => None,
        Err(error) => return Err(error),
    };
    let found = found.and_then(|object| Verification::parse_outline(&object.body, &listed.id).ok());
    Ok(found.is_some_and(|found| found.verdict() == Verdict::Damaged))
}

/// A manifest may be large, and a function's memory is not.
const MANIFESTS_AT_ONCE: usize = 2;

/// The newest good backups of `listed`, a database's folders, newest first: `count` at most, among
/// the newest [`LOOKED_AT`].
pub async fn newest_good(store: &dyn Store, listed: &[Listed], count: usize, trust: &Trust) -> Result<Vec<Summary>> {
    let finished = listed.iter().filter(|one| one.has_manifest);
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

/// The good backup that this event has already made, if it was delivered before. Looks at the
/// backups of the last two days in `listed`, the database's folders, newest first.
pub async fn find_by_event(
    store: &dyn Store,
    listed: &[Listed],
    event_id: &str,
    now: Timestamp,
    trust: &Trust,
) -> Result<Option<Summary>> {
    let recent = listed
        .iter()
        .filter(|one| {
            one.has_manifest && !one.id.is_ahead(now) && now.duration_since(one.id.timestamp()) <= EVENT_MEMORY
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
pub(crate) mod tests {
    use super::*;
    use crate::repository::manifest::tests::sample;
    use crate::repository::retention::{SHA256_TAG, TIER_TAG, Tier};
    use crate::store::memory::{Fault, MemoryStore, Op};

    pub(crate) fn id(text: &str) -> BackupId {
        text.parse().unwrap()
    }

    /// Plants a finished backup whose files all bear `tag`.
    pub(crate) fn plant(store: &MemoryStore, manifest: &Manifest, tag: &str) {
        for file in manifest.files.values() {
            let tags = [(TIER_TAG, tag), (SHA256_TAG, file.sha256.as_str())];
            store.plant(&manifest.id.key(&file.name), "data", &tags);
        }
        store.plant(&manifest.id.key(SHA256SUMS), "sums", &[(TIER_TAG, tag)]);
        let bytes = manifest.to_bytes().unwrap();
        store.plant(&manifest.id.manifest_key(), bytes, &[(TIER_TAG, tag)]);
    }

    fn plant_daily(store: &MemoryStore, text: &str) -> BackupId {
        let id = id(text);
        plant(store, &sample(&id, Tier::Daily), "daily");
        id
    }

    #[tokio::test]
    async fn folders_of_backups_are_listed_newest_first_and_foreign_keys_passed_over() {
        let store = MemoryStore::with_lifecycle();
        let old = plant_daily(&store, "shop/20250130T040500Z-full");
        let new = plant_daily(&store, "shop/20250131T040500Z-full");
        let other = plant_daily(&store, "shop2/20250130T120000Z-full");
        store.plant("shop/20250201T040500Z-full/shop.dump", "partial", &[]);
        store.plant("shop/.lease", "{}", &[]);
        store.plant("shop/notes/20250131T040500Z-full/shop.dump", "x", &[]);
        store.plant("readme.txt", "x", &[]);
        store.plant(".hidden/20250131T040500Z-full/manifest.json", "x", &[]);

        let listed = backups(&store, Some("shop")).await.unwrap();
        let seen: Vec<_> = listed
            .iter()
            .map(|one| (one.id.to_string(), one.has_manifest))
            .collect();
        let unfinished = "shop/20250201T040500Z-full".to_owned();
        assert_eq!(
            seen,
            [(unfinished, false), (new.to_string(), true), (old.to_string(), true)]
        );
        assert_eq!(store.requests(), 1);
        assert_eq!(listed[1].file("shop.dump").unwrap().bytes, 4);
        assert_eq!(listed[1].files.len(), 4);

        let all = backups(&store, None).await.unwrap();
        let ids: Vec<_> = all.iter().skip(1).map(|one| one.id.clone()).collect();
        assert_eq!(ids, [new, other, old]);
        assert_eq!(databases(&store).await.unwrap(), ["shop", "shop2"]);
    }

    #[tokio::test]
    async fn a_broken_or_missing_manifest_is_told_and_not_fatal() {
        let store = MemoryStore::with_lifecycle();
        let good = plant_daily(&store, "shop/20250131T040500Z-full");
        let broken = id("shop/20250130T040500Z-full");
        store.plant(&broken.manifest_key(), "{\"schema\": 1,", &[]);
        let missing = id("shop/20250129T040500Z-full");

        assert!(matches!(read_manifest(&store, &good).await, Ok(Found::Good(_))));
        let found = read_manifest(&store, &broken).await.unwrap();
        assert_eq!(found.require(&broken).unwrap_err().code(), Code::Integrity);
        let found = read_manifest(&store, &missing).await.unwrap();
        assert_eq!(found.require(&missing).unwrap_err().code(), Code::NotFound);

        store.fault(Op::Get, 1, Fault::Reject);
        assert_eq!(read_manifest(&store, &good).await.unwrap_err().code(), Code::Store);
    }

    #[tokio::test]
    async fn a_backup_whose_archive_has_expired_is_not_good() {
        let store = MemoryStore::with_lifecycle();
        let id = plant_daily(&store, "shop/20250131T040500Z-full");
        let listed = backups(&store, Some("shop")).await.unwrap();
        assert!(
            read_good(&store, &listed[0], &Trust::default())
                .await
                .unwrap()
                .is_some()
        );
        store.remove(&id.key("shop.dump"));
        let listed = backups(&store, Some("shop")).await.unwrap();
        assert!(listed[0].has_manifest);
        assert!(
            read_good(&store, &listed[0], &Trust::default())
                .await
                .unwrap()
                .is_none()
        );
    }

    #[tokio::test]
    async fn the_newest_good_ones_are_read_and_a_broken_one_passed_over() {
        let store = MemoryStore::with_lifecycle();
        for day in 20..=31 {
            plant_daily(&store, &format!("shop/202501{day}T040500Z-full"));
        }
        store.plant("shop/20250130T040500Z-full/manifest.json", "{", &[]);
        let listed = backups(&store, Some("shop")).await.unwrap();
        let good = newest_good(&store, &listed, 3, &Trust::default()).await.unwrap();
        let days: Vec<_> = good.iter().map(|one| one.id.to_string()[11..13].to_owned()).collect();
        assert_eq!(days, ["31", "29", "28"]);
        // The broken one twice.
        assert_eq!(store.calls(Op::Get).len(), 5);
        assert!(newest_good(&store, &[], 3, &Trust::default()).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn where_signatures_are_asked_for_what_has_none_is_not_good() {
        use base64::Engine;
        let store = MemoryStore::with_lifecycle();
        let planted = id("shop/20250131T040500Z-full");
        let mut manifest = sample(&planted, Tier::Daily);
        manifest.event_id = Some("event".to_owned());
        plant(&store, &manifest, "daily");
        let key = base64::engine::general_purpose::STANDARD.encode([&b"Ed"[..], &[7; 40]].concat());
        let keys = Trust::new(vec![crate::repository::signature::PublicKey::parse(&key).unwrap()]);
        let listed = backups(&store, Some("shop")).await.unwrap();
        let now = planted.timestamp();
        for (trust, good) in [(Trust::default(), 1), (keys, 0)] {
            let found = newest_good(&store, &listed, 3, &trust).await.unwrap();
            assert_eq!(found.len(), good);
            let found = find_by_event(&store, &listed, "event", now, &trust).await.unwrap();
            assert_eq!(found.is_some(), good == 1);
        }
    }

    #[tokio::test]
    async fn an_event_delivered_again_finds_its_backup_and_old_manifests_are_not_read() {
        let store = MemoryStore::with_lifecycle();
        for day in 10..=31 {
            let id = id(&format!("shop/202501{day}T040500Z-full"));
            let mut manifest = sample(&id, Tier::Daily);
            manifest.event_id = Some(format!("event-{day}"));
            plant(&store, &manifest, "daily");
        }
        let now = "2025-01-31T05:00:00Z".parse().unwrap();
        let (listed, anybody) = (backups(&store, Some("shop")).await.unwrap(), Trust::default());
        let found = find_by_event(&store, &listed, "event-30", now, &anybody)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(found.id, id("shop/20250130T040500Z-full"));
        assert_eq!(store.calls(Op::Get).len(), 2);
        assert_eq!(
            find_by_event(&store, &listed, "event-10", now, &anybody).await.unwrap(),
            None
        );
        assert_eq!(store.calls(Op::Get).len(), 4);
    }

    #[tokio::test]
    async fn the_catalogs_futures_can_move_between_threads() {
        fn movable<T: Send>(future: T) -> T {
            future
        }
        let store = MemoryStore::without_lifecycle();
        assert!(movable(backups(&store, None)).await.unwrap().is_empty());
    }
}
