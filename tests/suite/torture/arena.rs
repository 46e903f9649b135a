//! A database, the stores of its backups, and what must hold of them at any time.

use std::collections::BTreeSet;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use crate::support::bucket::{Bucket, client};
use crate::support::database::{Database, unique_word};
use crate::support::program::{Run, pgstow, run};
use crate::support::services::s3;
use crate::support::wreck::{Site, assert_no_session, tree};

pub const MAJOR: u32 = 17;
const BUCKET: &str = "pgstow-torture";

/// Where backups go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    Folder,
    TwoFolders,
    Bucket,
    FolderAndBucket,
}

pub const SHAPES: [Shape; 4] = [Shape::Folder, Shape::TwoFolders, Shape::Bucket, Shape::FolderAndBucket];

pub struct Arena {
    pub site: Site,
    pub database: Database,
    pub stores: Vec<String>,
    /// By the ids that a run has reported.
    pub good: BTreeSet<String>,
    /// How long an undisturbed backup takes.
    pub usual: Duration,
    pub shape: Shape,
    bucket: Option<(Bucket, String)>,
}

pub fn wait<T>(future: impl Future<Output = T>) -> T {
    block_in_place(|| Handle::current().block_on(future))
}

impl Arena {
    /// With one good backup.
    pub fn new(shape: Shape) -> Self {
        let database = Database::fresh(MAJOR);
        database.sql(
            "CREATE TABLE facts AS SELECT n, md5(n::text) AS body FROM generate_series(1, 60000) n;
             CREATE TABLE few (a int PRIMARY KEY); INSERT INTO few SELECT generate_series(1, 100);
             CREATE VIEW seen AS SELECT a FROM few; SELECT lo_from_bytea(0, convert_to(repeat('x', 9000), 'UTF8'))",
        );
        let mut arena = Self::around(database, shape);
        let begun = Instant::now();
        let run = run(&mut arena.backup("1"));
        arena.usual = begun.elapsed();
        assert_eq!(run.status.code(), Some(0), "{}", run.stderr);
        arena.note(&run);
        arena
    }

    pub fn around(database: Database, shape: Shape) -> Self {
        let word = unique_word();
        let bucket = matches!(shape, Shape::Bucket | Shape::FolderAndBucket).then(|| {
            let bucket = Bucket {
                name: BUCKET.to_owned(),
                client: client(&s3()),
            };
            // It may be there already.
            drop(wait(bucket.client.create_bucket().bucket(BUCKET).send()));
            (bucket, word)
        });
        let url = || {
            let (bucket, word) = bucket.as_ref().unwrap();
            bucket.url(word)
        };
        let stores = match shape {
            Shape::Folder => vec!["store".to_owned()],
            Shape::TwoFolders => vec!["store".to_owned(), "copy".to_owned()],
            Shape::Bucket => vec![url()],
            Shape::FolderAndBucket => vec!["store".to_owned(), url()],
        };
        Self {
            site: Site::new(),
            database,
            stores,
            good: BTreeSet::new(),
            usual: Duration::ZERO,
            shape,
            bucket,
        }
    }

