//! A database, its backup in a store, and pgstow's way back out of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::contents::Contents;
use crate::support::database::{Database, quoted, unique_word};
use crate::support::program::{pgstow, stock, succeed};
use crate::support::services::{cloud, postgres_url, s3};
use crate::support::wreck::{Failure, Site, fail, failure};

/// Shared by all tests, each under its own prefix.
pub const BUCKET: &str = "pgstow-restore";

pub struct Backed {
    pub source: Database,
    pub site: Site,
    /// As `--store` takes it.
    pub store: String,
    /// What the backup printed.
    pub report: Value,
}

impl Backed {
    /// Into a folder.
    pub fn up(source: Database, options: &[&str]) -> Self {
        let site = Site::new();
        let store = site.store().to_str().unwrap().to_owned();
        Self::into(source, site, store, options)
    }

    /// Into SeaweedFS.
    pub async fn in_s3(source: Database, options: &[&str]) -> Self {
        let client = crate::support::bucket::client(&s3());
        // It may be there already.
        drop(client.create_bucket().bucket(BUCKET).send().await);
        let store = format!("s3://{BUCKET}/{}", unique_word());
        Self::into(source, Site::new(), store, options)
    }

    fn into(source: Database, site: Site, store: String, options: &[&str]) -> Self {
        let mut backup = pgstow();
        backup
            .args(["backup", "--json", "--store", &store])
            .args(options)
            .env("DATABASE_URL", source.url())
            .current_dir(site.path());
        let report = succeed(cloud(&mut backup)).json();
        Self {
            source,
            site,
            store,
            report,
        }
    }

    pub fn id(&self) -> &str {
        self.report["id"].as_str().unwrap()
    }

    /// `pgstow restore … --json`, which lacks only its options.
    pub fn restore(&self, target: &str, options: &[&str]) -> Command {
        let mut restore = pgstow();
        restore
            .args(["restore", self.id(), "--json", "--store", &self.store])
            .args(options)
            .env("BACKUP_TARGET_URL", target)
            .env("TMPDIR", self.site.path().join("tmp"))
            .current_dir(self.site.path());
        cloud(&mut restore);
        restore
    }

    /// Restores to success, and nothing is left of the run.
    pub fn restored(&self, target: &Database, options: &[&str]) -> Value {
        let report = succeed(&mut self.restore(&target.url(), options)).json();
        assert_eq!(report["status"], "restored", "{report}");
        // The tests' role is one.
        let warnings = report["warnings"].as_array().unwrap();
        assert_eq!(warnings.len(), 1, "{report}");
        assert!(
            warnings[0].as_str().unwrap().contains("role is a superuser"),
            "{report}"
        );
        self.site.assert_nothing_runs();
        report
    }

    /// Restores to a failure, of which nothing is left.
    pub fn refused(&self, target: &str, options: &[&str], code: &str, exit: i32) -> Failure {
        let failure = fail(&mut self.restore(target, options), code, exit);
        self.site.assert_nothing_runs();
        failure
    }

    pub fn folder(&self) -> PathBuf {
        Path::new(&self.store).join(self.id())
    }

    pub fn manifest(&self) -> Value {
        serde_json::from_slice(&fs::read(self.folder().join("manifest.json")).unwrap()).unwrap()
    }

    pub fn file(&self, role: &str) -> PathBuf {
        self.folder().join(self.report["files"][role]["name"].as_str().unwrap())
    }

    /// Flips one bit in the middle of a table's block.
    pub fn damage(&self, table: &str) {
        let manifest = self.manifest();
        let record = manifest["tables"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["name"] == table);
        let record = record.unwrap_or_else(|| panic!("no {table} in {}", manifest["tables"]));
        let number = |name: &str| usize::try_from(record[name].as_u64().unwrap()).unwrap();
        flip(&self.file("dump"), number("offset") + number("length") / 2);
    }
}

pub fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
}

pub fn ended(run: &crate::support::program::Run, code: &str, exit: i32) -> Failure {
    failure(run, code, exit, None)
}

/// The roles of the rich database, on a server where it has never been.
pub fn roles(major: u32) {
    for role in ["pgstow_test_owner", "pgstow_test_reader", "pgstow test \"odd\" role"] {
        let script = format!(
            "DO $$ BEGIN CREATE ROLE {} NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$",
            quoted(role)
        );
        crate::support::database::psql(major, &postgres_url(major), &script);
    }
}

/// A copy made by the server itself, with another's name.
pub fn copy(of: &Database) -> Database {
    let copy = Database::fresh(of.major);
    let script = format!(
        "DROP DATABASE {0};\nCREATE DATABASE {0} TEMPLATE {1};",
        quoted(&copy.name),
        quoted(&of.name)
    );
    crate::support::database::psql(of.major, &postgres_url(of.major), &script);
    copy
}

/// The contents of a database, for a test that expects no change.
pub fn untouched(database: &Database, meanwhile: impl FnOnce()) {
    let before = Contents::of(database);
    meanwhile();
    before.assert_equals(&Contents::of(database));
}

/// What stock pg_restore makes of the archive on this major.
pub fn by_stock(backed: &Backed, dump: &Path, major: u32) -> Database {
    let target = Database::fresh(major);
    let mut restore = stock(major.max(backed.source.major), "pg_restore");
    succeed(restore.args(["--exit-on-error", "-d", &target.url()]).arg(dump));
    target
}

/// Three tables of a few rows, that travel together.
pub fn three(major: u32) -> Database {
    let source = Database::fresh(major);
    source.sql(
        "CREATE TABLE a (n integer PRIMARY KEY, text text);
         CREATE TABLE b (n integer PRIMARY KEY, text text, a integer REFERENCES a);
         CREATE TABLE c (n integer PRIMARY KEY, text text);
         CREATE INDEX ON c (text);
         INSERT INTO a SELECT n, md5(n::text) FROM generate_series(1, 1000) n;
         INSERT INTO b SELECT n, md5(n::text), n FROM generate_series(1, 1000) n;
         INSERT INTO c SELECT n, md5(n::text) FROM generate_series(1, 1000) n;",
    );
    source
}
