//! Stores that are slow, but work: they set the pace, and cost no memory.

use std::time::Duration;

use super::scene::Scene;
use crate::support::fault_proxy::{Fault, On, Op};
use crate::support::memory::taken;

fn slowly(scene: &Scene, bytes_per_second: usize) {
    scene
        .proxy
        .fault(On::op(Op::UploadPart), Fault::Slow { bytes_per_second });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_waits_for_the_store_has_not_stalled() {
    let mut scene = Scene::holding(64 << 20).await;
    scene.set("BACKUP_STALL_SECONDS", "3");
    // Each part takes 5 s, and no more than forty mebibytes of them are on their way.
    slowly(&scene, 1 << 20);
    let ended = scene.run();
    assert!(ended.took > Duration::from_secs(9), "{:?}", ended.took);
    scene.assert_one_backup(&scene.primary, &ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_flat_while_the_store_is_slow() {
    let mut scene = Scene::holding(300 << 20).await;
    scene.settings.remove("BACKUP_S3_PART_SIZE");
    slowly(&scene, 8 << 20);
    let mut running = scene.start();
    let mut most = 0;
    while !running.is_over() {
        most = most.max(taken(running.pid()).unwrap_or(0));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ended = running.wait();
    scene.assert_one_backup(&scene.primary, &ended).await;
    assert!((30 << 20..=100 << 20).contains(&most), "{} MiB", most >> 20);
}
