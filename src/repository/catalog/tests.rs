use super::*;
use crate::repository::manifest::tests::sample;
use crate::repository::retention::{SHA256_TAG, TIER_TAG, Tier};
use crate::store::memory::{Fault, MemoryStore, Op};

pub(crate) fn id(text: &str) -> BackupId {
    text.parse().unwrap()
}

/// Plants a finished backup whose files all have the tag `tag`.
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
    // The broken manifest is read twice.
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
        let found = find_by_event(&store, &listed, BackupKind::Full, "event", now, &trust)
            .await
            .unwrap();
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
    let found = find_by_event(&store, &listed, BackupKind::Full, "event-30", now, &anybody)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.id, id("shop/20250130T040500Z-full"));
    assert_eq!(store.calls(Op::Get).len(), 2);
    assert_eq!(
        find_by_event(&store, &listed, BackupKind::Full, "event-10", now, &anybody)
            .await
            .unwrap(),
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
