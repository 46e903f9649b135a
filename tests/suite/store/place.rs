//! Places where a test's store can be: a fresh folder, a small disk, a prefix of a bucket.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_sdk_s3::Client;
use pgstow::outside::aws::{self, Patience};
use pgstow::settings::{self, Checksums, Encryption};
use pgstow::store::Store;
use pgstow::store::local::Local;
use pgstow::store::s3::S3;
use secrecy::SecretString;

/// All tests share one bucket, each under its own prefix: the test server keeps several volumes
/// for every bucket that holds objects, and has not many of them.
const BUCKET: &str = "pgstow-conformance";

pub struct FolderPlace {
    pub store: Local,
    pub root: PathBuf,
    _folder: tempfile::TempDir,
}

#[allow(clippy::unused_async)] // the suite awaits every place
pub async fn folder() -> FolderPlace {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("backups");
    FolderPlace {
        store: Local::new(root.clone()),
        root,
        _folder: folder,
    }
}

/// A tmpfs of its own, unmounted when dropped, so also when a test fails.
pub struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    pub fn mount(options: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(folder.path())
            .status()
            .expect("mount, which needs root");
        assert!(status.success(), "cannot mount a tmpfs: these tests run as root");
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn remount(&self, options: &str) {
        let status = Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(self.path())
            .status()
            .unwrap();
        assert!(status.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: these tests need the S3 server that `make test` starts and names in PGSTOW_TEST_S3_*"
        )
    })
}

pub fn endpoint() -> String {
    variable("PGSTOW_TEST_S3_ENDPOINT")
}

/// Fast enough for tests, and like the real thing in all else.
pub fn quick() -> Patience {
    Patience {
        answer: Duration::from_secs(20),
        complete: Duration::from_secs(20),
        slowest: 1 << 20,
        attempts: 6,
        first_backoff: Duration::from_millis(50),
        longest_backoff: Duration::from_millis(300),
        abort: Duration::from_secs(2),
        ..Patience::default()
    }
}

pub fn aws_settings(endpoint: &str) -> settings::Aws {
    settings::Aws {
        region: Some("us-east-1".to_owned()),
        endpoint_s3: Some(endpoint.to_owned()),
        access_key_id: Some(variable("PGSTOW_TEST_S3_ACCESS_KEY")),
        secret_access_key: Some(SecretString::from(variable("PGSTOW_TEST_S3_SECRET_KEY"))),
        ..settings::Aws::default()
    }
}

pub fn s3_settings() -> settings::S3 {
    settings::S3 {
        max_parts: 10_000,
        part_size: 5 << 20,
        memory: 40 << 20,
        retry: Duration::from_secs(35),
        checksums: Checksums::Always,
        tagging: settings::TagMode::On,
        encryption: Encryption::Bucket,
        storage_class: None,
        path_style: None,
    }
}

pub async fn client(aws: &settings::Aws, s3: &settings::S3, patience: &Patience) -> Client {
    let config = aws::load(aws).await.unwrap();
    aws::s3_client(&config, aws, s3.checksums, s3.path_style, patience)
}

/// Of this test alone: its process and its turn in it.
pub fn unique(name: &str) -> String {
    static TURN: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    format!(
        "{name}-{:x}-{:x}-{}",
        now.as_micros(),
        std::process::id(),
        TURN.fetch_add(1, Ordering::Relaxed)
    )
}

pub struct BucketPlace {
    pub store: S3,
    /// Straight to the server, whatever is between it and the store.
    pub client: Client,
    pub bucket: String,
    pub prefix: String,
}

impl BucketPlace {
    /// Ids of the uploads in progress under this place's prefix, asked of the server itself.
    pub async fn uploads_in_progress(&self) -> usize {
        let listed = self.client.list_multipart_uploads();
        let listed = listed.bucket(&self.bucket).prefix(format!("{}/", self.prefix));
        listed.send().await.unwrap().uploads().len()
    }

    /// The object's bytes, asked of the server itself.
    pub async fn bytes_of(&self, key: &str) -> Option<Vec<u8>> {
        let object = self.client.get_object().bucket(&self.bucket);
        let object = object.key(format!("{}/{key}", self.prefix)).send().await.ok()?;
        Some(object.body.collect().await.unwrap().to_vec())
    }
}

pub async fn bucket() -> BucketPlace {
    bucket_at(&endpoint(), s3_settings(), quick()).await
}

pub async fn bucket_without_checksums() -> BucketPlace {
    let settings = settings::S3 {
        checksums: Checksums::WhenRequired,
        ..s3_settings()
    };
    bucket_at(&endpoint(), settings, quick()).await
}

/// A store that talks to `store_endpoint` (a fault proxy, perhaps), in the tests' bucket.
pub async fn bucket_at(store_endpoint: &str, settings: settings::S3, patience: Patience) -> BucketPlace {
    let direct = client(&aws_settings(&endpoint()), &s3_settings(), &quick()).await;
    let prefix = unique("store");
    create_bucket(&direct, BUCKET).await;
    let through = client(&aws_settings(store_endpoint), &settings, &patience).await;
    BucketPlace {
        store: S3::new(through, BUCKET, &prefix, settings, patience),
        client: direct,
        bucket: BUCKET.to_owned(),
        prefix,
    }
}

pub async fn create_bucket(client: &Client, name: &str) {
    if let Err(error) = client.create_bucket().bucket(name).send().await {
        let code = aws_sdk_s3::error::ProvideErrorMetadata::code(&error).map(str::to_owned);
        assert!(
            matches!(code.as_deref(), Some("BucketAlreadyOwnedByYou" | "BucketAlreadyExists")),
            "cannot create the tests' bucket: {error:?}"
        );
    }
}

/// One interface for the suite: a place and its store.
pub trait Place {
    fn store(&self) -> &dyn Store;
}

impl Place for FolderPlace {
    fn store(&self) -> &dyn Store {
        &self.store
    }
}

impl Place for BucketPlace {
    fn store(&self) -> &dyn Store {
        &self.store
    }
}
