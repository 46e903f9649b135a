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
    sweep(store, own, listed, now, dead).await
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
    let mut cleared = sweep(store, own, &listed, now, dead).await;
    for left_over in &mut cleared.left_overs {
        left_over.store = Some(store.url().to_owned());
    }
    cleared
}

async fn sweep(
    store: &dyn Store,
    own: &BackupId,
    listed: &[Listed],
    now: Timestamp,
    dead: impl Fn(&BackupId) -> bool,
) -> Cleared {
    let mut cleared = Cleared::default();
    let mut abandoned_folders = BTreeMap::new();
    let mut failures = 0;
    for folder in listed.iter().filter(|folder| !folder.has_manifest && dead(&folder.id)) {
        // A store's list may lag behind, and what is missing there is here a good backup.
        match catalog::is_committed(store, &folder.id).await {
            Ok(false) => {
                abandoned_folders.insert(&folder.id, folder);
            }
            Ok(true) => {}
            Err(error) => {
                failures += 1;
                cleared.warnings.push(
                    error
                        .context(format!("cannot see whether {} has a manifest", folder.id))
                        .hint("its files stay as they are; the next run looks again"),
                );
            }
        }
        if abandoned_folders.len() > AT_MOST || failures == FAILURES {
            break;
        }
    }
    match store.unfinished(&database_folder(own.database())).await {
        Ok(unfinished) => {
            let abandoned = unfinished
                .iter()
                .filter(|one| is_abandoned(one, own, listed, &abandoned_folders, now, &dead))
                .take(AT_MOST);
            for one in abandoned {
                let result = store.abort_unfinished(one).await;
                cleared.note(&one.key, What::UnfinishedUpload, Outcome::Aborted, result);
            }
        }
        Err(error) => cleared.warnings.push(error),
    }
    let orphans = abandoned_folders.values().flat_map(|folder| folder.own_files());
    for (number, file) in orphans.enumerate() {
        if number == AT_MOST {
            cleared.warnings.push(Error::new(
                crate::error::Code::Store,
                format!(
                    "more than {AT_MOST} files without a manifest below {}: the next run goes on with them",
                    database_folder(own.database())
                ),
            ));
            break;
        }
        match expires(store, &file.key).await {
            // An earlier run has seen to it, or it had a manifest once: the bucket will expire it.
            Ok(true) => {}
            Ok(false) => {
                let result = store.discard(&file.key).await;
                cleared.note(&file.key, What::FileWithoutManifest, Outcome::Discarded, result);
            }
            Err(error) => cleared.note(&file.key, What::FileWithoutManifest, Outcome::Discarded, Err(error)),
        }
    }
    if store.lifecycle().is_none()
        && let Err(error) = remove_empty_folders(store, own.database(), listed, dead).await
    {
        cleared.warnings.push(error);
    }
    cleared
}

