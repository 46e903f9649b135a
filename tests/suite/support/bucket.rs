//! A bucket of a test's own in SeaweedFS. It goes with the server.

use std::collections::BTreeMap;

use aws_config::BehaviorVersion;
use aws_config::Region;
use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::Config;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

use super::database::unique_word;
use super::services::{REGION, S3, s3};

pub struct Bucket {
    pub name: String,
    pub client: Client,
}

/// A client of SeaweedFS, or of something in front of it.
pub fn client(service: &S3) -> Client {
    let credentials = Credentials::new(&service.access_key, &service.secret_key, None, None, "tests");
    let http = Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static(REGION))
        .endpoint_url(&service.endpoint)
        .force_path_style(true)
        .credentials_provider(credentials)
        .http_client(http)
        .build();
    Client::from_conf(config)
}

impl Bucket {
    pub async fn fresh() -> Self {
        let bucket = Self {
            name: format!("test-{}", unique_word()),
            client: client(&s3()),
        };
        bucket.client.create_bucket().bucket(&bucket.name).send().await.unwrap();
        bucket
    }

    /// One that several tests share. Made if it is not there.
    pub async fn named(name: &str) -> Self {
        let bucket = Self {
            name: name.to_owned(),
            client: client(&s3()),
        };
        if let Err(error) = bucket.client.create_bucket().bucket(name).send().await {
            assert!(
                matches!(error.code(), Some("BucketAlreadyOwnedByYou" | "BucketAlreadyExists")),
                "{error:?}"
            );
        }
        bucket
    }

    /// As `--store` takes it; `prefix` may be empty.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{}/{prefix}", self.name)
    }

    /// The keys of all objects, sorted.
    pub async fn keys(&self) -> Vec<String> {
        let mut pages = self.client.list_objects_v2().bucket(&self.name).into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            keys.extend(
                page.unwrap()
                    .contents()
                    .iter()
                    .map(|object| object.key().unwrap().to_owned()),
            );
        }
        keys.sort();
        keys
    }

    pub async fn get(&self, key: &str) -> Vec<u8> {
        let object = self.client.get_object().bucket(&self.name).key(key).send().await;
        object
            .unwrap_or_else(|error| panic!("{key}: {error:?}"))
            .body
            .collect()
            .await
            .unwrap()
            .to_vec()
    }

    pub async fn put(&self, key: &str, body: &[u8]) {
        let body = ByteStream::from(body.to_vec());
        self.client
            .put_object()
            .bucket(&self.name)
            .key(key)
            .body(body)
            .send()
            .await
            .unwrap();
    }

    pub async fn tags(&self, key: &str) -> BTreeMap<String, String> {
        let tags = self
            .client
            .get_object_tagging()
            .bucket(&self.name)
            .key(key)
            .send()
            .await
            .unwrap();
        tags.tag_set()
            .iter()
            .map(|tag| (tag.key().to_owned(), tag.value().to_owned()))
            .collect()
    }

    /// The keys of multipart uploads in progress.
    pub async fn uploads(&self) -> Vec<String> {
        let uploads = self
            .client
            .list_multipart_uploads()
            .bucket(&self.name)
            .send()
            .await
            .unwrap();
        uploads
            .uploads()
            .iter()
            .map(|upload| upload.key().unwrap().to_owned())
            .collect()
    }
}
