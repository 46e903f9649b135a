//! What breaks between us and S3, and what is visible and left behind after it.

use std::time::Duration;

use bytes::Bytes;
use pgstow::error::{Code, Error};
use pgstow::outside::aws::Patience;
use pgstow::settings::{self, Checksums};
use pgstow::store::{Condition, Put, Store, Stored};

use super::conformance::{info, pattern, upload};
use super::place::{self, BucketPlace, quick, s3_settings};
use crate::support::fault_proxy::{Fault, FaultProxy, On, Op};

const PART: usize = 5 << 20;
const KEY: &str = "shop/20260102T030405Z-full/shop.dump";

async fn through_proxy_with(settings: settings::S3, patience: Patience) -> (FaultProxy, BucketPlace) {
    let proxy = FaultProxy::start(&place::endpoint()).await;
    let place = place::bucket_at(&proxy.url(), settings, patience).await;
    (proxy, place)
}

async fn through_proxy() -> (FaultProxy, BucketPlace) {
    through_proxy_with(s3_settings(), quick()).await
}

/// The backup is there, whole, and nothing else is.
async fn assert_stored(place: &BucketPlace, bytes: &Bytes, stored: Result<Stored, Error>) {
    let stored = stored.unwrap();
    assert_eq!(stored.bytes, bytes.len() as u64);
    assert!(place.bytes_of(KEY).await.unwrap() == bytes[..], "other bytes than ours");
    assert_eq!(place.uploads_in_progress().await, 0, "an upload is left in progress");
}

async fn assert_nothing_left(place: &BucketPlace) {
    assert!(place.bytes_of(KEY).await.is_none(), "an object is visible");
    assert_eq!(place.uploads_in_progress().await, 0, "an upload is left in progress");
}

#[tokio::test]
async fn without_a_fault_the_proxy_changes_nothing() {
    let (proxy, place) = through_proxy().await;
    let bytes = pattern(3 * PART + 7);
    let stored = upload(&place.store, KEY, &bytes).await.unwrap();
    let checksum = stored.checksum.clone().unwrap();
    assert_eq!(
        (checksum.algorithm.as_str(), checksum.kind.as_str()),
        ("SHA256", "COMPOSITE")
    );
    assert!(checksum.value.ends_with("-4"), "{checksum:?}");
    assert_eq!(stored.parts.len(), 4);
    assert_eq!(proxy.count(Op::UploadPart), 4);
    assert_stored(&place, &bytes, Ok(stored)).await;
}

#[tokio::test]
async fn a_burst_of_500_and_503_is_outlived() {
    let (proxy, place) = through_proxy().await;
    proxy.fault(On::op(Op::CreateUpload).calls(1..=2), Fault::Reject(503));
    proxy.fault(On::op(Op::UploadPart).calls(2..=4), Fault::Reject(500));
    proxy.fault(On::op(Op::UploadPart).calls(6..=7), Fault::Reject(503));
    proxy.fault(On::op(Op::CompleteUpload).calls(1..=2), Fault::Reject(500));
    let bytes = pattern(3 * PART);
    let stored = upload(&place.store, KEY, &bytes).await;
    assert_eq!(proxy.faults(), 9);
    assert_stored(&place, &bytes, stored).await;
}

#[tokio::test]
async fn a_store_that_is_ill_for_twenty_seconds_is_outlived_by_default() {
    let (proxy, place) = through_proxy_with(s3_settings(), Patience::default()).await;
    proxy.fault(On::any().during(Duration::from_secs(20)), Fault::Reject(503));
    let bytes = pattern(2 * PART);
    let stored = upload(&place.store, KEY, &bytes).await;
    assert_stored(&place, &bytes, stored).await;
}

#[tokio::test]
async fn a_store_that_is_ill_for_ever_is_given_up_by_default() {
    let (proxy, place) = through_proxy_with(s3_settings(), Patience::default()).await;
    proxy.fault(On::op(Op::UploadPart), Fault::Reject(500));
    let error = upload(&place.store, KEY, &pattern(2 * PART)).await.unwrap_err();
    assert_eq!(error.code(), Code::Store);
    assert!(error.message().contains("InternalError"), "{error}");
    assert!(error.hint_text().contains("retries"), "{}", error.hint_text());
    assert_nothing_left(&place).await;
}