    /// A command with the settings of all of them.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = pgstow();
        command
            .args(words)
            .arg("--json")
            .args(self.stores.iter().flat_map(|store| ["--store", store]))
            .env("DATABASE_URL", self.database.url())
            .env("TMPDIR", self.site.path().join("tmp"))
            .env("BACKUP_LEASE_SECONDS", "2")
            .env("BACKUP_STALL_SECONDS", "30")
            .env("BACKUP_LOCK_WAIT_SECONDS", "20")
            .env("BACKUP_S3_RETRY_SECONDS", "2")
            .env("BACKUP_S3_PART_SIZE", "5MiB")
            .env("BACKUP_COMPRESSION", "none")
            .envs(s3().environment())
            .current_dir(self.site.path());
        command
    }

    pub fn backup(&self, jobs: &str) -> Command {
        self.command(&["backup", "--jobs", jobs])
    }

    /// A run that says that it made a backup has made one.
    pub fn note(&mut self, run: &Run) -> Option<String> {
        if !matches!(run.status.code(), Some(0 | 3)) {
            return None;
        }
        let id = run.json()["id"].as_str().unwrap().to_owned();
        self.good.insert(id.clone());
        Some(id)
    }

    /// Every backup that can be seen anywhere is whole, those that are good in the first store among them. A run that
    /// was cut off may have made one more: then its id counts from now on.
    pub fn assert_all_good(&mut self) {
        for number in 0..self.stores.len() {
            let mut command = self.command(&["verify", "--all"]);
            self.only(&mut command, number);
            let run = run(&mut command);
            let told = format!("{}: {}\n{}", self.stores[number], run.stderr, run.text());
            if number > 0 && run.status.code() == Some(42) {
                // A copy that was never made.
                continue;
            }
            assert_eq!(run.status.code(), Some(0), "{told}");
            let report = run.json();
            let seen: BTreeSet<String> = ids(&report["backups"]);
            if number == 0 {
                assert!(seen.is_superset(&self.good), "{:?} are not all in {told}", self.good);
                assert!(seen.len() <= self.good.len() + 1, "{told}");
                self.good = seen;
            } else {
                assert!(seen.is_subset(&self.good), "{told}");
            }
        }
    }

    fn only(&self, command: &mut Command, number: usize) {
        let mut one = pgstow();
        one.args(["verify", "--all", "--json", "--database", &self.database.name]);
        one.args(["--store", &self.stores[number]]);
        one.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        one.current_dir(self.site.path());
        *command = one;
    }

    /// Makes one more, as soon as a dead run's lease has ended, and looks that nothing of any other run is left.
    pub fn assert_goes_on(&mut self) {
        let patience = Instant::now() + Duration::from_secs(15);
        let made = loop {
            let run = run(&mut self.backup("1"));
            if run.status.code() != Some(51) || Instant::now() > patience {
                break run;
            }
            sleep(Duration::from_millis(200));
        };
        assert_eq!(made.status.code(), Some(0), "{}\n{}", made.stderr, made.text());
        self.note(&made);
        self.assert_nothing_else();
    }

    /// No process, no session, no temporary file, no upload, no file that belongs to no backup.
    pub fn assert_nothing_else(&self) {
        self.site.assert_nothing_runs();
        assert_no_session(&self.database);
        for store in self.stores.iter().filter(|store| !store.contains("://")) {
            let left = tree(&self.site.path().join(store));
            let foreign: Vec<&String> = left
                .iter()
                .filter(|path| !path.ends_with(".lease") && !is_of_others(path) && !self.belongs(path))
                .collect();
            assert!(foreign.is_empty(), "{store}: {foreign:?} beside {:?}", self.good);
        }
        if let Some((bucket, word)) = &self.bucket {
            let uploads = wait(bucket.uploads());
            let ours: Vec<_> = uploads
                .iter()
                .filter(|key| key.starts_with(word.as_str()) && !key.contains(".pgstow-doctor"))
                .collect();
            assert!(ours.is_empty(), "{ours:?}");
        }
    }

    fn belongs(&self, path: &str) -> bool {
        let way = |id: &String| id.starts_with(path) || path.starts_with(id.as_str());
        !path.ends_with(".pgstow-tmp") && self.good.iter().any(way)
    }

    fn lease(&self) -> std::path::PathBuf {
        self.site.path().join("store").join(&self.database.name).join(".lease")
    }

    /// Of a bucket that is the first store.
    fn keys_of_first(&self) -> Option<(&Bucket, String)> {
        let (bucket, word) = self.bucket.as_ref().filter(|_| self.shape == Shape::Bucket)?;
        Some((bucket, format!("{word}/")))
    }

    pub fn lease_is_there(&self) -> bool {
        match self.keys_of_first() {
            None => self.lease().exists(),
            Some((bucket, prefix)) => {
                let key = format!("{prefix}{}/.lease", self.database.name);
                let head = bucket.client.head_object().bucket(&bucket.name).key(&key);
                wait(head.send()).is_ok()
            }
        }
    }

    /// Another's content in its place, or none.
    pub fn set_lease(&self, content: Option<&str>) {
        let Some((bucket, prefix)) = self.keys_of_first() else {
            match content {
                Some(content) => std::fs::write(self.lease(), content).unwrap(),
                // It may be between two renewals' names.
                None => drop(std::fs::remove_file(self.lease())),
            }
            return;
        };
        let key = format!("{prefix}{}/.lease", self.database.name);
        match content {
            Some(content) => wait(bucket.put(&key, content.as_bytes())),
            None => {
                let delete = bucket.client.delete_object().bucket(&bucket.name).key(&key);
                drop(wait(delete.send()).unwrap());
            }
        }
    }

    /// The ids of what is to be seen in the first store.
    pub fn manifests(&self) -> BTreeSet<String> {
        let Some((bucket, prefix)) = self.keys_of_first() else {
            let found = crate::support::wreck::backups(&self.site.path().join("store"));
            return found.into_iter().collect();
        };
        let keys = wait(bucket.keys()).into_iter();
        keys.filter_map(|key| Some(key.strip_prefix(&prefix)?.strip_suffix("/manifest.json")?.to_owned()))
            .collect()
    }

    /// What a failed run says is in the contract's shape.
    pub fn code(run: &Run) -> String {
        let document: Value = serde_json::from_slice(&run.stdout).unwrap_or_default();
        let code = document["error"]["code"].as_str().unwrap_or_default().to_owned();
        assert!(!code.is_empty() && code != "INTERNAL", "{}\n{}", run.stderr, run.text());
        assert!(
            !document["error"]["hint"].as_str().unwrap_or_default().is_empty(),
            "{}",
            run.text()
        );
        code
    }
}

/// A lease or a verification that was cut off a moment ago may be that of somebody who is at work: it goes when it
/// is old.
fn is_of_others(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    // What doctor tries a store with has one name, and the next doctor takes it away.
    ["..lease.", ".verification.json.", ".pgstow-doctor", "..pgstow-doctor."]
        .iter()
        .any(|others| name.starts_with(others))
}

fn ids(backups: &Value) -> BTreeSet<String> {
    let all = backups.as_array().unwrap().iter();
    all.map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
}
