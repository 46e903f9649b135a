use std::sync::LazyLock;

use super::*;
use crate::error::{Code, Signal};
use crate::repository::backup_id::VERIFICATION;
use crate::repository::catalog::tests::{id, plant};
use crate::repository::chain::tests::{full, link, manifest_of, manifest_of_link, minute};
use crate::repository::manifest::References;
use crate::repository::manifest::tests::sample;
use crate::repository::retention::Policy;
use crate::repository::retention::Tier;
use crate::store::memory::{Fault, MemoryStore, Op};

/// No signatures are required.
static NOBODY: LazyLock<Trust> = LazyLock::new(Trust::default);
const NOW: &str = "2025-03-01T00:00:00Z";

fn day(day: u32) -> BackupId {
    id(&format!("shop/202501{day:02}T040500Z-full"))
}

/// Backups of the first days of January, all older than their week.
fn fill(store: &MemoryStore, days: u32) {
    for number in 1..=days {
        plant(store, &sample(&day(number), Tier::Daily), "daily");
    }
}

async fn prune(store: &MemoryStore, request: PruneRequest) -> PruneReport {
    let stores: [Arc<dyn Store>; 1] = [Arc::new(store.clone())];
    let retention = Retention::of(Policy::Days(7));
    let job = Job {
        stores: &stores,
        retention: &retention,
        trust: &NOBODY,
        now: NOW.parse().unwrap(),
        stop: &Stop::new(),
    };
    run(&job, &request).await.unwrap()
}

fn folders(store: &MemoryStore) -> Vec<String> {
    let mut folders: Vec<String> = store
        .keys()
        .iter()
        .filter_map(|key| Some(key.rsplit_once('/')?.0.to_owned()))
        .collect();
    folders.dedup();
    folders
}

#[tokio::test]
async fn the_manifest_goes_first_and_the_oldest_backup_before_the_others() {
    let store = MemoryStore::without_lifecycle();
    fill(&store, 3);
    store.plant(&day(2).key(VERIFICATION), "{}", &[]);
    store.plant_unfinished(&day(1).key(VERIFICATION), None);
    let report = prune(&store, PruneRequest::default()).await;
    assert_eq!(folders(&store), [day(3).to_string()]);
    assert!(store.unfinished_keys().is_empty());
    assert_eq!(
        (report.status, report.removed, report.exit_code()),
        (PruneStatus::Ok, 2, 0)
    );
    let discarded = store.calls(Op::Discard);
    assert_eq!(discarded[0], day(1).manifest_key());
    assert_eq!(discarded[4], day(2).manifest_key());
    assert_eq!(discarded.len(), 4 + 5);

    // A second one finds nothing to do.
    let report = prune(&store, PruneRequest::default()).await;
    assert_eq!((report.removed, store.calls(Op::Discard).len()), (0, 9));
}

#[tokio::test]
async fn a_backup_to_which_another_refers_stays_as_long_as_that_one() {
    let store = MemoryStore::without_lifecycle();
    fill(&store, 2);
    let mut refers = sample(&day(3), Tier::Daily);
    refers.references = Some(References {
        from: day(1),
        file: refers.files["dump"].clone(),
        tables: 1,
        bytes: 1,
    });
    plant(&store, &refers, "daily");
    prune(&store, PruneRequest::default()).await;
    // The third is the newest good one, and the first is what it needs.
    assert_eq!(folders(&store), [day(1).to_string(), day(3).to_string()]);
    plant(&store, &sample(&day(4), Tier::Daily), "daily");
    // The third goes, and only after it the first.
    prune(&store, PruneRequest::default()).await;
    assert_eq!(folders(&store), [day(1).to_string(), day(4).to_string()]);
    prune(&store, PruneRequest::default()).await;
    assert_eq!(folders(&store), [day(4).to_string()]);
}

#[tokio::test]
async fn a_backup_that_cannot_be_withdrawn_stays_whole_and_the_others_go() {
    let store = MemoryStore::without_lifecycle();
    fill(&store, 3);
    store.fault(Op::Discard, 1, Fault::Reject);
    let report = prune(&store, PruneRequest::default()).await;
    assert_eq!(folders(&store), [day(1).to_string(), day(3).to_string()]);
    assert_eq!(store.keys().len(), 8);
    assert_eq!(
        (report.status, report.removed, report.exit_code()),
        (PruneStatus::Failed, 1, 30)
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["error"]["code"], "STORE");
    let [newest, middle, oldest] = [0, 1, 2].map(|at| &json["stores"][0]["backups"][at]);
    assert_eq!(
        (&newest["action"], &newest["outcome"]),
        (&"keep".into(), &serde_json::Value::Null)
    );
    assert_eq!(
        (&middle["action"], &middle["outcome"]),
        (&"remove".into(), &"removed".into())
    );
    assert_eq!(
        (&oldest["id"], &oldest["outcome"]),
        (&day(1).to_string().into(), &"failed".into())
    );
    assert!(
        report.to_string().contains("FAILED   shop/20250101T040500Z-full"),
        "{report}"
    );
}