/// A run that is killed right after it has made its folder leaves it with nothing in it. Only a
/// store without a lifecycle has folders of their own; nothing was lost, so nothing is reported.
async fn remove_empty_folders(
    store: &dyn Store,
    database: &str,
    listed: &[Listed],
    dead: impl Fn(&BackupId) -> bool,
) -> Result<()> {
    let around = database_folder(database);
    let folders = store.folders(&around).await?;
    let unlisted = folders
        .iter()
        .filter_map(|name| format!("{around}{name}").parse::<BackupId>().ok())
        .filter(|id| dead(id) && !listed.iter().any(|folder| folder.id == *id));
    for id in unlisted.take(AT_MOST) {
        // What is missing is no error, and takes the folder along where nothing else is in it.
        store.discard(&id.key(&id.dump_name())).await?;
    }
    Ok(())
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

/// Whether nobody can be writing this any more. What lies beside a finished backup, or is a lease,
/// may be another command's, which holds no lease, and gets a day.
fn is_abandoned(
    unfinished: &Unfinished,
    own: &BackupId,
    listed: &[Listed],
    abandoned: &BTreeMap<&BackupId, &Listed>,
    now: Timestamp,
    dead: impl Fn(&BackupId) -> bool,
) -> bool {
    let old = || {
        unfinished
            .started
            .is_some_and(|started| now.duration_since(started) > SURELY_DEAD)
    };
    match BackupId::of_key(&unfinished.key) {
        Some((id, _)) if !dead(&id) => false,
        Some((id, _)) => {
            let has_files = listed.iter().any(|folder| folder.id == id);
            let finished = has_files && !abandoned.contains_key(&id);
            !finished || old()
        }
        None => unfinished.key == lease_key(own.database()) && old(),
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
mod tests {
    use super::*;
    use crate::repository::catalog::tests::{id, plant};
    use crate::repository::manifest::tests::sample;
    use crate::repository::retention::{TIER_TAG, Tier};
    use crate::store::memory::{Fault, MemoryStore, Op};

    const NOW: &str = "2025-01-31T12:00:00Z";

    fn own() -> BackupId {
        id("shop/20250131T120000Z-full")
    }

    /// A finished backup, a dead run, and much that is none of our business.
    fn fill(store: &MemoryStore) {
        let good = id("shop/20250129T040500Z-full");
        plant(store, &sample(&good, Tier::Daily), "latest");
        store.plant("shop/20250130T040500Z-full/shop.dump", "x", &[(TIER_TAG, "latest")]);
        store.plant("shop/20250130T040500Z-full/shop.toc", "x", &[(TIER_TAG, "pending")]);
        store.plant("shop/20250130T040500Z-full/notes.txt", "somebody's", &[]);
        store.plant("shop/20250131T120000Z-full/globals.sql", "x", &[(TIER_TAG, "pending")]);
        store.plant("shop2/20250130T040500Z-full/shop2.dump", "x", &[(TIER_TAG, "pending")]);
        store.plant("shop/20250130-by-hand/shop.dump", "x", &[]);
        store.plant("shop/.lease", "{}", &[]);
        store.plant("shop/notes.txt", "x", &[]);
        let young = Some("2025-01-31T11:59:00Z".parse().unwrap());
        let old = Some("2025-01-29T11:59:00Z".parse().unwrap());
        store.plant_unfinished("shop/20250130T040500Z-full/shop.dump", young);
        store.plant_unfinished("shop/20250131T120000Z-full/shop.dump", young);
        store.plant_unfinished("shop/20250129T040500Z-full/verification.json", young);
        store.plant_unfinished("shop/20250129T040500Z-full/shop.toc", old);
        store.plant_unfinished("shop/.lease", young);
        store.plant_unfinished("shop/films.mov", old);
        store.plant_unfinished("shop2/20250130T040500Z-full/shop2.dump", old);
    }

    async fn run(store: &MemoryStore) -> Cleared {
        let listed = backups(store, Some("shop")).await.unwrap();
        clear(store, &own(), &listed, NOW.parse().unwrap()).await
    }

    #[tokio::test]
    async fn a_dead_runs_files_are_given_up_and_nobody_elses() {
        let store = MemoryStore::without_lifecycle();
        fill(&store);
        let before = store.keys();
        let cleared = run(&store).await;
        assert!(cleared.warnings.is_empty());
        let gone: Vec<_> = before.iter().filter(|key| !store.keys().contains(key)).collect();
        assert_eq!(
            gone,
            [
                "shop/20250130T040500Z-full/shop.dump",
                "shop/20250130T040500Z-full/shop.toc"
            ]
        );
        let mut unfinished = store.unfinished_keys();
        unfinished.sort();
        assert_eq!(
            unfinished,
            [
                "shop/.lease",
                "shop/20250129T040500Z-full/verification.json",
                "shop/20250131T120000Z-full/shop.dump",
                "shop/films.mov",
                "shop2/20250130T040500Z-full/shop2.dump"
            ]
        );
        assert_eq!(cleared.left_overs.len(), 4);
    }

    #[tokio::test]
    async fn the_empty_folder_of_a_dead_run_goes_and_nobody_elses() {
        let root = tempfile::tempdir().unwrap();
        let folder = |name: &str| root.path().join("shop").join(name);
        let dead = folder("20250130T040500Z-full");
        let others = [
            folder("20250131T120000Z-full"),
            folder("films"),
            root.path().join("shop2/20250130T040500Z-full"),
        ];
        for folder in others.iter().chain([&dead]) {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::create_dir_all(folder("20250129T040500Z-full/somebodys")).unwrap();
        let store = crate::store::local::Local::new(root.path().to_owned());
        let cleared = clear(&store, &own(), &[], NOW.parse().unwrap()).await;
        assert!(cleared.warnings.is_empty() && cleared.left_overs.is_empty());
        assert!(!dead.exists());
        assert!(others.iter().all(|folder| folder.exists()));
        assert!(folder("20250129T040500Z-full/somebodys").exists());
    }

    #[tokio::test]
    async fn in_a_copy_only_what_is_surely_nobodys_is_given_up() {
        let dead = id("shop/20250130T040500Z-full");
        let young = id("shop/20250131T110000Z-full");
        let old = id("shop/20250129T110000Z-full");
        for (known, gone) in [(Some(&dead), true), (None, true), (Some(&young), false)] {
            let store = MemoryStore::without_lifecycle();
            // More than a day old, or named by the lease that was taken over.
            let now = if known == Some(&young) {
                "2025-01-30T20:00:00Z"
            } else {
                NOW
            };
            store.plant(&dead.key("shop.dump"), "x", &[]);
            store.plant(&old.key("shop.dump"), "x", &[]);
            store.plant_unfinished(&dead.key("shop.toc"), Some(now.parse().unwrap()));
            let own = id("shop/20250131T120000Z-full");
            let cleared = clear_copy(&store, &own, known, now.parse().unwrap()).await;
            assert!(cleared.warnings.is_empty());
            assert_eq!(!store.keys().contains(&dead.key("shop.dump")), gone);
            assert_eq!(store.unfinished_keys().is_empty(), gone);
            assert!(!store.keys().contains(&old.key("shop.dump")));
            assert!(cleared.left_overs.iter().all(|one| one.store.is_some()));
        }
    }

    #[tokio::test]
    async fn with_a_lifecycle_they_are_tagged_and_only_once() {
        let store = MemoryStore::with_lifecycle();
        fill(&store);
        let before = store.keys();
        let cleared = run(&store).await;
        assert_eq!(store.keys(), before);
        let dump = "shop/20250130T040500Z-full/shop.dump";
        assert_eq!(store.tag(dump, TIER_TAG).as_deref(), Some("pending"));
        assert_eq!(store.calls(Op::Discard), [dump]);
        assert_eq!(
            cleared.left_overs.last(),
            Some(&LeftOver {
                store: None,
                key: dump.to_owned(),
                found: What::FileWithoutManifest,
                outcome: Outcome::Discarded
            })
        );
        assert!(run(&store).await.left_overs.is_empty());
    }

    #[tokio::test]
    async fn failures_are_warnings_and_do_not_stop_the_rest() {
        let store = MemoryStore::with_lifecycle();
        fill(&store);
        store.plant("shop/20250130T040500Z-full/globals.sql", "x", &[]);
        store.fault(Op::Unfinished, 1, Fault::Reject);
        store.fault(Op::Discard, 1, Fault::Reject);
        let cleared = run(&store).await;
        assert_eq!(cleared.warnings.len(), 2);
        let failed = cleared
            .left_overs
            .iter()
            .filter(|one| matches!(one.outcome, Outcome::Failed(_)));
        assert_eq!(failed.count(), 1);
        assert_eq!(store.calls(Op::Discard).len(), 2);
        let json = serde_json::to_value(&cleared.left_overs[0]).unwrap();
        assert_eq!(json["outcome"], "failed");
        assert!(json["error"].as_str().unwrap().contains("scripted fault"));
    }

    #[tokio::test]
    async fn a_backup_whose_manifest_is_missing_from_one_list_is_left_alone() {
        for store in [MemoryStore::with_lifecycle(), MemoryStore::without_lifecycle()] {
            let good = id("shop/20250129T040500Z-full");
            plant(&store, &sample(&good, Tier::Daily), "latest");
            let mut stale = backups(&store, Some("shop")).await.unwrap();
            stale[0].has_manifest = false;
            stale[0].files.retain(|file| !file.key.ends_with("manifest.json"));
            let cleared = clear(&store, &own(), &stale, NOW.parse().unwrap()).await;
            assert!(cleared.left_overs.is_empty() && cleared.warnings.is_empty());
            assert_eq!(store.keys().len(), 4);
            assert!(store.calls(Op::Discard).is_empty());
            assert_eq!(store.calls(Op::Head), [good.manifest_key()]);

            // It cannot be seen: then nobody knows.
            store.fault(Op::Head, 1, Fault::Reject);
            let cleared = clear(&store, &own(), &stale, NOW.parse().unwrap()).await;
            assert_eq!((cleared.left_overs.len(), cleared.warnings.len()), (0, 1));
            assert!(store.calls(Op::Discard).is_empty());
        }
    }

    #[tokio::test]
    async fn whatever_bears_a_manifests_name_keeps_the_files_beside_it() {
        use std::fs;
        for make in [
            |path: &std::path::Path| std::os::unix::fs::symlink("/nowhere", path),
            |path: &std::path::Path| {
                fs::write(path.with_extension("elsewhere"), "{}")?;
                std::os::unix::fs::symlink(path.with_extension("elsewhere"), path)
            },
            |path: &std::path::Path| fs::create_dir(path),
            |path: &std::path::Path| {
                Ok(rustix::fs::mknodat(
                    rustix::fs::CWD,
                    path,
                    rustix::fs::FileType::Fifo,
                    rustix::fs::Mode::RUSR,
                    0,
                )?)
            },
        ] {
            let root = tempfile::tempdir().unwrap();
            let folder = root.path().join("shop/20250129T040500Z-full");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("shop.dump"), "precious").unwrap();
            make(&folder.join("manifest.json")).unwrap();
            let store = crate::store::local::Local::new(root.path().to_owned());
            let listed = backups(&store, Some("shop")).await.unwrap();
            let cleared = clear(&store, &own(), &listed, NOW.parse().unwrap()).await;
            assert!(cleared.left_overs.is_empty(), "{:?}", cleared.left_overs);
            assert!(folder.join("shop.dump").exists());
        }
    }

    #[tokio::test]
    async fn a_folder_full_of_junk_does_not_hold_up_a_run() {
        let store = MemoryStore::without_lifecycle();
        let first = id("shop/20250130T040500Z-full").timestamp();
        for number in 0..AT_MOST + 5 {
            let at = first + SignedDuration::from_secs(i64::try_from(number).unwrap());
            let dead = BackupId::next("shop", crate::repository::backup_id::Kind::Full, at, None);
            store.plant(&dead.key("shop.dump"), "x", &[]);
        }
        let cleared = run(&store).await;
        assert_eq!(cleared.left_overs.len(), AT_MOST);
        assert_eq!(cleared.warnings.len(), 1);
        assert_eq!(store.keys().len(), 5);
    }
}
