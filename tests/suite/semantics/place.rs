//! A place for backups of a test's own, and what is really in it: read without pgstow's stores.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use futures::stream::{self, StreamExt};
use pgstow::outside::aws::{self, Patience};
use pgstow::settings::{self, Settings};
use pgstow::store::Store;
use pgstow::store::local::Local;
use pgstow::store::s3::S3;
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::support::bucket::client;
use crate::support::database::unique_word;
use crate::support::services::{REGION, s3};

/// All tests share one, each under its own prefix: SeaweedFS keeps volumes for every bucket, and
/// has not many of them.
const BUCKET: &str = "pgstow-semantics";

pub enum Place {
    Folder(TempDir),
    Prefix(String),
}

/// One object, or what is on its way to become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub bytes: u64,
    pub sha256: String,
    /// `pgstow-tier`; `None` in a folder.
    pub tier: Option<String>,
    /// Of manifests and leases only.
    pub body: Vec<u8>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    pub objects: BTreeMap<String, Found>,
    /// Keys of temporary files or of uploads in progress.
    pub unfinished: Vec<String>,
    /// Folders with nothing in them.
    pub empty: Vec<String>,
}

impl Place {
    pub fn folder() -> Self {
        Self::Folder(tempfile::tempdir().unwrap())
    }

    pub async fn prefix() -> Self {
        // Another test may have made it; if not, the first request fails.
        let _ = client(&s3()).create_bucket().bucket(BUCKET).send().await;
        Self::Prefix(unique_word())
    }

    pub fn has_lifecycle(&self) -> bool {
        matches!(self, Self::Prefix(_))
    }

    /// As `--store` takes it.
    pub fn url(&self) -> String {
        match self {
            Self::Folder(folder) => folder.path().join("backups").display().to_string(),
            Self::Prefix(prefix) => format!("s3://{BUCKET}/{prefix}"),
        }
    }

    /// A store as the app makes it, with a client of its own.
    pub async fn store(&self, settings: &Settings) -> Arc<dyn Store> {
        match self {
            Self::Folder(folder) => Arc::new(Local::new(folder.path().join("backups"))),
            Self::Prefix(prefix) => {
                let service = s3();
                let aws = settings::Aws {
                    region: Some(REGION.to_owned()),
                    endpoint_s3: Some(service.endpoint),
                    access_key_id: Some(service.access_key),
                    secret_access_key: Some(SecretString::from(service.secret_key)),
                    ..settings::Aws::default()
                };
                let patience = Patience::default();
                let client = aws::s3_client(
                    &aws::load(&aws).await.unwrap(),
                    &aws,
                    settings.s3.checksums,
                    settings.s3.path_style,
                    &patience,
                );
                Arc::new(S3::new(client, BUCKET, prefix, settings.s3.clone(), patience))
            }
        }
    }

    pub async fn state(&self) -> State {
        match self {
            Self::Folder(folder) => {
                let mut state = State::default();
                walk(&folder.path().join("backups"), "", &mut state);
                state
            }
            Self::Prefix(prefix) => bucket_state(prefix).await,
        }
    }

    /// As if the time had passed in which a dead run's lease ends.
    pub async fn expire_lease(&self) {
        for (key, lease) in self.state().await.objects {
            if !key.ends_with("/.lease") {
                continue;
            }
            let mut body: serde_json::Value = serde_json::from_slice(&lease.body).unwrap();
            body["expires_at"] = "2000-01-01T00:00:00Z".into();
            let body = serde_json::to_vec(&body).unwrap();
            match self {
                Self::Folder(folder) => fs::write(folder.path().join("backups").join(&key), body).unwrap(),
                Self::Prefix(prefix) => {
                    let put = client(&s3()).put_object().bucket(BUCKET).key(format!("{prefix}/{key}"));
                    put.body(ByteStream::from(body)).send().await.unwrap();
                }
            }
        }
    }

    /// Takes objects away as people, or the bucket's lifecycle, do.
    pub async fn remove(&self, keys: impl IntoIterator<Item = String>) {
        for key in keys {
            match self {
                Self::Folder(folder) => {
                    let path = folder.path().join("backups").join(&key);
                    fs::remove_file(&path).unwrap();
                    // Stays where something else is in it.
                    let _ = fs::remove_dir(path.parent().unwrap());
                }
                Self::Prefix(prefix) => {
                    let key = format!("{prefix}/{key}");
                    let removed = client(&s3()).delete_object().bucket(BUCKET).key(key).send().await;
                    removed.unwrap();
                }
            }
        }
    }
}

fn found(body: &[u8], key: &str, tier: Option<String>) -> Found {
    let small = key.ends_with("/manifest.json") || key.ends_with("/.lease");
    Found {
        bytes: body.len() as u64,
        sha256: hex::encode(Sha256::digest(body)),
        tier,
        body: if small { body.to_vec() } else { Vec::new() },
    }
}

fn walk(folder: &Path, key: &str, state: &mut State) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut any = false;
    for entry in entries {
        any = true;
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let key = format!("{key}{name}");
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), &format!("{key}/"), state);
        } else if name.ends_with(".pgstow-tmp") {
            // `.NAME.RANDOM.pgstow-tmp`
            // One dot alone: the lease's own name begins with another.
            let name = name.strip_prefix('.').unwrap().rsplitn(3, '.').nth(2).unwrap();
            let (folder, _) = key.rsplit_once('/').unwrap();
            state.unfinished.push(format!("{folder}/{name}"));
        } else {
            state
                .objects
                .insert(key.clone(), found(&fs::read(entry.path()).unwrap(), &key, None));
        }
    }
    if !any {
        state.empty.push(key.to_owned());
    }
}

async fn bucket_state(prefix: &str) -> State {
    let client = client(&s3());
    let mut state = State::default();
    let start = format!("{prefix}/");
    let mut pages = client
        .list_objects_v2()
        .bucket(BUCKET)
        .prefix(&start)
        .into_paginator()
        .send();
    let mut keys = Vec::new();
    while let Some(page) = pages.next().await {
        keys.extend(
            page.unwrap()
                .contents()
                .iter()
                .map(|object| object.key().unwrap().to_owned()),
        );
    }
    let objects = stream::iter(keys).map(|key| {
        let client = &client;
        async move {
            let tags = client.get_object_tagging().bucket(BUCKET).key(&key).send();
            let (body, tags) = tokio::join!(read(client, &key), tags);
            let tags = tags.unwrap();
            let tier = tags.tag_set().iter().find(|tag| tag.key() == "pgstow-tier");
            let found = found(&body, &key, tier.map(|tag| tag.value().to_owned()));
            (key, found)
        }
    });
    let objects: Vec<_> = objects.buffered(8).collect().await;
    for (key, found) in objects {
        state
            .objects
            .insert(key.strip_prefix(&start).unwrap().to_owned(), found);
    }
    let uploads = client
        .list_multipart_uploads()
        .bucket(BUCKET)
        .prefix(&start)
        .send()
        .await;
    for upload in uploads.unwrap().uploads() {
        let key = upload.key().unwrap().strip_prefix(&start).unwrap();
        state.unfinished.push(key.to_owned());
    }
    state
}

async fn read(client: &Client, key: &str) -> Vec<u8> {
    let object = client.get_object().bucket(BUCKET).key(key).send().await.unwrap();
    object.body.collect().await.unwrap().to_vec()
}