#[tokio::test]
async fn whatever_fails_no_manifest_is_without_its_files_and_the_next_prune_finishes() {
    for fault in [Fault::Reject, Fault::LoseAnswer] {
        for nth in 1..=8 {
            let store = MemoryStore::without_lifecycle();
            fill(&store, 3);
            store.fault(Op::Discard, nth, fault);
            let report = prune(&store, PruneRequest::default()).await;
            assert_eq!(report.status, PruneStatus::Failed);
            for number in 1..=3 {
                let manifest = day(number).manifest_key();
                let files = store
                    .keys()
                    .iter()
                    .filter(|key| key.starts_with(&day(number).folder()))
                    .count();
                assert!(!store.keys().contains(&manifest) || files == 4, "{fault:?} {nth}");
            }
            assert!(store.keys().contains(&day(3).manifest_key()));
            let report = prune(&store, PruneRequest::default()).await;
            assert_eq!(
                (report.status, folders(&store)),
                (PruneStatus::Ok, vec![day(3).to_string()])
            );
        }
    }
}

#[tokio::test]
async fn a_bucket_is_left_to_its_lifecycle_and_a_dry_run_touches_nothing() {
    let bucket = MemoryStore::with_lifecycle();
    fill(&bucket, 3);
    let report = prune(&bucket, PruneRequest::default()).await;
    assert!(bucket.calls(Op::Discard).is_empty() && bucket.calls(Op::SetTags).is_empty());
    assert_eq!(bucket.keys().len(), 12);
    assert!(report.stores[0].by_lifecycle);
    let shown = report.to_string();
    assert!(
        shown.contains("lifecycle rules") && shown.contains("goes     shop/20250102T040500Z-full"),
        "{shown}"
    );

    let store = MemoryStore::without_lifecycle();
    fill(&store, 3);
    let request = PruneRequest {
        dry_run: true,
        ..PruneRequest::default()
    };
    let report = prune(&store, request).await;
    assert!(store.calls(Op::Discard).is_empty());
    assert_eq!(report.stores[0].backups.len(), 3);
    assert_eq!(report.removed, 0);
}

#[tokio::test]
async fn a_left_over_goes_unless_a_run_may_be_at_work() {
    let lease = |until: &str, released: bool| {
        serde_json::json!({
            "holder": {"host": "vm", "pid": 1},
            "run": "r",
            "acquired_at": "2025-01-01T00:00:00Z",
            "expires_at": until,
            "released": released
        })
        .to_string()
    };
    for (body, gone) in [
        (None, true),
        (Some(lease("2025-01-01T00:00:00Z", false)), true),
        (Some(lease("2030-01-01T00:00:00Z", true)), true),
        (Some(lease("2030-01-01T00:00:00Z", false)), false),
        (Some("not a lease".to_owned()), false),
    ] {
        let store = MemoryStore::without_lifecycle();
        plant(&store, &sample(&day(3), Tier::Daily), "");
        store.plant(&day(1).key("shop.dump"), "x", &[]);
        store.plant_unfinished(&day(2).key("shop.dump"), None);
        if let Some(body) = body {
            store.plant("shop/.lease", body, &[]);
        }
        let report = prune(&store, PruneRequest::default()).await;
        assert_eq!(report.stores[0].backups.len(), 3, "{report}");
        assert_eq!(!store.keys().contains(&day(1).key("shop.dump")), gone, "{report}");
        assert_eq!(store.unfinished_keys().is_empty(), gone, "{report}");
    }
}

#[tokio::test]
async fn a_stop_between_two_backups_ends_it_and_says_how_far_it_came() {
    let store = MemoryStore::without_lifecycle();
    fill(&store, 3);
    let stores: [Arc<dyn Store>; 1] = [Arc::new(store.clone())];
    let retention = Retention::of(Policy::Days(7));
    let stop = Stop::new();
    stop.request(Reason::Signal(Signal::Terminate));
    let request = PruneRequest::default();
    let job = Job {
        stores: &stores,
        retention: &retention,
        trust: &NOBODY,
        now: NOW.parse().unwrap(),
        stop: &stop,
    };
    let error = run(&job, &request).await.unwrap_err();
    assert_eq!(error.code(), Code::Interrupted(Signal::Terminate));
    assert!(error.message().contains("0 backups were removed"), "{error}");
    assert_eq!(store.keys().len(), 12);
}

