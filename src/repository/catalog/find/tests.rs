use std::sync::LazyLock;

use super::*;
use crate::repository::catalog::tests::{id, plant};
use crate::repository::manifest::tests::sample;
use crate::repository::retention::Tier;
use crate::repository::signature::Trust;
use crate::store::memory::{Fault, MemoryStore, Op};

const OLD: &str = "shop/20250129T040500Z-full";
const MIDDLE: &str = "shop/20250130T040500Z-full";
const NEW: &str = "shop/20250131T040500Z-full";
const NOW: &str = "2025-02-01T00:00:00Z";

fn undemanding() -> Demand<'static> {
    static NOBODY: LazyLock<Trust> = LazyLock::new(Trust::default);
    Demand {
        trust: &NOBODY,
        manifest: None,
        now: NOW.parse().unwrap(),
        altered: false,
    }
}

fn holding(ids: &[&str]) -> MemoryStore {
    let store = MemoryStore::with_lifecycle();
    for text in ids {
        plant(&store, &sample(&id(text), Tier::Daily), "daily");
    }
    store
}

fn stores(stores: &[&MemoryStore]) -> Vec<Arc<dyn Store>> {
    stores
        .iter()
        .map(|store| Arc::new((*store).clone()) as Arc<dyn Store>)
        .collect()
}

async fn found(places: &[&MemoryStore], wanted: &str, database: Option<&str>) -> (String, Vec<String>) {
    let located = find(&stores(places), wanted, database, &undemanding()).await.unwrap();
    (located.manifest.id.to_string(), located.warnings)
}

