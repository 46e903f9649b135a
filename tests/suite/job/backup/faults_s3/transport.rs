//! Bytes that get lost or changed on the way.

use std::time::Duration;

use super::scene::Scene;
use crate::support::fault_proxy::{Fault, On, Op};

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_reset_within_parts_are_made_anew() {
    let scene = Scene::three_parts().await;
    let part = || On::op(Op::UploadPart);
    scene.proxy.fault(part().calls(1..=1), Fault::Reset { after: 1 << 20 });
    scene.proxy.fault(part().calls(3..=3), Fault::Reset { after: 0 });
    let ended = scene.run();
    assert_eq!(scene.proxy.faults(), 2);
    scene.assert_one_backup(&scene.primary, &ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_always_reset_end_the_run() {
    let scene = Scene::three_parts().await;
    scene
        .proxy
        .fault(On::op(Op::UploadPart), Fault::Reset { after: 1 << 20 });
    scene.run().store_failed("cannot write part", "network path");
    scene.assert_no_trace().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_damaged_on_the_way_is_sent_again() {
    let scene = Scene::three_parts().await;
    scene
        .proxy
        .fault(On::op(Op::UploadPart).calls(2..=2), Fault::CorruptBody);
    let ended = scene.run();
    assert_eq!(scene.proxy.count(Op::UploadPart), 4);
    scene.assert_one_backup(&scene.primary, &ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_are_always_damaged_end_the_run() {
    let scene = Scene::three_parts().await;
    scene.proxy.fault(On::op(Op::UploadPart), Fault::CorruptBody);
    scene.run().store_failed("cannot write part", "bytes change");
    scene.assert_no_trace().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_archive_and_its_sidecars_are_sent_again_when_damaged() {
    let scene = Scene::small().await;
    for file in [".dump", ".toc", "globals.sql", "SHA256SUMS", "manifest.json"] {
        let on = On::op(Op::PutObject).target(file).calls(1..=1);
        scene.proxy.fault(on, Fault::CorruptBody);
    }
    let ended = scene.run();
    assert_eq!(scene.proxy.faults(), 5);
    scene.assert_one_backup(&scene.primary, &ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_reports_other_checksums_than_ours_is_not_believed() {
    let scene = Scene::three_parts().await;
    scene
        .proxy
        .fault(On::op(Op::UploadPart).target("partNumber=2"), Fault::WrongChecksum);
    scene
        .run()
        .store_failed("a checksum that differs from ours for part 2", "bytes change");
    scene.assert_no_trace().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_about_a_whole_object_is_told_and_the_object_given_up() {
    let scene = Scene::small().await;
    scene
        .proxy
        .fault(On::op(Op::PutObject).target(".dump"), Fault::WrongChecksum);
    scene
        .run()
        .store_failed("a checksum that differs from ours", "bytes change");
    scene.assert_only_given_up().await;
    assert_eq!(scene.primary.tiers().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_checksums_works_when_told_so_and_only_then() {
    let mut scene = Scene::three_parts().await;
    scene.proxy.fault(On::any(), Fault::NoChecksum);
    scene
        .run()
        .store_failed("no checksum", "BACKUP_S3_CHECKSUMS=when_required");
    scene.assert_no_trace().await;

    scene.set("BACKUP_S3_CHECKSUMS", "when_required");
    let ended = scene.run();
    let manifest = scene.assert_one_backup(&scene.primary, &ended).await;
    assert!(manifest["store_checksum"].is_null(), "{}", manifest["store_checksum"]);
    assert!(
        ended.warnings().iter().any(|warning| warning.contains("less strictly")),
        "{:?}",
        ended.warnings()
    );
}

/// A refusal is an answer: the connection that brought it is good for the next try.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_used_again_whatever_the_answers_are() {
    let mut scene = Scene::holding(70 << 20).await;
    scene.set("BACKUP_S3_RETRY_SECONDS", "10");
    scene.proxy.keep_connections();
    let part = || On::op(Op::UploadPart);
    for call in [2, 5, 6, 9] {
        scene.proxy.fault(part().calls(call..=call), Fault::Reject(503));
    }
    scene
        .proxy
        .fault(part().calls(7..=7), Fault::Delay(Duration::from_secs(1)));
    let ended = scene.run();
    assert!(
        scene.proxy.count(Op::UploadPart) >= 18,
        "{}",
        scene.proxy.count(Op::UploadPart)
    );
    // Four parts are in flight, and beside them the lease is renewed and the rest is asked.
    let connections = scene.proxy.connections();
    assert!(
        connections <= 8,
        "{connections} connections for {} requests",
        scene.proxy.seen().len()
    );
    scene.assert_one_backup(&scene.primary, &ended).await;
}
