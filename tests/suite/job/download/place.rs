//! A backup in a store, and an empty folder to download it into.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::bucket::Bucket;
use crate::support::database::{Database, unique_word};
use crate::support::fault_proxy::FaultProxy;
use crate::support::program::{pgstow, program, succeed};
use crate::support::services::s3;
use crate::support::wreck::tree;

/// Shared by all tests, each under its own prefix: the test server keeps several volumes for
/// every bucket that holds objects, and has not many of them.
const BUCKET: &str = "pgstow-download";

pub struct Place {
    pub database: Database,
    /// What the backup printed.
    pub report: Value,
    /// As `--store` takes it.
    pub store: String,
    /// Between pgstow and the S3 server; nothing of a folder store passes it.
    pub proxy: FaultProxy,
    folder: tempfile::TempDir,
}

/// A new database with one table, whose uncompressed archive is about so long.
pub fn holding(bytes: u64) -> Database {
    let database = Database::named(17, "shop");
    database.sql(&format!(
        "CREATE TABLE noise (id integer PRIMARY KEY, body text);
         INSERT INTO noise SELECT n, repeat(md5(n::text), 300) FROM generate_series(1, {}) n",
        bytes / 9_600 + 1
    ));
    database
}

impl Place {
    /// Backed up into S3.
    pub async fn in_s3(database: Database, options: &[&str]) -> Self {
        let bucket = Bucket::named(BUCKET).await;
        let store = bucket.url(&unique_word());
        Self::backed_up(database, store, options).await
    }

    /// Backed up into a folder.
    pub async fn in_folder(database: Database, options: &[&str]) -> Self {
        let store = tempfile::tempdir().unwrap().keep();
        Self::backed_up(database, store.to_str().unwrap().to_owned(), options).await
    }

    async fn backed_up(database: Database, store: String, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut backup = pgstow();
        backup
            .args(["backup", "--json", "--store", &store])
            .args(options)
            .env("DATABASE_URL", database.url())
            .envs(s3().environment())
            .current_dir(folder.path());
        let report = succeed(&mut backup).json();
        Self {
            database,
            report,
            store,
            proxy: FaultProxy::start(&s3().endpoint).await,
            folder,
        }
    }

    pub fn id(&self) -> &str {
        self.report["id"].as_str().unwrap()
    }

    /// The archive's name, in the store as here.
    pub fn name(&self) -> &str {
        let files = &self.report["files"];
        files["dump"]["name"]
            .as_str()
            .or(files["sql"]["name"].as_str())
            .unwrap()
    }

    pub fn bytes(&self) -> u64 {
        self.report["files"]["dump"]["bytes"].as_u64().unwrap()
    }

    /// `pgstow download … --json` into [`Place::here`], which lacks only its options.
    pub fn download(&self, backup: &str) -> Command {
        let mut command = pgstow();
        command
            .args(["download", backup, "--json", "--store", &self.store])
            .envs(s3().environment())
            .env("AWS_ENDPOINT_URL_S3", self.proxy.url())
            .env("BACKUP_S3_RETRY_SECONDS", "1")
            .current_dir(self.here());
        command
    }

    pub fn here(&self) -> &Path {
        self.folder.path()
    }

    /// What is there, hidden or not.
    pub fn files(&self) -> Vec<String> {
        tree(self.here())
    }

    pub fn file(&self) -> PathBuf {
        self.here().join(self.name())
    }

    /// One of the backup's files in a folder store.
    pub fn stored(&self, role: &str) -> PathBuf {
        let name = self.report["files"][role]["name"].as_str().unwrap();
        Path::new(&self.store).join(self.id()).join(name)
    }

    /// The file has its name and its sums, only its owner can read it, and no other file is beside it.
    pub fn assert_whole(&self) {
        assert_eq!(self.files(), ["SHA256SUMS", self.name()]);
        check_sums(self.here());
        let mode = fs::metadata(self.file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    /// Restored by stock pg_restore with two jobs, which seek in the file.
    pub fn restored(&self) -> Database {
        let target = Database::fresh(self.database.major);
        let mut restore = crate::support::program::stock(self.database.major, "pg_restore");
        restore.args(["--exit-on-error", "-j", "2", "-d", &target.url()]);
        succeed(restore.arg(self.file()));
        target
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.store.contains("://") {
            drop(fs::remove_dir_all(&self.store));
        }
    }
}

/// Stock sha256sum agrees with `SHA256SUMS`, to the letter.
pub fn check_sums(folder: &Path) {
    succeed(
        program("sha256sum")
            .args(["--check", "--strict", "--quiet", "SHA256SUMS"])
            .current_dir(folder),
    );
}
