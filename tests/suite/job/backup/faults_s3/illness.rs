//! Stores that answer with 500 and 503: for a while, and for ever.

use std::time::Duration;

use super::scene::Scene;
use crate::support::fault_proxy::{Fault, On, Op};

const OPERATIONS: [Op; 9] = [
    Op::Other,
    Op::GetObject,
    Op::HeadObject,
    Op::PutObject,
    Op::CreateUpload,
    Op::UploadPart,
    Op::CompleteUpload,
    Op::ListUploads,
    Op::Tagging,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_over_all_operations_is_outlived() {
    let mut scene = Scene::three_parts().await;
    scene.set("BACKUP_S3_RETRY_SECONDS", "10");
    for op in OPERATIONS {
        scene.proxy.fault(On::op(op).calls(1..=2), Fault::Reject(503));
        scene.proxy.fault(On::op(op).calls(4..=5), Fault::Reject(500));
    }
    let ended = scene.run();
    let manifest = scene.assert_one_backup(&scene.primary, &ended).await;
    assert_eq!(ended.warnings(), [""; 0]);
    assert!(scene.proxy.faults() > 25, "{}", scene.proxy.faults());
    scene
        .assert_restores(&scene.primary, manifest["id"].as_str().unwrap())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_are_waited_out_whatever_they_were_for() {
    let mut scene = Scene::three_parts().await;
    scene.set("BACKUP_S3_RETRY_SECONDS", "10");
    for op in OPERATIONS {
        scene.proxy.fault(On::op(op).calls(1..=2), Fault::Reject(429));
    }
    let ended = scene.run();
    scene.assert_one_backup(&scene.primary, &ended).await;
    assert_eq!(ended.warnings(), [""; 0]);
    assert!(scene.proxy.faults() > 10, "{}", scene.proxy.faults());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_refused_by_too_many_requests_is_not_put_again_at_once() {
    let mut scene = Scene::small().await;
    scene.settings.remove("BACKUP_S3_RETRY_SECONDS");
    let lease = On::op(Op::PutObject).target(".lease").calls(1..=3);
    scene.proxy.fault(lease, Fault::Reject(429));
    let ended = scene.run();
    scene.assert_one_backup(&scene.primary, &ended).await;
    // By default a pause is between 0.8 and 2.6 s long.
    assert!(ended.took > Duration::from_millis(2_400), "{:?}", ended.took);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_ill_for_fifteen_seconds_is_outlived_by_default() {
    let mut scene = Scene::three_parts().await;
    scene.settings.remove("BACKUP_S3_RETRY_SECONDS");
    let running = scene.start();
    scene.has_seen(Op::UploadPart, "partNumber=1").await;
    scene
        .proxy
        .fault(On::any().during(Duration::from_secs(15)), Fault::Reject(500));
    let ended = running.wait();
    assert!(scene.proxy.faults() > 0);
    scene.assert_one_backup(&scene.primary, &ended).await;
}

/// One operation fails for ever; the run gives up in bounded time, and nothing is visible.
async fn fails_for_ever(on: On, message: &str) -> Scene {
    let scene = Scene::three_parts().await;
    scene.proxy.fault(on, Fault::Reject(500));
    let ended = scene.run();
    ended.store_failed(message, "kept failing after all retries");
    assert!(ended.stderr.contains("InternalError"), "{}", ended.stderr);
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_always_fails_ends_the_run_at_the_door() {
    let scene = fails_for_ever(On::op(Op::Other), "cannot reach the store").await;
    scene.assert_no_trace().await;
    assert_eq!(scene.primary.keys().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_cannot_be_written_ends_the_run() {
    let scene = fails_for_ever(On::op(Op::PutObject), ".lease").await;
    scene.assert_no_trace().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_cannot_be_begun_leaves_nothing() {
    let scene = fails_for_ever(On::op(Op::CreateUpload), "cannot begin the upload").await;
    scene.assert_no_trace().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_always_fail_leave_nothing() {
    let scene = fails_for_ever(On::op(Op::UploadPart), "cannot write part").await;
    scene.assert_no_trace().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_that_always_fails_leaves_nothing() {
    let scene = fails_for_ever(On::op(Op::CompleteUpload), "cannot complete the upload").await;
    scene.assert_no_trace().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_cannot_be_written_gives_up_the_archive() {
    let on = On::op(Op::PutObject).target("globals.sql");
    let scene = fails_for_ever(on, "cannot write").await;
    scene.assert_only_given_up().await;
    assert_eq!(scene.primary.tiers().await.len(), 2, "archive and table of contents");
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_that_cannot_be_written_leave_the_pending_ones() {
    let scene = fails_for_ever(On::op(Op::Tagging), "cannot tag").await;
    scene.assert_only_given_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_cannot_be_written_gives_up_all_files() {
    let on = On::op(Op::PutObject).target("manifest.json");
    let scene = fails_for_ever(on, "manifest.json").await;
    scene.assert_only_given_up().await;
    assert!(scene.primary.tiers().await.len() >= 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_dies_midway_is_told_of_and_cleaned_by_the_next_run() {
    let mut scene = Scene::three_parts().await;
    scene.set("BACKUP_LEASE_SECONDS", "6");
    scene.proxy.fault(
        On::op(Op::UploadPart).calls(1..=2),
        Fault::Delay(Duration::from_secs(1)),
    );
    let running = scene.start();
    scene.has_seen(Op::UploadPart, "").await;
    scene.proxy.fault(On::any(), Fault::Reject(503));
    let ended = running.wait();
    let (message, _) = ended.failed("STORE", 30);
    assert!(message.contains("and then: "), "the failed clean-up is told: {message}");
    assert!(scene.primary.manifests().await.is_empty());
    assert_eq!(scene.primary.uploads().await.len(), 1);

    scene.proxy.heal();
    tokio::time::sleep(Duration::from_secs(7)).await;
    let ended = scene.run();
    scene.assert_one_backup(&scene.primary, &ended).await;
    let left = &ended.document["leftovers"][0];
    assert_eq!(
        (&left["found"], &left["outcome"]),
        (&"unfinished_upload".into(), &"aborted".into())
    );
}
