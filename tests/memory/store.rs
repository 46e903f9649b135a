//! An upload's memory, as the system counts it for the whole process.

#[allow(dead_code)] // of the places for stores, this needs one
#[path = "../suite/store/place.rs"]
mod place;

use bytes::Bytes;
use pgstow::settings;
use pgstow::store::{ObjectInfo, Store};

/// Of this process, so far, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_the_object() {
    let settings = settings::S3 {
        part_size: 8 << 20,
        memory: 40 << 20,
        ..place::s3_settings()
    };
    let place = place::bucket_at(&place::endpoint(), settings, place::quick()).await;
    let piece = Bytes::from(vec![7; 1 << 20]);
    let mut upload = place
        .store
        .upload("shop/x/shop.dump", &ObjectInfo::default())
        .await
        .unwrap();
    for _ in 0..600 {
        upload.write(piece.clone()).await.unwrap();
    }
    let peak = peak_memory();
    upload.abort().await.unwrap();
    // The program, the SDK and 40 MiB of parts.
    assert!(peak < 90 << 20, "{} MiB", peak >> 20);
}
