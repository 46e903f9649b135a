//! Backups in S3, looked at with the AWS command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::job::backup::round_trip::backup::piped;
use crate::support::bucket::Bucket;
use crate::support::contents::Contents;
use crate::support::database::Database;
use crate::support::program::{pgstow, program, stock, succeed};
use crate::support::services::{aws_cli, cloud};

fn aws(arguments: &[&str]) -> Command {
    let mut command = program(aws_cli());
    cloud(&mut command).args(["--output", "json"]).args(arguments);
    command
}

struct Stored {
    bucket: Bucket,
    manifest: Value,
    /// Of all its files, ending in `/`.
    folder: String,
    database: Database,
    /// The backup's folder in the other store.
    copy: PathBuf,
    _folders: tempfile::TempDir,
}

/// Into S3 and into a folder in one run; `primary` says which is the first.
async fn backed_up(database: Database, primary: Primary) -> Stored {
    let bucket = Bucket::fresh().await;
    let folders = tempfile::tempdir().unwrap();
    let path = folders.path().to_str().unwrap().to_owned();
    let stores = match primary {
        Primary::Bucket => [bucket.url("a prefix/pg"), path],
        Primary::Folder => [path, bucket.url("a prefix/pg")],
    };
    let mut command = pgstow();
    cloud(&mut command).env("DATABASE_URL", database.url());
    command.args(["backup", "--json", "--store", &stores[0], "--store", &stores[1]]);
    let report = succeed(&mut command).json();
    for (number, store) in report["stores"].as_array().unwrap().iter().enumerate() {
        assert_eq!(
            (&store["primary"], &store["holds_backup"]),
            (&(number == 0).into(), &true.into()),
            "{report}"
        );
    }
    let id = report["id"].as_str().unwrap();
    let folder = format!("a prefix/pg/{id}/");
    let manifest = serde_json::from_slice(&bucket.get(&format!("{folder}manifest.json")).await).unwrap();
    Stored {
        manifest,
        folder,
        copy: folders.path().join(id),
        database,
        bucket,
        _folders: folders,
    }
}

enum Primary {
    Bucket,
    Folder,
}

impl Stored {
    fn dump(&self) -> String {
        format!(
            "{}{}",
            self.folder,
            self.manifest["files"]["dump"]["name"].as_str().unwrap()
        )
    }

    fn head(&self, key: &str) -> Value {
        let place = ["--bucket", &self.bucket.name, "--key", key];
        succeed(aws(&["s3api", "head-object", "--checksum-mode", "ENABLED"]).args(place)).json()
    }

    async fn is_as_the_contract_says(&self) {
        let mut keys: Vec<String> = self.bucket.keys().await;
        let lease = format!("a prefix/pg/{}/.lease", self.database.name);
        keys.retain(|key| *key != lease);
        assert!(keys.iter().all(|key| key.starts_with(&self.folder)), "{keys:?}");
        let mut names: Vec<String> = keys.iter().map(|key| key[self.folder.len()..].to_owned()).collect();
        let mut copied: Vec<String> = fs::read_dir(&self.copy)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        copied.sort();
        assert_eq!(names, copied);
        assert_eq!(names.len(), 7, "{names:?}");
        assert!(self.bucket.uploads().await.is_empty());

        for (key, name) in keys.iter().zip(&names) {
            let bytes = self.bucket.get(key).await;
            let tags = self.bucket.tags(key).await;
            let tag = |wanted: &str| tags.get(wanted).cloned();
            assert_eq!(tag("pgstow-tier"), Some("latest".into()), "{key}");
            assert_eq!(tag("sha256"), Some(hex::encode(Sha256::digest(&bytes))), "{key}");
            // The manifests tell of their own store's parts.
            if !name.starts_with("manifest.json") {
                assert!(
                    fs::read(self.copy.join(name)).unwrap() == bytes,
                    "{name} differs between the stores"
                );
            }
            // The command line takes a second for each.
            if !name.ends_with(".dump") && name != "manifest.json" {
                continue;
            }
            let place = ["--bucket", &self.bucket.name, "--key", key];
            let tagging = succeed(aws(&["s3api", "get-object-tagging"]).args(place)).json();
            assert_eq!(tagging["TagSet"].as_array().unwrap().len(), 2, "{tagging}");
            let head = self.head(key);
            assert_eq!(head["ContentLength"], bytes.len());
            assert_eq!(head["Metadata"]["pgstow-id"], self.manifest["id"]);
            assert_eq!(head["Metadata"]["pgstow-version"], self.manifest["version"]);
            let metadata = head["Metadata"].as_object().unwrap();
            assert!(
                metadata
                    .values()
                    .any(|value| *value == self.manifest["server"]["version"]),
                "{metadata:?}"
            );
            let checksum = head["ChecksumSHA256"]
                .as_str()
                .unwrap_or_else(|| panic!("{key}: {head}"));
            if !checksum.contains('-') {
                assert_eq!(checksum, BASE64.encode(Sha256::digest(&bytes)), "{key}");
            }
        }
        let copy: Value = serde_json::from_slice(&fs::read(self.copy.join("manifest.json")).unwrap()).unwrap();
        for field in ["id", "tables", "files", "snapshot", "checksums", "tier"] {
            assert_eq!(copy[field], self.manifest[field]);
        }

        // Straight from S3 into PostgreSQL.
        let target = Database::fresh(self.database.major);
        let from = format!("s3://{}/{}", self.bucket.name, self.dump());
        let mut pg_restore = stock(target.major, "pg_restore");
        piped(
            &mut aws(&["s3", "cp", &from, "-"]),
            pg_restore.args(["--exit-on-error", "-d", &target.url()]),
        );
        Contents::of(&self.database).assert_equals(&Contents::of(&target));
    }
}