#[tokio::test]
async fn a_small_object_survives_a_burst_and_gives_up_cleanly() {
    let (proxy, place) = through_proxy().await;
    proxy.fault(On::op(Op::PutObject).calls(1..=3), Fault::Reject(503));
    let bytes = pattern(1_000);
    let stored = upload(&place.store, KEY, &bytes).await;
    assert_stored(&place, &bytes, stored).await;

    let (proxy, place) = through_proxy().await;
    proxy.fault(On::op(Op::PutObject), Fault::Reject(500));
    let error = upload(&place.store, KEY, &bytes).await.unwrap_err();
    assert_eq!(error.code(), Code::Store);
    assert_nothing_left(&place).await;
}

#[tokio::test]
async fn a_connection_reset_within_a_part_is_survived() {
    let (proxy, place) = through_proxy().await;
    proxy.fault(On::op(Op::UploadPart).calls(1..=2), Fault::Reset { after: 1_000_000 });
    proxy.fault(On::op(Op::UploadPart).calls(4..=4), Fault::Reset { after: 0 });
    let bytes = pattern(3 * PART);
    let stored = upload(&place.store, KEY, &bytes).await;
    assert_eq!(proxy.faults(), 3);
    assert_stored(&place, &bytes, stored).await;
}

#[tokio::test]
async fn a_part_whose_answer_is_lost_is_sent_again() {
    let (proxy, place) = through_proxy().await;
    proxy.fault(On::op(Op::UploadPart).calls(1..=1), Fault::LoseAnswer);
    let bytes = pattern(2 * PART);
    let stored = upload(&place.store, KEY, &bytes).await;
    assert_eq!(proxy.count(Op::UploadPart), 3);
    assert_stored(&place, &bytes, stored).await;
}

#[tokio::test]
async fn a_part_that_is_damaged_on_the_way_is_sent_again() {
    for settings in [
        s3_settings(),
        settings::S3 {
            checksums: Checksums::WhenRequired,
            ..s3_settings()
        },
    ] {
        let (proxy, place) = through_proxy_with(settings, quick()).await;
        proxy.fault(On::op(Op::UploadPart).calls(2..=2), Fault::CorruptBody);
        let bytes = pattern(3 * PART);
        let stored = upload(&place.store, KEY, &bytes).await;
        assert_eq!(proxy.count(Op::UploadPart), 4);
        assert_stored(&place, &bytes, stored).await;
    }
}

#[tokio::test]
async fn parts_that_are_always_damaged_end_the_upload() {
    let (proxy, place) = through_proxy().await;
    proxy.fault(On::op(Op::UploadPart), Fault::CorruptBody);
    let error = upload(&place.store, KEY, &pattern(2 * PART)).await.unwrap_err();
    assert_eq!(error.code(), Code::Store);
    assert_nothing_left(&place).await;
}

#[tokio::test]
async fn a_small_object_that_is_damaged_on_the_way_is_sent_again() {
    let (proxy, place) = through_proxy().await;
    proxy.fault(On::op(Op::PutObject).calls(1..=1), Fault::CorruptBody);
    let bytes = pattern(1_000);
    let stored = upload(&place.store, KEY, &bytes).await;
    assert_stored(&place, &bytes, stored).await;
}

#[tokio::test]
async fn a_part_with_another_checksum_than_ours_is_sent_again_once() {
    let (proxy, place) = through_proxy().await;
    proxy.fault(On::op(Op::UploadPart).calls(1..=1), Fault::WrongChecksum);
    let bytes = pattern(2 * PART);
    let stored = upload(&place.store, KEY, &bytes).await;
    assert_stored(&place, &bytes, stored).await;

    let (proxy, place) = through_proxy().await;
    proxy.fault(On::op(Op::UploadPart).target("partNumber=2"), Fault::WrongChecksum);
    let error = upload(&place.store, KEY, &bytes).await.unwrap_err();
    assert_eq!(error.code(), Code::Store);
    assert!(
        error.message().contains("a checksum that differs from ours for part 2"),
        "{error}"
    );
    assert_nothing_left(&place).await;
}

#[tokio::test]
async fn a_store_that_reports_no_checksum_is_not_trusted_unless_told_so() {
    let bytes = pattern(2 * PART);
    let (proxy, place) = through_proxy().await;
    proxy.fault(On::op(Op::UploadPart), Fault::NoChecksum);
    let error = upload(&place.store, KEY, &bytes).await.unwrap_err();
    assert!(
        error.hint_text().contains("BACKUP_S3_CHECKSUMS=when_required"),
        "{}",
        error.hint_text()
    );
    assert_nothing_left(&place).await;

    let settings = settings::S3 {
        checksums: Checksums::WhenRequired,
        ..s3_settings()
    };
    let (proxy, place) = through_proxy_with(settings, quick()).await;
    proxy.fault(On::any(), Fault::NoChecksum);
    let stored = upload(&place.store, KEY, &bytes).await;
    assert_stored(&place, &bytes, stored).await;
}

