//! Runs that are stopped, in good order or outright.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::scene::{Ended, Scene};
use crate::support::fault_proxy::{Fault, On, Op};

const HELD: Duration = Duration::from_secs(3);

fn assert_stopped(ended: &Ended) {
    let (message, _) = ended.failed("INTERRUPTED", 143);
    assert!(message.contains("SIGTERM"), "{message}");
}

/// Sends SIGTERM while the proxy holds a request for so long.
async fn stopped_while_held(scene: &Scene, op: Op, target: &str, held: Duration) -> Ended {
    scene.proxy.fault(On::op(op).target(target), Fault::Delay(held));
    let running = scene.start();
    scene.has_seen(op, target).await;
    running.signal(Signal::TERM);
    running.wait()
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_while_parts_are_under_way_leaves_nothing() {
    let scene = Scene::three_parts().await;
    let long = Duration::from_secs(15);
    let ended = stopped_while_held(&scene, Op::UploadPart, "", long).await;
    assert_stopped(&ended);
    assert!(scene.proxy.delayed() > 0, "it waited for the parts");
    scene.assert_no_trace().await;
    // Parts that were under way when the upload was aborted have arrived by now.
    tokio::time::sleep(long).await;
    scene.assert_no_trace().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_while_the_upload_is_completed_leaves_a_backup_or_a_clean_wreck() {
    let scene = Scene::three_parts().await;
    let ended = stopped_while_held(&scene, Op::CompleteUpload, "", HELD).await;
    if ended.exit == Some(0) {
        scene.assert_one_backup(&scene.primary, &ended).await;
    } else {
        assert_stopped(&ended);
        scene.assert_only_given_up().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_while_a_sidecar_is_written_gives_up_what_is_visible() {
    let scene = Scene::small().await;
    let ended = stopped_while_held(&scene, Op::PutObject, "globals.sql", HELD).await;
    assert_stopped(&ended);
    scene.assert_only_given_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_while_the_manifest_is_put_comes_too_late() {
    let scene = Scene::small().await;
    let ended = stopped_while_held(&scene, Op::PutObject, "manifest.json", HELD).await;
    scene.assert_one_backup(&scene.primary, &ended).await;
}

/// From this request on the store says nothing any more, to anybody. What cannot be removed then is left
/// for the next run; the run itself ends before the sender of the signal kills it.
async fn stopped_in_silence(op: Op, target: &str) {
    let scene = Scene::three_parts().await;
    let silence = Fault::Delay(Duration::from_secs(600));
    scene.proxy.fault(On::op(op).target(target), silence.clone());
    let running = scene.start();
    scene.has_seen(op, target).await;
    scene.proxy.fault(On::any(), silence);
    running.signal(Signal::TERM);
    // That it ends at all shows it: the store answers later than a test may take.
    let ended = running.wait();
    assert_stopped(&ended);
    scene.assert_nobody_works().await;
    assert!(scene.primary.manifests().await.is_empty());
}

macro_rules! silent_from {
    ($($name:ident: $op:ident $target:literal),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                stopped_in_silence(Op::$op, $target).await;
            }
        )*
    };
}

silent_from! {
    a_store_that_falls_silent_at_the_lease_does_not_keep_a_stopped_run: PutObject ".lease",
    a_store_that_falls_silent_at_the_first_listing_does_not_either: Other "list-type",
    a_store_that_falls_silent_among_the_parts_does_not_either: UploadPart "",
    a_store_that_falls_silent_at_the_completion_does_not_either: CompleteUpload "",
    a_store_that_falls_silent_at_a_sidecar_does_not_either: PutObject "globals.sql",
    a_store_that_falls_silent_at_the_tags_does_not_either: Tagging "",
    a_store_that_falls_silent_at_the_manifest_does_not_either: PutObject "manifest.json",
}

/// Kills the run outright while the proxy holds a request, and waits until its lease is over.
async fn killed_while_held(scene: &mut Scene, op: Op, target: &str) {
    scene.set("BACKUP_LEASE_SECONDS", "3");
    scene
        .proxy
        .fault(On::op(op).target(target), Fault::Delay(Duration::from_secs(600)));
    let running = scene.start();
    scene.has_seen(op, target).await;
    running.signal(Signal::KILL);
    assert_eq!(running.wait().exit, None);
    scene.assert_nobody_works().await;
    assert!(scene.primary.manifests().await.is_empty(), "nothing is visible");
    scene.proxy.heal();
    tokio::time::sleep(Duration::from_secs(4)).await;
    scene.set("BACKUP_LEASE_SECONDS", "120");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upload_of_a_killed_run_is_aborted_by_the_next_one() {
    let mut scene = Scene::three_parts().await;
    killed_while_held(&mut scene, Op::UploadPart, "partNumber=2").await;
    let left = scene.primary.uploads().await;
    assert_eq!(left.len(), 1);
    let ended = scene.run();
    scene.assert_one_backup(&scene.primary, &ended).await;
    let key = left[0].split_once('/').unwrap().1;
    assert_eq!(
        ended.document["leftovers"],
        json!([{"key": key, "found": "unfinished_upload", "outcome": "aborted"}])
    );
    let dead = &ended.document["took_over"];
    assert!(key.starts_with(dead["backup"].as_str().unwrap()), "{dead}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_a_killed_run_are_given_up_by_the_next_one() {
    let mut scene = Scene::small().await;
    killed_while_held(&mut scene, Op::PutObject, "manifest.json").await;
    // Tagged for good already: without the next run they would stay for ever.
    scene.primary.assert_all_files_are("latest").await;
    let orphans: Vec<String> = scene.primary.tiers().await.into_keys().collect();
    assert!(orphans.len() >= 5, "{orphans:?}");

    let ended = scene.run();
    let id = ended.succeeded()["id"].as_str().unwrap();
    scene.assert_holds(&scene.primary, id).await;
    assert_eq!(scene.primary.tier_of(id).await, "latest");
    let mut reported = Vec::new();
    for left in ended.document["leftovers"].as_array().unwrap() {
        assert_eq!(
            (&left["found"], &left["outcome"]),
            (&json!("file_without_manifest"), &json!("discarded"))
        );
        reported.push(format!("{}/{}", scene.primary.prefix, left["key"].as_str().unwrap()));
    }
    reported.sort();
    assert_eq!(reported, orphans);
    let tiers = scene.primary.tiers().await;
    for key in &orphans {
        assert_eq!(tiers[key].as_deref(), Some("pending"), "{key}");
    }
    // The third run finds nothing new.
    let ended = scene.run();
    assert!(
        ended.succeeded()["leftovers"].is_null(),
        "{}",
        ended.document["leftovers"]
    );
}
