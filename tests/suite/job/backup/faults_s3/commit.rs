//! The two points at which something becomes visible: the completed upload, and the manifest.

use std::time::Duration;

use super::scene::Scene;
use crate::support::fault_proxy::{Fault, On, Op};

async fn completion_meets(on: On, fault: Fault) {
    let scene = Scene::three_parts().await;
    scene.proxy.fault(on, fault);
    let ended = scene.run();
    assert!(scene.proxy.faults() > 0);
    let manifest = scene.assert_one_backup(&scene.primary, &ended).await;
    assert_eq!(manifest["store_checksum"]["kind"], "COMPOSITE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_that_was_answered_to_nobody_is_a_success() {
    completion_meets(On::op(Op::CompleteUpload), Fault::LoseAnswer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_that_was_done_and_answered_with_500_is_a_success() {
    completion_meets(On::op(Op::CompleteUpload), Fault::Lie(500)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_that_was_done_and_answered_with_an_error_under_200_is_a_success() {
    completion_meets(On::op(Op::CompleteUpload).calls(1..=1), Fault::Lie(200)).await;
}

async fn manifest_put_meets(on: On, fault: Fault) {
    let scene = Scene::small().await;
    scene.proxy.fault(on.target("manifest.json"), fault);
    let ended = scene.run();
    assert!(scene.proxy.faults() > 0);
    scene.assert_one_backup(&scene.primary, &ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_whose_answer_is_lost_once_is_published_once() {
    manifest_put_meets(On::op(Op::PutObject).calls(1..=1), Fault::LoseAnswer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_whose_answers_are_all_lost_is_published() {
    manifest_put_meets(On::op(Op::PutObject), Fault::LoseAnswer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_was_written_and_answered_with_500_is_published() {
    manifest_put_meets(On::op(Op::PutObject), Fault::Lie(500)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_another_run_publishes_first_is_its_own() {
    let scene = Scene::small().await;
    let slow = Fault::Delay(Duration::from_secs(2));
    scene.proxy.fault(On::op(Op::PutObject).target("manifest.json"), slow);
    let running = scene.start();
    scene.has_seen(Op::PutObject, "manifest.json").await;
    let dump = scene
        .primary
        .keys()
        .await
        .into_iter()
        .find(|key| key.ends_with(".dump"))
        .unwrap();
    let manifest = format!("{}/manifest.json", dump.rsplit_once('/').unwrap().0);
    scene.primary.bucket.put(&manifest, b"another run's").await;
    let ended = running.wait();
    let (message, hint) = ended.failed("BUSY", 51);
    assert!(
        message.contains("another run has published a backup with this id"),
        "{message}"
    );
    assert!(hint.contains("clocks"), "{hint}");
    assert_eq!(scene.primary.bucket.get(&manifest).await, b"another run's");
    // They may be the other's files by now: nothing is given up.
    let mut tiers = scene.primary.tiers().await;
    tiers.remove(&manifest);
    assert!(
        tiers.values().all(|tier| tier.as_deref() == Some("latest")),
        "{tiers:?}"
    );
    scene.assert_nobody_works().await;
    scene.primary.assert_lease_is_free().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_that_fail_after_the_commit_are_a_warning_and_mended_by_the_next_run() {
    let scene = Scene::small().await;
    let id = |ended: &super::scene::Ended| ended.succeeded()["id"].as_str().unwrap().to_owned();
    let first = id(&scene.run());
    assert_eq!(scene.primary.tier_of(&first).await, "latest");

    // Only the predecessor's tags fail, and not all of them.
    let stamp = first.rsplit_once('/').unwrap().1;
    let on = On::op(Op::Tagging).target(stamp).calls(4..=usize::MAX);
    scene.proxy.fault(on, Fault::Reject(500));
    let ended = scene.run();
    let second = id(&ended);
    let warnings = ended.warnings();
    assert!(
        warnings.iter().any(|warning| warning.contains("retention tags")),
        "{warnings:?}"
    );
    assert_eq!(scene.primary.tier_of(&second).await, "latest");
    let tiers = scene.primary.tiers().await;
    assert!(
        tiers.values().flatten().all(|tier| tier == "latest" || tier == "daily"),
        "{tiers:?}"
    );

    scene.proxy.heal();
    let third = scene.run();
    assert_eq!(third.warnings(), [""; 0]);
    assert_eq!(scene.primary.tier_of(&first).await, "daily");
    assert_eq!(scene.primary.tier_of(&second).await, "daily");
    assert_eq!(scene.primary.tier_of(&id(&third)).await, "latest");
    for backup in [first, second] {
        scene.assert_holds(&scene.primary, &backup).await;
    }
}
