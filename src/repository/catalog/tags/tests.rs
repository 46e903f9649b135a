use super::*;
use crate::repository::catalog::tests::{id, plant};
use crate::repository::catalog::{SHA256SUMS, VERIFICATION, publish};
use crate::repository::manifest::tests::sample;
use crate::repository::retention::Tier;
use crate::store::memory::{Fault, MemoryStore, Op};

pub(super) fn now() -> Timestamp {
    "2025-01-31T12:00:00Z".parse().unwrap()
}

pub(super) fn day(day: u32) -> BackupId {
    id(&format!("shop/202501{day:02}T040500Z-full"))
}

/// Backups of the first days of a month, with these tags, oldest first.
pub(super) fn store_with(tags: &[&str]) -> MemoryStore {
    let store = MemoryStore::with_lifecycle();
    for (number, tag) in (1..).zip(tags) {
        let tier = if number == 1 { Tier::Monthly } else { Tier::Daily };
        plant(&store, &sample(&day(number), tier), tag);
    }
    store
}

/// The tag of every file, where all of a backup agree; oldest first.
fn tags(store: &MemoryStore) -> Vec<String> {
    let mut seen: Vec<(String, String)> = Vec::new();
    for key in store.keys() {
        let (folder, _) = key.rsplit_once('/').unwrap();
        let tag = store.tag(&key, TIER_TAG).unwrap_or_default();
        match seen.iter_mut().find(|(one, _)| one == folder) {
            None => seen.push((folder.to_owned(), tag)),
            Some((_, one)) if *one != tag => *one = "mixed".to_owned(),
            Some(_) => {}
        }
    }
    seen.into_iter().map(|(_, tag)| tag).collect()
}

#[tokio::test]
async fn a_success_retags_its_predecessor_only() {
    let store = store_with(&["monthly", "daily", "latest", "latest"]);
    let done = retag(&store, "shop", 1, now()).await.unwrap();
    assert_eq!(tags(&store), ["monthly", "daily", "daily", "latest"]);
    assert_eq!(
        done,
        [Retagged {
            id: day(3),
            to: "daily".into()
        }]
    );
    // The manifest comes last; each tagged file has its digest as a tag.
    assert_eq!(store.calls(Op::SetTags).last(), Some(&day(3).manifest_key()));
    let bytes = store.body(&day(3).manifest_key()).unwrap();
    assert_eq!(
        store.tag(&day(3).manifest_key(), SHA256_TAG),
        Some(hex::encode(Sha256::digest(&bytes)))
    );
    // One listing; manifests of three backups, tags of all files of two; four files changed.
    assert!(store.requests() <= 24, "{}", store.requests());
    assert_eq!(store.calls(Op::Get).len(), 3);

    assert_eq!(retag(&store, "shop", 1, now()).await.unwrap(), []);
}

#[tokio::test]
async fn one_that_is_dated_in_the_future_takes_no_ones_place() {
    let store = store_with(&["monthly", "latest"]);
    let ahead = id("shop/20990101T000000Z-full");
    plant(&store, &sample(&ahead, Tier::Daily), "latest");
    assert_eq!(retag(&store, "shop", 1, now()).await.unwrap(), []);
    assert_eq!(tags(&store), ["monthly", "latest", "latest"]);
}

#[tokio::test]
async fn a_backup_that_was_found_damaged_lets_the_one_before_it_stay() {
    let damaged = |day: u32| {
        let id = self::day(day);
        serde_json::json!({"schema": 1, "id": id, "verify": {"status": "failed", "at": "2025-01-31T00:00:00Z"}})
            .to_string()
    };
    // The third backup was found damaged; then the next one was made.
    let store = store_with(&["monthly", "daily", "latest", "latest"]);
    store.plant(&day(3).key(VERIFICATION), damaged(3), &[(TIER_TAG, "latest")]);
    retag(&store, "shop", 1, now()).await.unwrap();
    assert_eq!(tags(&store), ["monthly", "latest", "daily", "latest"]);

    // The newest itself is damaged, and no backup follows.
    let store = store_with(&["monthly", "daily", "daily", "latest"]);
    store.plant(&day(4).key(VERIFICATION), damaged(4), &[(TIER_TAG, "latest")]);
    retag_all(&store, "shop", 1, now()).await.unwrap();
    assert_eq!(tags(&store), ["monthly", "daily", "latest", "latest"]);

    // An older backup is damaged.
    let store = store_with(&["monthly", "daily", "daily", "daily", "latest"]);
    store.plant(&day(3).key(VERIFICATION), damaged(3), &[(TIER_TAG, "daily")]);
    retag_all(&store, "shop", 1, now()).await.unwrap();
    assert_eq!(tags(&store), ["monthly", "latest", "daily", "daily", "latest"]);
}

#[tokio::test]
async fn a_digest_that_a_tag_says_is_not_replaced_by_that_of_what_is_there_now() {
    let store = store_with(&["monthly", "latest", "latest"]);
    let key = day(2).manifest_key();
    let bytes = store.body(&key).unwrap();
    store.plant(&key, bytes, &[(TIER_TAG, "latest"), (SHA256_TAG, "what it was")]);
    retag(&store, "shop", 1, now()).await.unwrap();
    assert_eq!(tags(&store), ["monthly", "daily", "latest"]);
    assert_eq!(store.tag(&key, SHA256_TAG).as_deref(), Some("what it was"));
}