async fn refused(places: &[&MemoryStore], wanted: &str, database: Option<&str>) -> Error {
    match find(&stores(places), wanted, database, &undemanding()).await {
        Ok(located) => panic!("found {}", located.manifest.id),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_backup_is_found_by_its_id_and_the_latest_by_that_word() {
    let store = holding(&[OLD, MIDDLE, NEW]);
    assert_eq!(found(&[&store], OLD, None).await, (OLD.to_owned(), vec![]));
    assert_eq!(found(&[&store], "latest", None).await, (NEW.to_owned(), vec![]));
    // A newer folder without a manifest is no backup.
    store.plant("shop/20250201T040500Z-full/shop.dump", "half", &[]);
    assert_eq!(found(&[&store], "latest", Some("shop")).await, (NEW.to_owned(), vec![]));
    let error = refused(&[&store], "shop/20250201T040500Z-full", None).await;
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.message().contains("it has no manifest"), "{error}");
}

#[tokio::test]
async fn the_latest_of_several_databases_needs_a_name() {
    let store = holding(&[OLD, "shop2/20250131T040500Z-full", "a%2Fb/20250131T040500Z-full"]);
    let error = refused(&[&store], "latest", None).await;
    assert_eq!(error.code(), Code::Config);
    assert!(error.message().ends_with("a/b, shop, shop2"), "{error}");
    assert_eq!(found(&[&store], "latest", Some("shop")).await.0, OLD);
    assert_eq!(
        found(&[&store], "latest", Some("a/b")).await.0,
        "a%2Fb/20250131T040500Z-full"
    );
    // A folder without a backup is not a second database.
    let store = holding(&[OLD]);
    store.plant("notes/readme.txt", "x", &[]);
    store.plant("shop2/.lease", "{}", &[]);
    assert_eq!(found(&[&store], "latest", None).await.0, OLD);
}

#[tokio::test]
async fn nothing_is_found_by_a_prefix() {
    let store = holding(&["app_prod/20250131T040500Z-full"]);
    for wanted in [
        "app/20250131T040500Z-full",
        "app",
        "app_prod",
        "app_prod/20250131T040500Z-ful",
        "app_prod/20250131T040500Z",
        "",
        "LATEST",
    ] {
        let error = refused(&[&store], wanted, None).await;
        assert_eq!(error.code(), Code::NotFound, "{wanted}");
        assert!(error.hint_text().contains("app_prod/20250131T040500Z-full"), "{wanted}");
    }
    let error = refused(&[&store], "latest", Some("app")).await;
    assert_eq!(error.code(), Code::NotFound);
    assert!(
        error.message().contains("no good backup of app in memory://test"),
        "{error}"
    );
    assert_eq!(
        error.hint_text(),
        "memory://test has backups of: app_prod; name the database with --database, or correct --store"
    );
}

#[tokio::test]
async fn an_unknown_id_names_the_nearest_in_time_of_its_database() {
    let store = holding(&[
        OLD,
        MIDDLE,
        NEW,
        "shop/20240101T040500Z-full",
        "shoe/20250129T050000Z-full",
    ]);
    let error = refused(&[&store], "shop/20250130T120000Z-full", None).await;
    assert_eq!(error.code(), Code::NotFound);
    assert!(
        error.hint_text().contains(&format!("{MIDDLE}, {NEW}, {OLD};")),
        "{}",
        error.hint_text()
    );
    // For another database, or none: the most similar names, newest first.
    let error = refused(&[&store], "shope/20250129T050000Z-full", None).await;
    assert!(
        error.hint_text().contains(": shoe/20250129T050000Z-full, "),
        "{}",
        error.hint_text()
    );
    let error = refused(&[&store], "shop", None).await;
    assert!(
        error.hint_text().contains(&format!(": {NEW}, {MIDDLE}, {OLD};")),
        "{}",
        error.hint_text()
    );
    let error = refused(&[&store], "20240101T040500Z-full", None).await;
    assert!(
        error.hint_text().contains(": shop/20240101T040500Z-full, "),
        "{}",
        error.hint_text()
    );
    let error = refused(&[&MemoryStore::with_lifecycle()], NEW, None).await;
    assert!(error.hint_text().contains("check --store"), "{}", error.hint_text());
    let long = "x".repeat(1 << 20);
    assert_eq!(refused(&[&store], &long, None).await.code(), Code::NotFound);
}

#[tokio::test]
async fn a_newest_backup_that_is_broken_is_passed_over_and_told() {
    let store = holding(&[OLD, MIDDLE, NEW]);
    store.plant(&id(NEW).manifest_key(), "{\"schema\": 1,", &[]);
    store.remove(&id(MIDDLE).key("shop.dump"));
    let (latest, warnings) = found(&[&store], "latest", None).await;
    assert_eq!(latest, OLD);
    assert!(warnings[0].contains(NEW), "{warnings:?}");
    assert!(warnings[1].contains("shop.dump is missing"), "{warnings:?}");
    assert!(warnings[2].contains(OLD), "{warnings:?}");
    // By its id, the broken one is an error, and the other is used as far as it can be read.
    let error = refused(&[&store], NEW, None).await;
    assert_eq!(error.code(), Code::Integrity);
    let (named, warnings) = found(&[&store], MIDDLE, None).await;
    assert_eq!(named, MIDDLE);
    assert!(warnings[0].contains("shop.dump is missing"), "{warnings:?}");
    // If no good one is left, the error is that of the newest.
    store.remove(&id(OLD).key("shop.toc"));
    let error = refused(&[&store], "latest", None).await;
    assert_eq!(error.code(), Code::Integrity);
    assert!(error.message().contains(NEW), "{error}");
}

#[tokio::test]
async fn a_copy_is_used_when_the_primary_cannot_be_asked_or_lacks_the_backup_or_has_it_broken() {
    let copy = holding(&[OLD, NEW]);
    for wanted in [NEW, "latest"] {
        let ill = holding(&[OLD, NEW]);
        ill.fault(Op::List, 1, Fault::Reject);
        ill.fault(Op::Folders, 1, Fault::Reject);
        let empty = MemoryStore::with_lifecycle();
        let broken = holding(&[OLD, NEW]);
        broken.plant(&id(NEW).manifest_key(), "{}", &[]);
        let lacking = holding(&[OLD, NEW]);
        lacking.plant(&id(NEW).key("shop.dump"), "shorter, or longer", &[]);
        for (primary, why) in [
            (&ill, "rejected"),
            (&empty, "there is no"),
            (&broken, "not a manifest"),
            (&lacking, "shop.dump has 18 bytes and not 4"),
        ] {
            let (id, warnings) = found(&[primary, &copy], wanted, None).await;
            assert_eq!(id, NEW, "{wanted}: {why}");
            assert_eq!(warnings.len(), 2, "{wanted}: {warnings:?}");
            assert!(warnings[0].contains(why), "{wanted}: {warnings:?}");
            assert!(warnings[1].contains("is used instead"), "{wanted}: {warnings:?}");
        }
    }
}

#[tokio::test]
async fn a_store_that_fails_is_no_reason_to_take_an_older_backup() {
    let store = holding(&[OLD, NEW]);
    store.fault(Op::Get, 1, Fault::Reject);
    assert_eq!(refused(&[&store], "latest", None).await.code(), Code::Store);
    // A copy knows what it has.
    store.fault(Op::Get, 1, Fault::Reject);
    let (latest, warnings) = found(&[&store, &holding(&[OLD, NEW])], "latest", None).await;
    assert_eq!(latest, NEW);
    assert!(warnings[0].contains("rejected"), "{warnings:?}");
}

#[tokio::test]
async fn when_every_store_fails_the_primarys_error_comes_first() {
    let (primary, copy) = (holding(&[OLD]), holding(&[OLD]));
    primary.fault(Op::List, 1, Fault::Reject);
    let error = refused(&[&primary, &copy], NEW, None).await;
    assert_eq!(error.code(), Code::Store);
    assert!(error.message().contains("and then: there is no backup"), "{error}");
    let error = refused(&[&copy, &primary], NEW, None).await;
    assert!(!error.message().contains("and then"), "{error}");
    // Only the user can say which database; the copies are not asked.
    let several = holding(&[OLD, "shop2/20250131T040500Z-full"]);
    assert_eq!(refused(&[&several, &copy], "latest", None).await.code(), Code::Config);
}

#[tokio::test]
async fn the_latest_is_none_that_a_check_has_found_damaged() {
    let condemn = |store: &MemoryStore, text: &str, what: &str| {
        let id = id(text);
        let mut found = serde_json::json!({"schema": 1, "id": id});
        found[what] = serde_json::json!({"status": "failed", "at": "2025-01-31T00:00:00Z"});
        store.plant(&id.key(VERIFICATION), found.to_string(), &[]);
    };
    let (store, copy) = (holding(&[OLD, MIDDLE, NEW]), holding(&[NEW]));
    condemn(&store, NEW, "drill");
    condemn(&store, MIDDLE, "verify");
    let (latest, warnings) = found(&[&store], "latest", None).await;
    assert_eq!(latest, OLD);
    assert!(
        warnings[0].contains("was found damaged") && warnings[2].contains("is used instead"),
        "{warnings:?}"
    );
    // Its copy was not found damaged.
    assert_eq!(found(&[&store, &copy], "latest", None).await.0, NEW);
    // A user who gives the id means this backup, and a check must see it.
    assert_eq!(found(&[&store], NEW, None).await.0, NEW);
    let checking = Demand {
        altered: true,
        ..undemanding()
    };
    let located = find(&stores(&[&store]), "latest", None, &checking).await.unwrap();
    assert_eq!(located.manifest.id.to_string(), NEW);
    condemn(&store, OLD, "verify");
    let error = refused(&[&store], "latest", None).await;
    assert_eq!(error.code(), Code::Integrity);
    assert!(error.hint_text().contains("give its id"), "{error}");
}
