use super::*;
use crate::repository::catalog::tests::{id, plant};
use crate::repository::manifest::tests::sample;
use crate::repository::retention::{TIER_TAG, Tier};
use crate::store::memory::{Fault, MemoryStore, Op};

const NOW: &str = "2025-01-31T12:00:00Z";

fn own() -> BackupId {
    id("shop/20250131T120000Z-full")
}

/// A finished backup, a dead run, and files that do not belong to pgstow.
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
            outcome: LeftOverOutcome::Discarded
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
        .filter(|one| matches!(one.outcome, LeftOverOutcome::Failed(_)));
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

        // If the manifest cannot be looked up, pgstow does not know.
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
        let dead = BackupId::next("shop", crate::repository::backup_id::BackupKind::Full, at, None);
        store.plant(&dead.key("shop.dump"), "x", &[]);
    }
    let cleared = run(&store).await;
    assert_eq!(cleared.left_overs.len(), AT_MOST);
    assert_eq!(cleared.warnings.len(), 1);
    assert_eq!(store.keys().len(), 5);
}