#[tokio::test]
async fn the_tier_is_the_one_that_the_manifest_names() {
    let store = store_with(&["latest", "latest"]);
    retag(&store, "shop", 1, now()).await.unwrap();
    assert_eq!(tags(&store), ["monthly", "latest"]);
}

#[tokio::test]
async fn a_raised_floor_promotes_and_a_lowered_one_demotes() {
    let store = store_with(&["monthly", "daily", "daily", "latest", "latest"]);
    retag(&store, "shop", 4, now()).await.unwrap();
    assert_eq!(tags(&store), ["monthly", "latest", "latest", "latest", "latest"]);
    retag(&store, "shop", 2, now()).await.unwrap();
    assert_eq!(tags(&store), ["monthly", "daily", "daily", "latest", "latest"]);
}

#[tokio::test]
async fn a_broken_backup_is_neither_counted_nor_touched() {
    let store = store_with(&["monthly", "latest", "latest"]);
    store.plant(&day(3).manifest_key(), "{", &[(TIER_TAG, "latest")]);
    assert_eq!(retag(&store, "shop", 1, now()).await.unwrap(), []);
    assert_eq!(tags(&store), ["monthly", "latest", "latest"]);
}

#[tokio::test]
async fn a_latest_manifest_over_a_pending_archive_is_repaired() {
    let store = store_with(&["monthly", "latest"]);
    store.plant(&day(2).key("shop.dump"), "data", &[(TIER_TAG, "pending")]);
    retag(&store, "shop", 1, now()).await.unwrap();
    assert_eq!(tags(&store), ["monthly", "latest"]);
}

#[tokio::test]
async fn a_demotion_that_was_interrupted_is_undone_when_the_backup_is_the_last_good_one_again() {
    let store = store_with(&["monthly", "latest", "latest"]);
    store.fault(Op::SetTags, 2, Fault::Reject);
    retag(&store, "shop", 1, now()).await.unwrap_err();
    assert_eq!(tags(&store)[1], "mixed");
    store.remove(&day(3).key("shop.dump"));
    retag(&store, "shop", 1, now()).await.unwrap();
    assert_eq!(tags(&store)[1], "latest");
}

#[tokio::test]
async fn other_peoples_tags_stay() {
    let store = store_with(&["monthly", "latest", "latest"]);
    store.plant(
        &day(2).key(SHA256SUMS),
        "sums",
        &[(TIER_TAG, "latest"), ("team", "shop")],
    );
    retag(&store, "shop", 1, now()).await.unwrap();
    assert_eq!(store.tag(&day(2).key(SHA256SUMS), "team").as_deref(), Some("shop"));
    assert_eq!(store.tag(&day(2).key(SHA256SUMS), TIER_TAG).as_deref(), Some("daily"));
}

#[tokio::test]
async fn wherever_retagging_stops_nothing_that_counts_expires_and_the_next_run_finishes() {
    // The floor is raised from 1 to 2, and one backup is demoted: 2 × 4 files to tag.
    for fault in [Fault::Reject, Fault::LoseAnswer] {
        for nth in 1..=8 {
            let store = store_with(&["monthly", "latest", "daily", "latest"]);
            store.fault(Op::SetTags, nth, fault);
            retag(&store, "shop", 2, now()).await.unwrap_err();
            // The newest is kept. If the manifest of the backup before says `latest`, all of its files say so.
            assert_eq!(tags(&store)[3], "latest");
            if store.tag(&day(3).manifest_key(), TIER_TAG).as_deref() == Some("latest") {
                assert_eq!(tags(&store)[2], "latest");
            }
            // A backup is demoted only when all backups that must stay are safe.
            if tags(&store)[1] != "latest" {
                assert_eq!(tags(&store)[2], "latest");
            }
            retag(&store, "shop", 2, now()).await.unwrap();
            assert_eq!(
                tags(&store),
                ["monthly", "daily", "latest", "latest"],
                "{fault:?} {nth}"
            );
        }
    }
}

#[tokio::test]
async fn a_committed_backup_never_bears_pending() {
    let store = MemoryStore::with_lifecycle();
    let manifest = sample(&day(1), Tier::Daily);
    let mut files = Vec::new();
    for file in manifest.files.values() {
        store.plant(&manifest.id.key(&file.name), "data", &[(TIER_TAG, "pending")]);
        files.push((file.name.clone(), file.sha256.clone()));
    }
    store.fault(Op::SetTags, 2, Fault::Reject);
    commit_tags(&store, &manifest.id, &files).await.unwrap_err();
    commit_tags(&store, &manifest.id, &files).await.unwrap();
    publish(&store, &manifest, None).await.unwrap();
    assert_eq!(tags(&store), ["latest"]);
    assert_eq!(store.tag(&day(1).key("shop.dump"), SHA256_TAG), Some("11".repeat(32)));
}

#[tokio::test]
async fn a_store_without_lifecycle_is_left_to_prune() {
    let store = MemoryStore::without_lifecycle();
    plant(&store, &sample(&day(1), Tier::Daily), "");
    assert_eq!(retag(&store, "shop", 1, now()).await.unwrap(), []);
    commit_tags(&store, &day(1), &[("shop.dump".into(), String::new())])
        .await
        .unwrap();
    assert_eq!(store.requests(), 0);
}
