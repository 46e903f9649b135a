//! A signed backup, the keys of those who made it, and of those who did not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::database::Database;
use crate::support::program::{pgstow, program, run, succeed};
use crate::support::wreck::{Failure, Site, fail};

pub const MANIFEST: &str = "manifest.json";
pub const SIGNATURE: &str = "manifest.json.minisig";

pub struct Signed {
    pub source: Database,
    pub site: Site,
    pub report: Value,
    /// The secret key; `.pub` beside it is the public one.
    pub key: PathBuf,
}

/// By pgstow, without a password.
pub fn keygen(site: &Site, name: &str) -> PathBuf {
    let key = site.path().join(name);
    succeed(pgstow().arg("keygen").arg(&key).current_dir(site.path()));
    key
}

pub fn public(key: &Path) -> PathBuf {
    let mut name = key.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

/// The line of base64.
pub fn line(key: &Path) -> String {
    let text = fs::read_to_string(public(key)).unwrap();
    text.lines().nth(1).unwrap().to_owned()
}

pub fn source() -> Database {
    let source = Database::fresh(17);
    source.sql(
        "CREATE TABLE goods (n integer PRIMARY KEY, text text CHECK (text <> 'seldom'));
         INSERT INTO goods SELECT n, md5(n::text) FROM generate_series(1, 500) n",
    );
    source
}

impl Signed {
    pub fn up(options: &[&str]) -> Self {
        let (source, site) = (source(), Site::new());
        let key = keygen(&site, "key");
        let report = succeed(site.backup(&source.url()).args(options).arg("--sign-key").arg(&key)).json();
        Self {
            source,
            site,
            report,
            key,
        }
    }

    /// One more, a second later; the report's and `id`'s from now on.
    pub fn another(&mut self) {
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let mut backup = self.site.backup(&self.source.url());
        self.report = succeed(backup.arg("--sign-key").arg(&self.key)).json();
    }

    pub fn id(&self) -> &str {
        self.report["id"].as_str().unwrap()
    }

    pub fn folder(&self) -> PathBuf {
        self.site.store().join(self.id())
    }

    pub fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.folder().join(file)).unwrap()
    }

    pub fn write(&self, file: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.folder().join(file), bytes).unwrap();
        if file == MANIFEST {
            crate::support::wreck::reseal(&self.folder());
        }
    }

    pub fn name(&self, role: &str) -> String {
        self.report["files"][role]["name"].as_str().unwrap().to_owned()
    }

    /// A command on the store, with the key trusted.
    pub fn command(&self, args: &[&str]) -> Command {
        self.trusting(&line(&self.key), args)
    }

    pub fn trusting(&self, keys: &str, args: &[&str]) -> Command {
        let mut command = pgstow();
        command
            .args(args)
            .args(["--json", "--store"])
            .arg(self.site.store())
            .env("BACKUP_VERIFY_KEYS", keys)
            .env("TMPDIR", self.site.path().join("tmp"))
            .current_dir(self.site.path());
        command
    }

    pub fn json(&self, args: &[&str]) -> Value {
        run(&mut self.command(args)).json()
    }

    /// Restored, drilled, verified and downloaded: each is refused before anything has happened.
    pub fn refused_everywhere(&self, which: &str, code: &str, exit: i32) -> Vec<Failure> {
        let target = Database::fresh(17);
        let into = target.url();
        let file = self.site.path().join("downloaded");
        let commands: [&[&str]; 5] = [
            &["verify", which],
            &["verify", which, "--drill"],
            &["restore", which, "--dry-run"],
            &["restore", which, "--globals"],
            &["download", which, "-o", file.to_str().unwrap()],
        ];
        let mut failures = Vec::new();
        for args in commands {
            let mut command = self.command(args);
            failures.push(fail(command.env("BACKUP_TARGET_URL", &into), code, exit));
            self.site.assert_nothing_runs();
        }
        assert_eq!(target.sql("SELECT count(*) FROM pg_class WHERE relname = 'goods'"), "0");
        assert!(!file.exists());
        failures
    }

    /// All of them work.
    pub fn accepted(&self, keys: &str) {
        succeed(&mut self.trusting(keys, &["verify", "latest"]));
        let target = Database::fresh(17);
        let mut restore = self.trusting(keys, &["restore", self.id()]);
        let restored = succeed(restore.env("BACKUP_TARGET_URL", target.url())).json();
        assert_eq!(restored["manifest_sha256"], self.report["manifest_sha256"]);
        assert!(restored["signed_by"].is_string(), "{restored}");
        assert_eq!(target.sql("SELECT count(*) FROM goods"), "500");
        let file = self.site.path().join("downloaded");
        let mut download = self.trusting(keys, &["download", self.id(), "--force"]);
        succeed(download.arg("-o").arg(&file));
    }

    /// Stock minisign on a file of the backup.
    pub fn minisign(&self, args: &[&str]) -> Command {
        let mut command = program("minisign");
        command.args(args).current_dir(self.folder());
        command
    }
}