#[tokio::test]
async fn a_small_object_with_another_checksum_is_given_up_and_said_to_be_visible() {
    let (proxy, place) = through_proxy().await;
    proxy.fault(On::op(Op::PutObject), Fault::WrongChecksum);
    let error = upload(&place.store, KEY, &pattern(1_000)).await.unwrap_err();
    assert!(error.message().contains("visible"), "{error}");
    let tags = place.store.lifecycle().unwrap().tags(KEY).await.unwrap().unwrap();
    assert!(
        tags.contains(&("pgstow-tier".to_owned(), "pending".to_owned())),
        "{tags:?}"
    );
}

#[tokio::test]
async fn a_completion_whose_answer_is_lost_is_a_success() {
    for fault in [Fault::LoseAnswer, Fault::HoldAnswer] {
        let patience = Patience {
            complete: Duration::from_secs(2),
            ..quick()
        };
        let (proxy, place) = through_proxy_with(s3_settings(), patience).await;
        proxy.fault(On::op(Op::CompleteUpload), fault);
        let bytes = pattern(3 * PART);
        let stored = upload(&place.store, KEY, &bytes).await;
        assert!(proxy.faults() > 0);
        assert_stored(&place, &bytes, stored).await;
    }
}

#[tokio::test]
async fn a_completion_that_never_succeeds_leaves_nothing() {
    let (proxy, place) = through_proxy().await;
    proxy.fault(On::op(Op::CompleteUpload), Fault::Reject(500));
    let error = upload(&place.store, KEY, &pattern(3 * PART)).await.unwrap_err();
    assert_eq!(error.code(), Code::Store);
    assert!(error.message().contains("cannot complete the upload"), "{error}");
    assert_nothing_left(&place).await;
}

#[tokio::test]
async fn a_failed_completion_over_an_older_object_is_not_taken_for_a_success() {
    let (proxy, place) = through_proxy().await;
    let older = pattern(3 * PART + 1).slice(1..);
    upload(&place.store, KEY, &older).await.unwrap();
    proxy.fault(On::op(Op::CompleteUpload), Fault::Reject(500));
    upload(&place.store, KEY, &pattern(3 * PART)).await.unwrap_err();
    assert!(place.bytes_of(KEY).await.unwrap() == older[..]);
    assert_eq!(place.uploads_in_progress().await, 0);
}

#[tokio::test]
async fn an_upload_that_was_created_twice_leaves_no_twin() {
    let (proxy, place) = through_proxy().await;
    proxy.fault(On::op(Op::CreateUpload).calls(1..=2), Fault::LoseAnswer);
    let bytes = pattern(2 * PART);
    let stored = upload(&place.store, KEY, &bytes).await;
    assert_eq!(proxy.faults(), 2);
    assert_stored(&place, &bytes, stored).await;

    let (proxy, place) = through_proxy().await;
    proxy.fault(On::op(Op::CreateUpload), Fault::LoseAnswer);
    upload(&place.store, KEY, &bytes).await.unwrap_err();
    assert_nothing_left(&place).await;
}

#[tokio::test]
async fn an_abort_is_repeated_through_a_burst() {
    let (proxy, place) = through_proxy().await;
    let mut upload = place.store.upload(KEY, &info()).await.unwrap();
    upload.write(pattern(3 * PART)).await.unwrap();
    proxy.fault(On::op(Op::AbortUpload).calls(1..=3), Fault::Reject(503));
    upload.abort().await.unwrap();
    assert_nothing_left(&place).await;
}

#[tokio::test]
async fn an_abort_that_fails_is_attached_to_the_first_error() {
    let (proxy, place) = through_proxy().await;
    proxy.fault(On::op(Op::CompleteUpload), Fault::Reject(500));
    proxy.fault(On::op(Op::AbortUpload), Fault::Reject(403));
    let error = upload(&place.store, KEY, &pattern(2 * PART)).await.unwrap_err();
    let message = error.message();
    let (first, then) = message.split_once("; and then: ").expect("two failures");
    assert!(first.contains("cannot complete the upload"), "{message}");
    assert!(then.contains("cannot abort the upload"), "{message}");
    assert_eq!(place.uploads_in_progress().await, 1, "which the error says");
    proxy.heal();
    let left = place.store.unfinished("shop/").await.unwrap();
    place.store.abort_unfinished(&left[0]).await.unwrap();
    assert_nothing_left(&place).await;
}

