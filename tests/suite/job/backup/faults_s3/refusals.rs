//! Stores that are not there, or do not let us in.

use std::net::TcpListener;

use super::scene::Scene;
use crate::support::database::unique_word;
use crate::support::fault_proxy::{Fault, On, Op};
use crate::support::services::{S3, s3, s3_reader};

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_is_named_before_anything_is_read() {
    let mut scene = Scene::small().await;
    let url = format!("s3://nowhere-{}/pg", unique_word());
    scene.set("BACKUP_STORE", &url);
    let ended = scene.run();
    ended.store_failed(
        &format!("cannot reach the store {url}: NoSuchBucket"),
        "create the bucket",
    );
    scene.assert_no_trace().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_may_only_read_is_told_which_permission_is_missing() {
    let mut scene = Scene::small().await;
    scene.log_in(&s3_reader());
    scene.set("AWS_ENDPOINT_URL_S3", &scene.proxy.url());
    let ended = scene.run();
    let statement = format!(
        r#"{{"Effect": "Allow", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::{}/"#,
        scene.primary.bucket.name
    );
    ended.store_failed("AccessDenied", &statement);
    assert_eq!(scene.primary.keys().await, [""; 0]);
    scene.assert_no_trace().await;
    let (message, _) = ended.failed("STORE", 30);
    assert!(message.contains(".lease"), "what was refused is named: {message}");
}

/// Answers of S3 that do not say which permission is lacking.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_object_with_tags_is_told_which_permissions_it_takes() {
    let scene = Scene::three_parts().await;
    for op in [Op::CreateUpload, Op::PutObject] {
        scene.proxy.heal();
        scene
            .proxy
            .fault(On::op(op).header("x-amz-tagging"), Fault::Reject(403));
        let statement = format!(
            r#"{{"Effect": "Allow", "Action": ["s3:PutObject", "s3:PutObjectTagging"], "Resource": "arn:aws:s3:::{}/"#,
            scene.primary.bucket.name
        );
        scene.run().store_failed("AccessDenied", &statement);
    }
    // Tags of an object that is there.
    scene.proxy.heal();
    scene.proxy.fault(On::op(Op::Tagging).method("PUT"), Fault::Reject(403));
    let statement = r#"{"Effect": "Allow", "Action": "s3:PutObjectTagging", "Resource": "#;
    scene.run().store_failed("AccessDenied", statement);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_access_key_is_told_from_a_wrong_secret_key() {
    let mut scene = Scene::small().await;
    scene.set("AWS_ACCESS_KEY_ID", "AKIANOBODY");
    scene.run().store_failed("InvalidAccessKeyId", "AWS_ACCESS_KEY_ID");

    scene.settings.remove("AWS_ACCESS_KEY_ID");
    scene.set("AWS_SECRET_ACCESS_KEY", "a-secret-of-another");
    let ended = scene.run();
    ended.store_failed("SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY");
    assert!(!ended.stderr.contains("a-secret-of-another"));
    scene.assert_no_trace().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_where_nobody_listens_is_given_up_soon() {
    let mut scene = Scene::small().await;
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    scene.log_in(&S3 {
        endpoint: format!("http://{free}"),
        ..s3()
    });
    let ended = scene.run();
    ended.store_failed("refused", "AWS_ENDPOINT_URL_S3");
    scene.assert_no_trace().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_nobody_knows_is_said_to_be_one() {
    let mut scene = Scene::small().await;
    scene.set("AWS_ENDPOINT_URL_S3", "http://store.invalid:8333");
    scene.run().store_failed("name cannot be resolved", "DNS");
    scene.assert_no_trace().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_midway_is_not_repeated_and_leaves_nothing() {
    let scene = Scene::three_parts().await;
    for op in [Op::UploadPart, Op::CompleteUpload] {
        scene.proxy.heal();
        scene.proxy.fault(On::op(op), Fault::Reject(403));
        let before = scene.proxy.count(op);
        scene.run().store_failed("AccessDenied", "allow the action");
        assert!(scene.proxy.count(op) - before <= 3, "asked again");
        scene.assert_no_trace().await;
    }
}