/// A day of the chain's clock, in minutes.
const DAY: i64 = 24 * 60;

/// Daily full backups, and increments of six hours each, for so many days.
fn fill_with_increments(store: &MemoryStore, days: i64) {
    for at in 0..days * 4 {
        plant(store, &manifest_of_link(&link(at * 360, at * 360 + 360)), "latest");
    }
    for at in 0..days {
        plant(store, &manifest_of(&full(at * DAY + 30)), "daily");
    }
}

async fn pruned(store: &MemoryStore, days: u32, now: Timestamp) -> PruneReport {
    let stores: [Arc<dyn Store>; 1] = [Arc::new(store.clone())];
    let retention = Retention::of(Policy::Days(days));
    let job = Job {
        stores: &stores,
        retention: &retention,
        trust: &NOBODY,
        now,
        stop: &Stop::new(),
    };
    run(&job, &PruneRequest::default()).await.unwrap()
}

async fn history_of(store: &MemoryStore, now: Timestamp) -> History {
    let listed = reachable_folders(store, None).await.unwrap();
    let seen = overviews(store, listed, &NOBODY).await.unwrap();
    histories(&seen, Counting::Good, now).remove("shop").unwrap()
}

#[tokio::test]
async fn a_chain_is_shortened_at_its_old_end_and_the_window_stays_whole() {
    let store = MemoryStore::without_lifecycle();
    fill_with_increments(&store, 20);
    let now = minute(20 * DAY);
    let before = history_of(&store, now).await;
    let report = pruned(&store, 9, now).await;
    assert!(report.removed > 40, "{report}");
    let after = history_of(&store, now).await;
    assert_eq!((after.runs().len(), after.gaps().len()), (1, 0));
    let (window, whole) = (window::current(&after).unwrap(), window::current(&before).unwrap());
    assert_eq!(window.latest, whole.latest);
    assert!(
        window.earliest.time <= now - jiff::SignedDuration::from_hours(7 * 24),
        "{window:?}"
    );
    // About nine days of increments stay.
    let left = after.newest().unwrap().links().len();
    assert!((30..=38).contains(&left), "{left}");
    assert_eq!(pruned(&store, 9, now).await.removed, 0);
}

#[tokio::test]
async fn the_base_of_the_window_stays_although_its_tier_is_over_and_says_why() {
    let store = MemoryStore::without_lifecycle();
    fill_with_increments(&store, 20);
    let now = minute(20 * DAY);
    let report = pruned(&store, 3, now).await;
    let base = report.stores[0]
        .backups
        .iter()
        .rev()
        .find(|one| one.action == Action::Keep && one.id.to_string().ends_with("-full"))
        .unwrap();
    assert!(base.reason.contains("needed to restore moments"), "{report}");
    let after = history_of(&store, now).await;
    let window = window::current(&after).unwrap();
    assert!(
        window.earliest.time <= now - jiff::SignedDuration::from_hours(7 * 24),
        "{window:?}"
    );
}

#[tokio::test]
async fn when_backups_stop_the_last_full_one_stays_with_all_increments_after_it() {
    let store = MemoryStore::without_lifecycle();
    fill_with_increments(&store, 20);
    let now = minute(100 * DAY);
    let report = pruned(&store, 9, now).await;
    let after = history_of(&store, now).await;
    assert_eq!(after.newest().unwrap().bases().len(), 1, "{report}");
    let window = window::current(&after).unwrap();
    assert_eq!(
        window.earliest.time,
        minute(19 * DAY + 30) + jiff::SignedDuration::from_secs(30)
    );
    assert_eq!(
        window.latest.time,
        minute(20 * DAY) - jiff::SignedDuration::from_micros(1)
    );
}

#[tokio::test]
async fn increments_without_a_base_go_when_they_are_old() {
    let store = MemoryStore::without_lifecycle();
    for at in 0..8 {
        plant(&store, &manifest_of_link(&link(at * 360, at * 360 + 360)), "latest");
    }
    assert_eq!(pruned(&store, 30, minute(3 * DAY)).await.removed, 0);
    assert_eq!(pruned(&store, 30, minute(12 * DAY)).await.removed, 8);
}