#[tokio::test]
async fn an_abort_does_not_wait_for_parts_that_hang() {
    let (proxy, place) = through_proxy().await;
    proxy.fault(On::op(Op::UploadPart), Fault::HoldAnswer);
    let mut upload = place.store.upload(KEY, &info()).await.unwrap();
    upload.write(pattern(3 * PART)).await.unwrap();
    // The proxy never answers the parts.
    upload.abort().await.unwrap();
    assert_nothing_left(&place).await;
}

#[tokio::test]
async fn a_slow_line_is_waited_for() {
    let (proxy, place) = through_proxy().await;
    proxy.fault(
        On::op(Op::UploadPart),
        Fault::Slow {
            bytes_per_second: 4 << 20,
        },
    );
    let bytes = pattern(3 * PART);
    let stored = upload(&place.store, KEY, &bytes).await;
    assert_stored(&place, &bytes, stored).await;
}

#[tokio::test]
async fn a_writer_cannot_run_ahead_of_the_store() {
    let (proxy, place) = through_proxy().await;
    proxy.fault(On::op(Op::UploadPart), Fault::HoldAnswer);
    let mut upload = place.store.upload(KEY, &info()).await.unwrap();
    let piece = pattern(1 << 20);
    let mut taken = 0;
    let run_ahead = async {
        loop {
            upload.write(piece.clone()).await.unwrap();
            taken += piece.len();
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(5), run_ahead).await;
    assert!((20 << 20..=48 << 20).contains(&taken), "{taken}");
    upload.abort().await.unwrap();
    assert_nothing_left(&place).await;
}

#[tokio::test]
async fn a_conditional_put_whose_answer_is_lost_is_done() {
    let (proxy, place) = through_proxy().await;
    let body = Bytes::from_static(b"{\"schema\":1}");
    let key = "shop/20260102T030405Z-full/manifest.json";
    proxy.fault(On::op(Op::PutObject).calls(1..=1), Fault::LoseAnswer);
    let conditional = place.store.conditional().unwrap();
    let done = conditional
        .put_if(key, body.clone(), &info(), Condition::Absent)
        .await
        .unwrap();
    let Put::Done(version) = done else {
        panic!("refused by its own first attempt");
    };
    assert_eq!(proxy.count(Op::PutObject), 2);

    proxy.heal();
    proxy.fault(On::op(Op::PutObject).calls(1..=1), Fault::LoseAnswer);
    let newer = Bytes::from_static(b"{\"schema\":2}");
    let conditional = place.store.conditional().unwrap();
    let done = conditional
        .put_if(key, newer.clone(), &info(), Condition::Unchanged(version))
        .await
        .unwrap();
    assert!(matches!(done, Put::Done(_)), "refused by its own first attempt");
    assert!(place.bytes_of(key).await.unwrap() == newer[..]);
}

#[tokio::test]
async fn conflicting_conditional_puts_are_repeated() {
    let (proxy, place) = through_proxy().await;
    proxy.fault(On::op(Op::PutObject).calls(1..=2), Fault::Reject(409));
    let body = Bytes::from_static(b"x");
    let conditional = place.store.conditional().unwrap();
    let done = conditional
        .put_if("shop/.lease", body, &info(), Condition::Absent)
        .await
        .unwrap();
    assert!(matches!(done, Put::Done(_)));
    assert_eq!(proxy.count(Op::PutObject), 3);
}

#[tokio::test]
async fn a_read_that_breaks_off_is_read_again() {
    let (proxy, place) = through_proxy().await;
    let bytes = pattern(2 * PART);
    upload(&place.store, KEY, &bytes).await.unwrap();
    proxy.fault(
        On::op(Op::GetObject).calls(1..=2),
        Fault::CutAnswer { after: 1_000_000 },
    );
    assert!(place.store.get(KEY).await.unwrap().unwrap().body == bytes);
    let range = place.store.get_range(KEY, 5, PART as u64).await.unwrap().unwrap();
    assert!(range == bytes.slice(5..5 + PART));
}