#[tokio::test]
async fn a_small_database_is_one_put_with_its_checksum_tags_and_metadata() {
    let stored = backed_up(Database::loaded(15, "shop.sql"), Primary::Folder).await;
    stored.is_as_the_contract_says().await;
    assert_eq!(
        stored.manifest.get("parts").cloned().unwrap_or_default(),
        serde_json::json!([])
    );
    let checksum = &stored.manifest["store_checksum"];
    assert_eq!(checksum["algorithm"], "SHA256");
    assert_eq!(checksum["kind"], "FULL_OBJECT");
    assert_eq!(checksum["value"], stored.head(&stored.dump())["ChecksumSHA256"]);
}

#[tokio::test]
async fn a_larger_database_is_a_multipart_upload_with_its_composite_checksum() {
    let database = Database::loaded(18, "shop.sql");
    database.sql(
        "CREATE TABLE noise AS SELECT n, sha512(n::text::bytea) || sha512((n + 0.5)::text::bytea) AS bytes FROM generate_series(1, 200000) n",
    );
    let stored = backed_up(database, Primary::Bucket).await;
    stored.is_as_the_contract_says().await;

    let object = stored.bucket.get(&stored.dump()).await;
    assert!(object.len() > 20 << 20, "{} MiB", object.len() >> 20);
    let (mut at, mut digests) = (0, Vec::new());
    let parts = stored.manifest["parts"].as_array().unwrap();
    for (index, part) in parts.iter().enumerate() {
        assert_eq!(part["number"], index + 1);
        let end = at + part["bytes"].as_u64().unwrap() as usize;
        let digest = Sha256::digest(&object[at..end]);
        assert_eq!(part["checksum_sha256"], BASE64.encode(digest));
        digests.extend_from_slice(&digest);
        at = end;
    }
    assert_eq!(at, object.len());
    assert!(parts.len() > 2);
    let composite = format!("{}-{}", BASE64.encode(Sha256::digest(&digests)), parts.len());
    assert_eq!(stored.manifest["store_checksum"]["kind"], "COMPOSITE");
    assert_eq!(stored.manifest["store_checksum"]["value"], composite);
    assert_eq!(stored.head(&stored.dump())["ChecksumSHA256"], composite);
}

/// Where the copy is a bucket, its own manifest has its own receipt.
#[tokio::test]
async fn a_copy_in_s3_has_the_receipt_of_its_own_upload() {
    let database = Database::fresh(17);
    database.sql("CREATE TABLE noise AS SELECT n, sha512(n::text::bytea) AS bytes FROM generate_series(1, 200000) n");
    let stored = backed_up(database, Primary::Folder).await;
    stored.is_as_the_contract_says().await;
    assert_eq!(stored.manifest["store_checksum"]["kind"], "COMPOSITE");
    assert_eq!(parts_of(&stored.copy), 0);
    assert!(stored.manifest["parts"].as_array().unwrap().len() > 1);
}

fn parts_of(folder: &Path) -> usize {
    let manifest: Value = serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    manifest["parts"].as_array().map_or(0, Vec::len)
}
