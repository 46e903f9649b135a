use super::*;
use crate::repository::catalog::tests::{id, plant};
use crate::repository::manifest::tests::sample;
use crate::repository::retention::Tier;
use crate::store::memory::{Fault, MemoryStore, Op};

async fn all(store: &MemoryStore) -> Result<Vec<Overview>> {
    let listed = reachable_folders(store, None).await?;
    overviews(store, listed, &Trust::default()).await
}

#[tokio::test]
async fn five_thousand_backups_cost_one_listing_and_one_request_each() {
    let store = MemoryStore::without_lifecycle();
    let first = id("shop/20100101T040500Z-full").timestamp();
    for day in 0..5_000 {
        let at = first + jiff::SignedDuration::from_hours(24 * day);
        let id = BackupId::next("shop", crate::repository::backup_id::BackupKind::Full, at, None);
        let bytes = sample(&id, Tier::Daily).to_bytes().unwrap();
        store.plant(&id.manifest_key(), bytes, &[]);
    }
    let newest = "shop/20230909T040500Z-full";
    store.plant(&format!("{newest}/verification.json"), "{", &[]);
    let found = all(&store).await.unwrap();
    assert_eq!(found.len(), 5_000);
    assert_eq!(found[0].id().to_string(), newest);
    assert_eq!(found[0].figures().unwrap().tables.rows, 3);
    // To see whether it is there, the databases, the listing, and one verification.
    assert_eq!(store.requests(), 5_000 + 4);
    assert_eq!(store.calls(Op::Get).len(), 5_001);
}

#[tokio::test]
async fn what_is_wrong_with_one_backup_is_told_with_it() {
    let store = MemoryStore::without_lifecycle();
    let day = |day: u32| id(&format!("shop/202501{day:02}T040500Z-full"));
    for number in 1..=5 {
        plant(&store, &sample(&day(number), Tier::Daily), "");
    }
    store.plant(&day(5).manifest_key(), "{\"schema\":", &[]);
    store.plant(&day(4).manifest_key(), "{\"schema\": 4}", &[]);
    let copied = sample(&day(1), Tier::Daily).to_bytes().unwrap();
    store.plant(&day(3).manifest_key(), copied, &[]);
    store.remove(&day(2).key("shop.toc"));
    store.plant(&day(1).key(VERIFICATION), "[]", &[]);
    store.plant("shop/20250106T040500Z-full/shop.dump", "x", &[]);
    let found = all(&store).await.unwrap();
    assert_eq!(found.len(), 5);
    for (overview, flaw) in found.iter().zip(["not JSON", "schema 4", "copied or moved"]) {
        assert!(overview.flaw().unwrap().contains(flaw), "{:?}", overview.seen);
        assert!(!overview.is_good());
    }
    assert_eq!(found[3].lacks, ["shop.toc"]);
    assert!(!found[3].is_good());
    assert!(found[4].unverifiable.is_some() && found[4].is_good());
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_told_and_a_store_that_keeps_failing_is_an_error() {
    let store = MemoryStore::without_lifecycle();
    for number in 1..=20 {
        plant(
            &store,
            &sample(&id(&format!("shop/202501{number:02}T040500Z-full")), Tier::Daily),
            "",
        );
    }
    store.fault(Op::Get, 1, Fault::Reject);
    let found = all(&store).await.unwrap();
    assert_eq!(found.iter().filter(|one| one.flaw().is_some()).count(), 1);
    for nth in 1..=20 {
        store.fault(Op::Get, nth, Fault::Reject);
    }
    assert_eq!(all(&store).await.unwrap_err().code(), Code::Store);
}
