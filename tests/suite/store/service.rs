//! What only S3 has: tags, rules, encryption; and what it refuses, in words that help.

use bytes::Bytes;
use pgstow::error::{Code, Error};
use pgstow::repository::retention::Rule;
use pgstow::settings::{self, Encryption};
use pgstow::store::Store;
use pgstow::store::s3::S3;
use secrecy::SecretString;

use super::conformance::{info, pattern, upload};
use super::place::{self, aws_settings, bucket, endpoint, quick, s3_settings, unique};

const PART: usize = 5 << 20;

async fn store_with(aws: settings::Aws, bucket: &str) -> S3 {
    let client = place::client(&aws, &s3_settings(), &quick()).await;
    S3::new(client, bucket, "a/b", s3_settings(), quick())
}

async fn unreachable(aws: settings::Aws, bucket: &str) -> Error {
    store_with(aws, bucket).await.reach().await.unwrap_err()
}

fn assert_says(error: &Error, words: &str, hint: &str) {
    assert_eq!(error.code(), Code::Store);
    assert!(error.message().contains(words), "{error}");
    assert!(error.hint_text().contains(hint), "{}", error.hint_text());
    for debris in ["{", "}", "Unhandled", "ErrorMetadata", "pgstow/test+secret"] {
        assert!(!error.message().contains(debris), "{error}");
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_used_says_why_and_what_to_do() {
    let good = aws_settings(&endpoint());
    let error = unreachable(good.clone(), "no-such-bucket-here").await;
    assert_says(&error, "NoSuchBucket", "create the bucket");
    assert!(error.message().contains("s3://no-such-bucket-here/a/b"), "{error}");

    let mut wrong = good.clone();
    wrong.secret_access_key = Some(SecretString::from("not the secret"));
    assert_says(
        &unreachable(wrong, "x").await,
        "SignatureDoesNotMatch",
        "AWS_SECRET_ACCESS_KEY",
    );

    let mut wrong = good.clone();
    wrong.access_key_id = Some("AKIDOESNOTEXIST".to_owned());
    assert_says(
        &unreachable(wrong, "x").await,
        "InvalidAccessKeyId",
        "AWS_ACCESS_KEY_ID",
    );

    let refused = unreachable(aws_settings("http://127.0.0.1:9"), "x").await;
    assert_says(&refused, "onnection refused", "AWS_ENDPOINT_URL_S3");

    let no_name = unreachable(aws_settings("http://s3.invalid"), "x").await;
    assert_says(&no_name, "cannot be resolved", "DNS");
}

#[tokio::test]
async fn a_refused_write_names_the_object_and_leaves_nothing() {
    let proxy = crate::support::fault_proxy::FaultProxy::start(&endpoint()).await;
    let place = place::bucket_at(&proxy.url(), s3_settings(), quick()).await;
    proxy.fault(
        crate::support::fault_proxy::On::op(crate::support::fault_proxy::Op::UploadPart),
        crate::support::fault_proxy::Fault::Reject(403),
    );
    let error = upload(&place.store, "shop/x.dump", &pattern(2 * PART))
        .await
        .unwrap_err();
    assert_says(&error, "shop/x.dump", "allow the action");
    assert_eq!(place.uploads_in_progress().await, 0);
}

#[tokio::test]
async fn credentials_of_the_store_alone_are_the_stronger_ones() {
    let good = aws_settings(&endpoint());
    let place = bucket().await;
    let aws = settings::Aws {
        s3_access_key_id: good.access_key_id.clone(),
        s3_secret_access_key: good.secret_access_key.clone(),
        access_key_id: Some("OTHER".to_owned()),
        ..good
    };
    store_with(aws, &place.bucket).await.reach().await.unwrap();
}

#[tokio::test]
async fn tags_and_metadata_reach_the_object_whole_or_in_parts() {
    let place = bucket().await;
    let lifecycle = place.store.lifecycle().unwrap();
    for length in [10, 2 * PART] {
        let key = format!("shop/{length}");
        upload(&place.store, &key, &pattern(length)).await.unwrap();
        let mut tags = lifecycle.tags(&key).await.unwrap().unwrap();
        tags.sort();
        let mut wanted = info().tags;
        wanted.sort();
        assert_eq!(tags, wanted);
        let mut head = place.store.head(&key).await.unwrap().unwrap();
        // Each upload's own word.
        head.metadata.retain(|(name, _)| name != "pgstow-upload");
        assert_eq!(head.metadata, info().metadata);
        let new = vec![("pgstow-tier".to_owned(), "latest".to_owned())];
        lifecycle.set_tags(&key, &new).await.unwrap();
        assert_eq!(lifecycle.tags(&key).await.unwrap().unwrap(), new);
    }
    assert!(lifecycle.tags("shop/none").await.unwrap().is_none());
    let error = lifecycle.set_tags("shop/none", &[]).await.unwrap_err();
    assert_eq!(error.code(), Code::Store);
}

#[tokio::test]
async fn encryption_and_storage_class_are_asked_for() {
    let settings = settings::S3 {
        encryption: Encryption::SseS3,
        storage_class: Some("STANDARD".to_owned()),
        ..s3_settings()
    };
    let place = place::bucket_at(&endpoint(), settings, quick()).await;
    for length in [10, 2 * PART + 5] {
        let key = format!("shop/{length}");
        let bytes = pattern(length);
        upload(&place.store, &key, &bytes).await.unwrap();
        assert!(place.store.get(&key).await.unwrap().unwrap().body == bytes);
        let head = place.client.head_object().bucket(&place.bucket);
        let head = head.key(format!("{}/{key}", place.prefix)).send().await.unwrap();
        assert_eq!(
            head.server_side_encryption().map(ToString::to_string).as_deref(),
            Some("AES256")
        );
    }
}

#[tokio::test]
async fn an_object_that_needs_too_many_parts_is_refused_with_a_way_out() {
    let settings = settings::S3 {
        max_parts: 3,
        ..s3_settings()
    };
    let place = place::bucket_at(&endpoint(), settings, quick()).await;
    // One part of 5 MiB, one of 10, one of 20.
    let error = upload(&place.store, "shop/x", &pattern(8 * PART)).await.unwrap_err();
    assert_eq!(error.code(), Code::Store);
    assert!(
        error.hint_text().contains("BACKUP_S3_MAX_PARTS"),
        "{}",
        error.hint_text()
    );
    assert!(place.bytes_of("shop/x").await.is_none());
    assert_eq!(place.uploads_in_progress().await, 0);
    let bytes = pattern(6 * PART);
    upload(&place.store, "shop/x", &bytes).await.unwrap();
    assert!(place.bytes_of("shop/x").await.unwrap() == bytes[..]);
}

fn rule(id: &str, prefix: &str, days: u32) -> Rule {
    Rule {
        enabled: true,
        id: id.to_owned(),
        prefix: prefix.to_owned(),
        tag: Some(("pgstow-tier".to_owned(), "daily".to_owned())),
        limits: Vec::new(),
        expire_days: Some(days),
        expire_date: None,
        noncurrent_days: None,
        abort_uploads_days: None,
        archive: None,
    }
}

#[tokio::test]
async fn rules_are_installed_beside_foreign_ones() {
    let client = place::client(&aws_settings(&endpoint()), &s3_settings(), &quick()).await;
    let name = unique("pgstow-rules").to_lowercase();
    place::create_bucket(&client, &name).await;
    let store = S3::new(client.clone(), &name, "team", s3_settings(), quick());
    let neighbour = S3::new(client.clone(), &name, "other", s3_settings(), quick());
    let lifecycle = store.lifecycle().unwrap();
    assert_eq!(lifecycle.prefix(), "team/");
    assert_eq!(lifecycle.rules().await.unwrap(), pgstow::store::Rules::default());

    let foreign = aws_sdk_s3::types::LifecycleRule::builder()
        .id("logs")
        .status(aws_sdk_s3::types::ExpirationStatus::Enabled)
        .filter(
            aws_sdk_s3::types::LifecycleRuleFilter::builder()
                .prefix("logs/")
                .build(),
        )
        .expiration(aws_sdk_s3::types::LifecycleExpiration::builder().days(7).build())
        .build()
        .unwrap();
    let configuration = aws_sdk_s3::types::BucketLifecycleConfiguration::builder().rules(foreign.clone());
    client
        .put_bucket_lifecycle_configuration()
        .bucket(&name)
        .lifecycle_configuration(configuration.build().unwrap())
        .send()
        .await
        .unwrap();

    let uploads = Rule {
        tag: None,
        expire_days: None,
        abort_uploads_days: Some(2),
        archive: None,
        ..rule("pgstow-uploads", "team/", 1)
    };
    let ours = [rule("pgstow-daily", "team/", 7), uploads];
    lifecycle.install_rules(&ours).await.unwrap();
    neighbour
        .lifecycle()
        .unwrap()
        .install_rules(&[rule("pgstow-other-daily", "other/", 3)])
        .await
        .unwrap();
    let newer = [rule("pgstow-daily", "team/", 14)];
    lifecycle.install_rules(&newer).await.unwrap();
    let found = lifecycle.rules().await.unwrap();
    assert_eq!(found.ours, newer);
    let mut others: Vec<String> = found.foreign.into_iter().map(|rule| rule.id).collect();
    others.sort();
    assert_eq!(others, ["logs", "pgstow-other-daily"]);

    lifecycle.install_rules(&[]).await.unwrap();
    neighbour.lifecycle().unwrap().install_rules(&[]).await.unwrap();
    let left = client
        .get_bucket_lifecycle_configuration()
        .bucket(&name)
        .send()
        .await
        .unwrap();
    assert_eq!(left.rules(), [foreign]);
    client.delete_bucket().bucket(&name).send().await.unwrap();
}

#[tokio::test]
async fn the_url_names_the_store_and_no_secret() {
    let mut aws = aws_settings(&endpoint());
    aws.endpoint_s3 = Some("http://user:hunter2@127.0.0.1:9".to_owned());
    let store = store_with(aws, "bucket").await;
    assert_eq!(store.url(), "s3://bucket/a/b");
    let put = store.put("x", Bytes::new(), &info()).await;
    assert!(!put.unwrap_err().message().contains("hunter2"));
}
