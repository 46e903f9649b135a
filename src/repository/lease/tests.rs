use super::*;
use crate::store::memory::{Fault, MemoryStore, Op};

const KEY: &str = "shop/.lease";
const TTL: Duration = Duration::from_secs(60);

fn noon() -> Timestamp {
    "2025-01-31T12:00:00Z".parse().unwrap()
}

fn within_the_minute() -> Timestamp {
    "2025-01-31T12:00:59Z".parse().unwrap()
}

fn a_minute_later() -> Timestamp {
    "2025-01-31T12:01:00Z".parse().unwrap()
}

async fn acquire(store: &MemoryStore, pid: u32, ttl: Duration, clock: Clock) -> Result<Acquired> {
    let holder = Holder {
        host: "vm-1".into(),
        pid,
    };
    Lease::acquire(Arc::new(store.clone()), "shop", holder, ttl, clock).await
}

fn body(store: &MemoryStore) -> Body {
    serde_json::from_slice(&store.body(KEY).unwrap()).unwrap()
}

#[tokio::test]
async fn a_second_run_is_told_who_holds_the_lease() {
    let store = MemoryStore::with_lifecycle();
    let first = acquire(&store, 1, TTL, noon).await.unwrap();
    assert_eq!(first.took_over, None);
    let id = "shop/20250131T120000Z-full".parse().unwrap();
    first.lease.announce(&id).await.unwrap();
    assert_eq!(store.tag(KEY, "pgstow-tier"), None);

    let error = acquire(&store, 2, TTL, within_the_minute).await.unwrap_err();
    assert_eq!(error.code(), Code::Busy);
    for part in [
        "process 1 on vm-1",
        "shop/20250131T120000Z-full",
        "since 2025-01-31T12:00:00Z",
        "until 2025-01-31T12:01:00Z",
    ] {
        assert!(error.message().contains(part), "{error}");
    }
    assert_eq!(body(&store).holder.pid, 1);
}

#[tokio::test]
async fn a_released_lease_is_free_at_once_and_was_not_taken_over() {
    let store = MemoryStore::with_lifecycle();
    let first = acquire(&store, 1, TTL, noon).await.unwrap();
    first.lease.release().await.unwrap();
    assert!(body(&store).released);
    assert_eq!(body(&store).expires_at, noon());
    let second = acquire(&store, 2, TTL, noon).await.unwrap();
    assert_eq!(second.took_over, None);
    assert_eq!(body(&store).holder.pid, 2);
}

#[tokio::test]
async fn a_dead_runs_lease_is_taken_over_when_it_has_expired() {
    let store = MemoryStore::with_lifecycle();
    let first = acquire(&store, 1, TTL, noon).await.unwrap();
    drop(first);
    assert!(acquire(&store, 2, TTL, within_the_minute).await.is_err());
    let second = acquire(&store, 2, TTL, a_minute_later).await.unwrap();
    let previous = second.took_over.unwrap();
    assert_eq!(previous.holder.pid, 1);
    assert_eq!(previous.expired_at, a_minute_later());
}

