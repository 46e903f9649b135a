//! A second store beside the primary: it may fail alone, and holds nothing without the primary.

use std::time::Duration;

use serde_json::Value;

use super::scene::{Ended, Scene};
use crate::support::database::unique_word;
use crate::support::fault_proxy::{Fault, On, Op};

/// The copy's part of the target: its bucket.
const COPY: &str = "/pgstow-faults-copy/";
const PRIMARY: &str = "/pgstow-faults/";

fn store(ended: &Ended, index: usize) -> Value {
    ended.succeeded()["stores"][index].clone()
}

/// The primary holds the backup; the copy does not, for this reason.
async fn assert_primary_alone(scene: &Scene, ended: &Ended, why: &str) {
    scene.assert_one_backup(&scene.primary, ended).await;
    let (primary, copy) = (store(ended, 0), store(ended, 1));
    assert_eq!(
        (&primary["holds_backup"], &copy["holds_backup"]),
        (&true.into(), &false.into())
    );
    assert!(primary["error"].is_null());
    assert_eq!(copy["error"]["code"], "STORE");
    assert!(copy["error"]["message"].as_str().unwrap().contains(why), "{copy}");
    assert!(scene.copy.manifests().await.is_empty());
    scene.copy.assert_nothing_in_progress().await;
    scene.copy.assert_all_files_are("pending").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_stores_hold_the_backup() {
    let scene = Scene::three_parts().await.with_copy();
    let ended = scene.run();
    for place in [&scene.primary, &scene.copy] {
        scene.assert_one_backup(place, &ended).await;
    }
    assert_eq!(store(&ended, 1)["holds_backup"], true);
    // The primary's lease is enough; the copy's remembers the id.
    scene.copy.assert_lease_is_free().await;
    let lease = scene.copy.lease().await.unwrap();
    assert_eq!(
        lease["claimed"]["backup"],
        scene.primary.lease().await.unwrap()["backup"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_bucket_is_missing_is_reported_and_no_failure() {
    let mut scene = Scene::small().await;
    let missing = format!("s3://nowhere-{}/pg", unique_word());
    scene.set("BACKUP_STORE", &format!("{} {missing}", scene.primary.url()));
    let ended = scene.run();
    assert_primary_alone(&scene, &ended, "NoSuchBucket").await;
    assert_eq!(store(&ended, 1)["url"], missing);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_dies_midway_leaves_the_primary_and_nothing_of_its_own() {
    let scene = Scene::three_parts().await.with_copy();
    let on = On::op(Op::UploadPart).bucket(COPY).calls(2..=usize::MAX);
    scene.proxy.fault(on, Fault::Reject(500));
    let ended = scene.run();
    assert_primary_alone(&scene, &ended, "cannot write part").await;
    assert_eq!(scene.copy.files().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_fails_to_complete_leaves_nothing() {
    let scene = Scene::three_parts().await.with_copy();
    scene
        .proxy
        .fault(On::op(Op::CompleteUpload).bucket(COPY), Fault::Reject(403));
    let ended = scene.run();
    assert_primary_alone(&scene, &ended, "cannot complete").await;
    assert_eq!(scene.copy.files().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_without_sidecar_tags_or_manifest_is_given_up() {
    for (on, why) in [
        (On::op(Op::PutObject).target("globals.sql"), "globals.sql"),
        (On::op(Op::Tagging).calls(1..=1), "cannot tag"),
        (On::op(Op::PutObject).target("manifest.json"), "manifest.json"),
    ] {
        let scene = Scene::small().await.with_copy();
        scene.proxy.fault(on.bucket(COPY), Fault::Reject(403));
        let ended = scene.run();
        assert_primary_alone(&scene, &ended, why).await;
        assert_ne!(scene.copy.files().await, [""; 0], "what was visible by then");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_gone_altogether_costs_no_more_than_its_patience() {
    let scene = Scene::three_parts().await.with_copy();
    let running = scene.start();
    scene.has_seen(Op::UploadPart, COPY).await;
    scene.proxy.fault(On::any().bucket(COPY), Fault::Reset { after: 0 });
    let ended = running.wait();
    scene.assert_one_backup(&scene.primary, &ended).await;
    assert_eq!(store(&ended, 1)["holds_backup"], false);
    assert!(scene.copy.manifests().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_primary_the_copy_holds_nothing() {
    for op in [Op::UploadPart, Op::CompleteUpload] {
        let scene = Scene::three_parts().await.with_copy();
        let on = On::op(op).bucket(PRIMARY).calls(1..=usize::MAX);
        scene.proxy.fault(on, Fault::Reject(500));
        scene.run().store_failed("InternalError", "kept failing");
        scene.assert_no_trace().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_without_its_manifest_takes_the_copy_with_it() {
    let scene = Scene::small().await.with_copy();
    let on = On::op(Op::PutObject).target("manifest.json").bucket(PRIMARY);
    scene.proxy.fault(on, Fault::Reject(403));
    scene.run().store_failed("manifest.json", "allow the action");
    scene.assert_only_given_up().await;
    assert!(scene.copy.tiers().await.len() >= 5);
}

/// Each step of a copy that says nothing holds the snapshot up for half a minute, not for as long as the
/// primary would be waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_falls_silent_is_left_out_soon() {
    let scene = Scene::three_parts().await.with_copy();
    let silence = Fault::Delay(Duration::from_secs(600));
    scene.proxy.fault(On::any().bucket(COPY), silence);
    let ended = scene.run();
    scene.assert_one_backup(&scene.primary, &ended).await;
    let copy = store(&ended, 1);
    assert_eq!(copy["holds_backup"], false);
    assert!(
        copy["error"]["message"].as_str().unwrap().contains("has not answered"),
        "{copy}"
    );
}
