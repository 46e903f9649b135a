//! Disks that are full, or closed to writers.

use std::fs;

use super::place::{Place, holding};
use crate::support::disk::Disk;
use crate::support::wreck::{fail, report, tree};

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_the_room_is_told_before_anything_is_fetched() {
    let place = Place::in_s3(holding(3 << 20), &["--compress", "none"]).await;
    let disk = Disk::mount("size=1m");
    let output = disk.path().join("shop.dump");
    fs::write(&output, "precious").unwrap();
    let failed = fail(
        place.download("latest").arg("--force").arg("-o").arg(&output),
        "ENOSPC",
        31,
    );
    assert!(failed.message.contains("no room"), "{}", failed.message);
    assert!(failed.hint.contains("-o"), "{}", failed.hint);
    assert_eq!(fs::read_to_string(&output).unwrap(), "precious");
    assert_eq!(tree(disk.path()), ["shop.dump"]);
    let seen = place.proxy.seen();
    assert!(seen.iter().all(|seen| !seen.target.contains(".dump?")), "{seen:?}");

    disk.remount("size=8m");
    report(place.download("latest").arg("--force").arg("-o").arg(&output));
    assert_eq!(tree(disk.path()), ["SHA256SUMS", "shop.dump"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_keeps_what_has_come_for_later() {
    let place = Place::in_s3(holding(6 << 20), &["--compress", "none"]).await;
    let disk = Disk::mount("size=5m");
    // As a run that was interrupted leaves it.
    let stamp = place.id().rsplit_once('/').unwrap().1;
    let left = disk.path().join(format!(".shop.dump.{stamp}.partial"));
    let output = disk.path().join("shop.dump");
    report(place.download("latest").arg("--as-stored"));
    fs::write(&left, &fs::read(place.file()).unwrap()[..4 << 20]).unwrap();
    let failed = fail(place.download("latest").arg("-o").arg(&output), "ENOSPC", 31);
    assert!(failed.hint.contains("it goes on with the 4.2 MB"), "{}", failed.hint);
    assert_eq!(fs::metadata(&left).unwrap().len(), 4 << 20);
    disk.remount("size=16m");
    let told = report(place.download("latest").arg("-o").arg(&output));
    assert!(told["bytes_fetched"].as_u64().unwrap() < place.bytes() / 2, "{told}");
    assert_eq!(tree(disk.path()), ["SHA256SUMS", "shop.dump"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_folder_is_eacces() {
    let place = Place::in_folder(holding(50_000), &[]).await;
    let disk = Disk::mount("size=1m");
    disk.remount("ro");
    let failed = fail(place.download("latest").arg("-o").arg(disk.path()), "EACCES", 32);
    assert!(failed.hint.contains("-o FILE"), "{}", failed.hint);
}