#[tokio::test]
async fn of_two_that_race_one_wins() {
    let store = MemoryStore::with_lifecycle();
    // Not taken yet, then expired, then released.
    for (round, clock) in [noon as Clock, a_minute_later, a_minute_later].into_iter().enumerate() {
        let (one, two) = tokio::join!(acquire(&store, 1, TTL, clock), acquire(&store, 2, TTL, clock));
        let (winner, loser) = match (one, two) {
            (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
            (one, two) => panic!("{round}: {one:?} {two:?}"),
        };
        assert_eq!(loser.code(), Code::Busy);
        winner.lease.still_held().await.unwrap();
        if round == 1 {
            winner.lease.release().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_put_whose_answer_was_lost_is_recognised() {
    let store = MemoryStore::with_lifecycle();
    store.fault(Op::Put, 1, Fault::LoseAnswer);
    let first = acquire(&store, 1, TTL, noon).await.unwrap();
    store.fault(Op::Put, 1, Fault::LoseAnswer);
    assert_eq!(first.lease.still_held().await.unwrap_err().code(), Code::Store);
    first.lease.still_held().await.unwrap();
    store.fault(Op::Put, 1, Fault::LoseAnswer);
    assert!(first.lease.still_held().await.is_err());
    first.lease.release().await.unwrap();
    assert!(body(&store).released);
}

#[tokio::test]
async fn a_store_that_fails_leaves_no_lease_of_ours() {
    let store = MemoryStore::with_lifecycle();
    store.fault(Op::Put, 1, Fault::Reject);
    assert_eq!(acquire(&store, 1, TTL, noon).await.unwrap_err().code(), Code::Store);
    assert!(store.keys().is_empty());
}

#[tokio::test]
async fn an_object_that_is_no_lease_is_not_overwritten() {
    let store = MemoryStore::with_lifecycle();
    store.plant(KEY, "my notes", &[]);
    let error = acquire(&store, 1, TTL, noon).await.unwrap_err();
    assert_eq!(error.code(), Code::Busy);
    assert!(error.hint_text().contains("remove"));
    assert_eq!(store.body(KEY).unwrap(), "my notes");
}

#[tokio::test]
async fn it_is_renewed_in_the_background_until_it_is_released() {
    let store = MemoryStore::with_lifecycle();
    let first = acquire(&store, 1, Duration::from_secs(3), Timestamp::now)
        .await
        .unwrap();
    let before = body(&store).expires_at;
    let renewed = async {
        while body(&store).expires_at == before {
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        error = first.lease.lost() => panic!("{error}"),
        () = renewed => {}
    }
    first.lease.release().await.unwrap();
    let puts = store.calls(Op::Put).len();
    sleep(Duration::from_millis(1_200)).await;
    assert_eq!(store.calls(Op::Put).len(), puts);
}

#[tokio::test]
async fn a_lease_that_another_run_has_taken_is_lost() {
    let store = MemoryStore::with_lifecycle();
    let ttl = Duration::from_millis(300);
    let first = acquire(&store, 1, ttl, Timestamp::now).await.unwrap();
    let theirs = Body {
        run: "theirs".into(),
        ..body(&store)
    };
    store.plant(KEY, serde_json::to_vec(&theirs).unwrap(), &[]);
    let error = first.lease.lost().await;
    assert_eq!(error.code(), Code::Busy);
    assert_eq!(first.lease.still_held().await.unwrap_err().code(), Code::Busy);
    first.lease.release().await.unwrap();
    assert_eq!(body(&store), theirs);
}

#[tokio::test]
async fn a_removed_lease_is_lost_and_not_written_again() {
    let store = MemoryStore::with_lifecycle();
    let first = acquire(&store, 1, TTL, noon).await.unwrap();
    store.remove(KEY);
    assert_eq!(first.lease.still_held().await.unwrap_err().code(), Code::Busy);
    first.lease.release().await.unwrap();
    assert!(store.keys().is_empty());
}

#[tokio::test]
async fn a_store_that_stays_away_ends_the_lease() {
    let store = MemoryStore::with_lifecycle();
    let first = acquire(&store, 1, Duration::from_millis(300), Timestamp::now)
        .await
        .unwrap();
    for nth in 1..=50 {
        store.fault(Op::Put, nth, Fault::Reject);
    }
    let error = first.lease.lost().await;
    assert_eq!(error.code(), Code::Store);
    assert!(error.message().contains("scripted fault"), "{error}");
}

#[tokio::test]
async fn a_store_that_fails_for_a_moment_does_not() {
    let store = MemoryStore::with_lifecycle();
    let first = acquire(&store, 1, Duration::from_secs(3), Timestamp::now)
        .await
        .unwrap();
    let before = body(&store).expires_at;
    store.fault(Op::Put, 1, Fault::Reject);
    store.fault(Op::Put, 2, Fault::LoseAnswer);
    while body(&store).expires_at == before {
        sleep(Duration::from_millis(20)).await;
    }
    first.lease.still_held().await.unwrap();
    first.lease.release().await.unwrap();
}

#[test]
fn runs_are_told_apart() {
    let runs: std::collections::HashSet<String> = (0..100).map(|_| random_run()).collect();
    assert_eq!(runs.len(), 100);
    assert!(runs.iter().all(|run| run.len() == 32));
}

#[tokio::test]
async fn a_lease_is_seen_as_free_held_or_expired_and_is_not_touched() {
    let store = MemoryStore::with_lifecycle();
    assert_eq!(look(&store, "shop", noon()).await.unwrap(), LeaseState::Free);
    let lease = acquire(&store, 7, TTL, noon).await.unwrap().lease;
    let puts = store.calls(Op::Put).len();
    let LeaseState::Held(hold) = look(&store, "shop", within_the_minute()).await.unwrap() else {
        panic!("not held");
    };
    assert_eq!((hold.holder.pid, hold.until), (7, a_minute_later()));
    let seen = look(&store, "shop", a_minute_later()).await.unwrap();
    assert_eq!(seen, LeaseState::Expired(hold));
    assert_eq!(store.calls(Op::Put).len(), puts);
    lease.release().await.unwrap();
    assert_eq!(look(&store, "shop", noon()).await.unwrap(), LeaseState::Free);
    store.plant(KEY, "not a lease", &[]);
    assert_eq!(look(&store, "shop", noon()).await.unwrap_err().code(), Code::Busy);
}

fn backup(second: u32) -> BackupId {
    format!("shop/20250131T1200{second:02}Z-full").parse().unwrap()
}

#[tokio::test]
async fn two_runs_with_other_primaries_never_take_the_same_id() {
    let (one, two, shared) = (
        MemoryStore::with_lifecycle(),
        MemoryStore::with_lifecycle(),
        MemoryStore::with_lifecycle(),
    );
    let first = acquire(&one, 1, TTL, noon).await.unwrap().lease;
    let second = acquire(&two, 2, TTL, noon).await.unwrap().lease;
    let take = async |lease: &Lease| {
        let mut id = backup(0);
        loop {
            assert_eq!(lease.announce(&id).await.unwrap(), Announced::Done);
            match lease.claim_in(&shared, &id).await.unwrap() {
                Announced::Done => return id,
                Announced::Taken(taken) => {
                    id = BackupId::next(
                        "shop",
                        crate::repository::backup_id::BackupKind::Full,
                        noon(),
                        Some(&taken),
                    );
                }
            }
        }
    };
    let (a, b) = tokio::join!(take(&first), take(&second));
    let mut ids = [a, b];
    ids.sort();
    assert_eq!(ids, [backup(0), backup(1)]);
    // No run holds the lease there, and a claim by this run is not taken by another.
    assert_eq!(look(&shared, "shop", noon()).await.unwrap(), LeaseState::Free);
    assert!(acquire(&shared, 3, TTL, noon).await.is_ok());
}

#[tokio::test]
async fn an_id_that_a_copy_has_taken_is_not_taken_by_the_holder_of_the_lease_and_stays_remembered() {
    let (here, elsewhere) = (MemoryStore::with_lifecycle(), MemoryStore::with_lifecycle());
    let holder = acquire(&here, 1, TTL, noon).await.unwrap().lease;
    let other = acquire(&elsewhere, 2, TTL, noon).await.unwrap().lease;
    assert_eq!(other.claim_in(&here, &backup(5)).await.unwrap(), Announced::Done);
    // The holder keeps the lease, learns of the claim, and takes a later id.
    assert_eq!(holder.announce(&backup(3)).await.unwrap(), Announced::Taken(backup(5)));
    assert_eq!(holder.announce(&backup(5)).await.unwrap(), Announced::Taken(backup(5)));
    assert_eq!(holder.announce(&backup(6)).await.unwrap(), Announced::Done);
    assert_eq!(
        other.claim_in(&here, &backup(6)).await.unwrap(),
        Announced::Taken(backup(6))
    );
    holder.still_held().await.unwrap();
    holder.release().await.unwrap();
    let next = acquire(&here, 3, TTL, noon).await.unwrap().lease;
    assert_eq!(next.announce(&backup(6)).await.unwrap(), Announced::Taken(backup(6)));
    assert_eq!(next.announce(&backup(7)).await.unwrap(), Announced::Done);
    // A claim whose answer was lost still belongs to this run.
    here.fault(Op::Put, 1, Fault::LoseAnswer);
    assert!(other.claim_in(&here, &backup(9)).await.is_err());
    assert_eq!(other.claim_in(&here, &backup(9)).await.unwrap(), Announced::Done);
}

#[tokio::test]
async fn a_claim_from_the_future_holds_nobody_up() {
    let store = MemoryStore::with_lifecycle();
    let lease = acquire(&store, 1, TTL, noon).await.unwrap().lease;
    let far = serde_json::from_value(serde_json::json!({"backup": "shop/20990131T120000Z-full", "run": "theirs"}));
    let body = Body {
        claimed: far.unwrap(),
        ..body(&store)
    };
    store.plant(KEY, serde_json::to_vec(&body).unwrap(), &[]);
    assert_eq!(lease.announce(&backup(1)).await.unwrap(), Announced::Done);
}

#[tokio::test]
async fn an_id_of_another_database_takes_none_of_ours() {
    let store = MemoryStore::with_lifecycle();
    let first = acquire(&store, 1, TTL, noon).await.unwrap();
    first.lease.release().await.unwrap();
    let mut planted = body(&store);
    let foreign = "zzz/20250131T115900Z-full".parse().unwrap();
    planted.claimed = Some(claim::Claim::new(&foreign, "theirs"));
    store.plant(KEY, serde_json::to_vec(&planted).unwrap(), &[]);
    let second = acquire(&store, 2, TTL, noon).await.unwrap();
    let id = "shop/20250131T120000Z-full".parse().unwrap();
    assert_eq!(second.lease.announce(&id).await.unwrap(), Announced::Done);
    let copy = MemoryStore::with_lifecycle();
    copy.plant(KEY, serde_json::to_vec(&planted).unwrap(), &[]);
    assert_eq!(second.lease.claim_in(&copy, &id).await.unwrap(), Announced::Done);
}

#[tokio::test]
async fn a_store_without_conditional_writes_takes_claims_and_no_lease() {
    let held = MemoryStore::with_lifecycle();
    let lease = acquire(&held, 1, TTL, noon).await.unwrap().lease;
    for copy in [
        MemoryStore::without_lifecycle().without_conditions(),
        MemoryStore::without_lifecycle().refusing_conditions(),
    ] {
        let error = acquire(&copy, 1, TTL, noon).await.unwrap_err();
        assert_eq!(error.code(), Code::Store);
        assert!(copy.keys().is_empty());
        assert_eq!(lease.claim_in(&copy, &backup(1)).await.unwrap(), Announced::Done);
        assert_eq!(lease.claim_in(&copy, &backup(2)).await.unwrap(), Announced::Done);
        let other = acquire(&MemoryStore::with_lifecycle(), 2, TTL, noon)
            .await
            .unwrap()
            .lease;
        assert_eq!(
            other.claim_in(&copy, &backup(2)).await.unwrap(),
            Announced::Taken(backup(2))
        );
    }
}
