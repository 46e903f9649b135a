//! Two runs at once, and leases that change hands.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::scene::{Place, Scene};
use crate::support::fault_proxy::{Fault, On, Op};

/// Writes another run's lease, valid for an hour.
async fn take(place: &Place) -> Vec<u8> {
    let now = Timestamp::now();
    let lease = json!({
        "holder": {"host": "elsewhere", "pid": 4711},
        "run": "00000000000000000000000000000000",
        "acquired_at": now,
        "expires_at": now + SignedDuration::from_hours(1),
    });
    let lease = serde_json::to_vec(&lease).unwrap();
    place.bucket.put(&place.lease_key(), &lease).await;
    lease
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_of_another_run_is_respected() {
    let scene = Scene::small().await;
    let lease = take(&scene.primary).await;
    let ended = scene.run();
    let (message, hint) = ended.failed("BUSY", 51);
    assert!(message.contains("process 4711 on elsewhere"), "{message}");
    assert!(hint.contains("its lease expires at"), "{hint}");
    assert_eq!(scene.primary.bucket.get(&scene.primary.lease_key()).await, lease);
    assert_eq!(scene.primary.keys().await, [scene.primary.lease_key()]);
    scene.assert_nobody_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_runs_at_once_one_makes_the_backup_and_one_is_busy() {
    let scene = Scene::three_parts().await;
    let slow = Fault::Delay(Duration::from_secs(3));
    scene.proxy.fault(On::op(Op::UploadPart), slow);
    let first = scene.start();
    scene.has_seen(Op::UploadPart, "").await;
    let (message, _) = scene.run().failed("BUSY", 51);
    assert!(message.contains("making"), "{message}");
    let ended = first.wait();
    scene.assert_one_backup(&scene.primary, &ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_stolen_while_parts_are_sent_stops_the_run() {
    let mut scene = Scene::three_parts().await;
    scene.set("BACKUP_LEASE_SECONDS", "6");
    scene
        .proxy
        .fault(On::op(Op::UploadPart), Fault::Delay(Duration::from_secs(8)));
    let running = scene.start();
    scene.has_seen(Op::UploadPart, "").await;
    let lease = take(&scene.primary).await;
    let ended = running.wait();
    let (message, _) = ended.failed("BUSY", 51);
    assert!(message.contains("another run has taken it"), "{message}");
    scene.assert_nobody_works().await;
    // A part that was under way when the upload was aborted arrives only now.
    tokio::time::sleep(Duration::from_secs(8)).await;
    scene.primary.assert_nothing_in_progress().await;
    assert_eq!(scene.primary.keys().await, [scene.primary.lease_key()]);
    assert_eq!(scene.primary.bucket.get(&scene.primary.lease_key()).await, lease);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_stolen_right_before_the_commit_stops_the_run() {
    let scene = Scene::small().await;
    scene.proxy.fault(
        On::op(Op::PutObject).target("SHA256SUMS"),
        Fault::Delay(Duration::from_secs(2)),
    );
    let running = scene.start();
    scene.has_seen(Op::PutObject, "SHA256SUMS").await;
    let lease = take(&scene.primary).await;
    let ended = running.wait();
    let (message, _) = ended.failed("BUSY", 51);
    assert!(message.contains("another run has taken it"), "{message}");
    scene.assert_nobody_works().await;
    assert!(scene.primary.manifests().await.is_empty());
    scene.primary.assert_all_files_are("pending").await;
    assert_eq!(scene.primary.bucket.get(&scene.primary.lease_key()).await, lease);
}
