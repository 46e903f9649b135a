//! A database, a place in a bucket, and the faulty way between them.

use std::collections::{BTreeMap, HashMap};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::bucket::Bucket;
use crate::support::database::{Database, unique_word};
use crate::support::fault_proxy::{FaultProxy, Op};
use crate::support::program::{Run, pgstow, run, run_with_input, stock};
use crate::support::services::{S3, s3};

/// All tests share two buckets, each under its own prefix: the test server keeps several volumes
/// for every bucket that holds objects, and has not many of them.
const BUCKET: &str = "pgstow-faults";
const COPY: &str = "pgstow-faults-copy";

const MAJOR: u32 = 17;
/// A row is about this long in the dump, and much shorter in the database.
const ROW: u64 = 9_600;

pub struct Scene {
    pub database: Database,
    pub proxy: FaultProxy,
    pub primary: Place,
    pub copy: Place,
    /// What the program is told; tests change it.
    pub settings: HashMap<&'static str, String>,
    folder: tempfile::TempDir,
}

/// A prefix of a bucket, looked at without the proxy.
pub struct Place {
    pub bucket: Bucket,
    pub prefix: String,
    pub database: String,
}

/// What a run came to.
pub struct Ended {
    pub exit: Option<i32>,
    pub document: Value,
    pub stderr: String,
    pub took: Duration,
}

/// A run that is still going on. It is killed with the test.
pub struct Running {
    child: Option<Child>,
    started: Instant,
}

impl Scene {
    /// With a small database, whose archive goes in one request.
    pub async fn small() -> Self {
        Self::holding(50_000).await
    }

    /// With a database whose archive takes three parts of 5 MiB.
    pub async fn three_parts() -> Self {
        Self::holding(12 << 20).await
    }

    /// With a database whose uncompressed archive is about so long.
    pub async fn holding(bytes: u64) -> Self {
        let database = Database::fresh(MAJOR);
        database.sql(&format!(
            "CREATE TABLE noise (id integer PRIMARY KEY, body text);
             INSERT INTO noise SELECT n, repeat(md5(n::text), 300) FROM generate_series(1, {}) n",
            bytes / ROW + 1
        ));
        let proxy = FaultProxy::start(&s3().endpoint).await;
        let prefix = unique_word();
        let place = async |name: &str| Place {
            bucket: Bucket::named(name).await,
            prefix: prefix.clone(),
            database: database.name.clone(),
        };
        let (primary, copy) = (place(BUCKET).await, place(COPY).await);
        let settings = HashMap::from([
            ("BACKUP_STORE", primary.url()),
            ("BACKUP_COMPRESSION", "none".to_owned()),
            ("BACKUP_S3_PART_SIZE", "5MiB".to_owned()),
            ("BACKUP_S3_RETRY_SECONDS", "1".to_owned()),
            ("DATABASE_URL", database.url()),
        ]);
        Self {
            database,
            proxy,
            primary,
            copy,
            settings,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn with_copy(mut self) -> Self {
        self.set("BACKUP_STORE", &format!("{} {}", self.primary.url(), self.copy.url()));
        self
    }

    pub fn set(&mut self, name: &'static str, value: &str) {
        self.settings.insert(name, value.to_owned());
    }

    /// Lets the program use another login or endpoint.
    pub fn log_in(&mut self, service: &S3) {
        for (name, value) in service.environment() {
            self.settings.insert(name, value);
        }
    }

    pub fn start(&self) -> Running {
        let mut command = pgstow();
        command
            .args(["backup", "--json"])
            .current_dir(self.folder.path())
            .envs(s3().environment())
            .env("AWS_ENDPOINT_URL_S3", self.proxy.url())
            .envs(&self.settings)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Running {
            started: Instant::now(),
            child: Some(command.spawn().unwrap()),
        }
    }

    /// Another command, with the same settings and through the same proxy.
    pub fn tell(&self, args: &[&str]) -> Run {
        let mut command = pgstow();
        command
            .args(args)
            .current_dir(self.folder.path())
            .envs(s3().environment())
            .env("AWS_ENDPOINT_URL_S3", self.proxy.url())
            .envs(&self.settings);
        run(&mut command)
    }

    pub fn run(&self) -> Ended {
        self.start().wait()
    }

    /// Waits until the proxy has seen a request; it may still hold it.
    pub async fn has_seen(&self, op: Op, target: &str) {
        let seen = || {
            let seen = self.proxy.seen();
            seen.iter().any(|seen| seen.op == op && seen.target.contains(target))
        };
        until(&format!("{op:?} of {target}"), async || seen()).await;
    }

    /// No process of a run remains after its end.
    pub async fn assert_nobody_works(&self) {
        until("pg_dump is gone", async || pg_dumps(&self.database.name).is_empty()).await;
        let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
            AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
        until("the sessions are gone", async || self.database.sql(others) == "0").await;
    }

    /// The run failed: nothing can be seen of it, and nothing is left but the lease.
    pub async fn assert_no_trace(&self) {
        self.assert_nobody_works().await;
        for place in [&self.primary, &self.copy] {
            place.assert_nothing_in_progress().await;
            place.assert_lease_is_free().await;
            let keys = place.keys().await;
            assert!(keys.iter().all(|key| *key == place.lease_key()), "{keys:?}");
        }
    }

    /// The run failed late: what it had made visible is given up, and is no backup.
    pub async fn assert_only_given_up(&self) {
        self.assert_nobody_works().await;
        for place in [&self.primary, &self.copy] {
            place.assert_nothing_in_progress().await;
            place.assert_lease_is_free().await;
            assert!(place.manifests().await.is_empty(), "{:?}", place.keys().await);
            place.assert_all_files_are("pending").await;
        }
    }

    /// There is exactly one backup, in `place`; it is whole, and nothing is left beside it.
    pub async fn assert_one_backup(&self, place: &Place, ended: &Ended) -> Value {
        let report = ended.succeeded();
        self.assert_nobody_works().await;
        place.assert_nothing_in_progress().await;
        place.assert_lease_is_free().await;
        let manifests = place.manifests().await;
        assert_eq!(manifests.len(), 1, "{manifests:?}");
        place.assert_all_files_are("latest").await;
        self.assert_holds(place, report["id"].as_str().unwrap()).await
    }

    /// The backup is there, and each of its files is what its manifest says; gives the manifest.
    pub async fn assert_holds(&self, place: &Place, id: &str) -> Value {
        let folder = format!("{}/{id}", place.prefix);
        let manifest = place.bucket.get(&format!("{folder}/manifest.json")).await;
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(manifest["id"], id);
        for file in manifest["files"].as_object().unwrap().values() {
            let name = file["name"].as_str().unwrap();
            let bytes = place.bucket.get(&format!("{folder}/{name}")).await;
            assert_eq!(file["bytes"], bytes.len(), "{name}");
            assert_eq!(file["sha256"], hex::encode(Sha256::digest(&bytes)), "{name}");
        }
        let rows: u64 = self.database.sql("SELECT count(*) FROM noise").parse().unwrap();
        assert_eq!(manifest["tables"][0]["rows"], rows);
        manifest
    }

    /// Stock pg_restore takes the archive, and what comes out is what went in.
    pub async fn assert_restores(&self, place: &Place, id: &str) {
        let copy = Database::fresh(MAJOR);
        let dump = format!("{}/{id}/{}.dump", place.prefix, self.database.name);
        let dump = place.bucket.get(&dump).await;
        let restored: Run = run_with_input(
            stock(MAJOR, "pg_restore").args(["--exit-on-error", "-d", &copy.url()]),
            &dump,
        );
        assert!(restored.status.success(), "{}", restored.stderr);
        let digest = "SELECT count(*), md5(string_agg(id || body, '' ORDER BY id)) FROM noise";
        assert_eq!(copy.sql(digest), self.database.sql(digest));
    }
}

impl Place {
    pub fn url(&self) -> String {
        self.bucket.url(&self.prefix)
    }

    pub fn lease_key(&self) -> String {
        format!("{}/{}/.lease", self.prefix, self.database)
    }

    pub async fn lease(&self) -> Option<Value> {
        let key = self.lease_key();
        if !self.keys().await.contains(&key) {
            return None;
        }
        Some(serde_json::from_slice(&self.bucket.get(&key).await).unwrap())
    }

    /// The keys of this place's objects.
    pub async fn keys(&self) -> Vec<String> {
        let listed = self.bucket.client.list_objects_v2().bucket(&self.bucket.name);
        let listed = listed.prefix(format!("{}/", self.prefix)).send().await.unwrap();
        assert_ne!(listed.is_truncated(), Some(true));
        listed
            .contents()
            .iter()
            .map(|object| object.key().unwrap().to_owned())
            .collect()
    }

    /// All but the lease.
    pub async fn files(&self) -> Vec<String> {
        let mut keys = self.keys().await;
        keys.retain(|key| *key != self.lease_key());
        keys
    }

    pub async fn manifests(&self) -> Vec<String> {
        let mut keys = self.keys().await;
        keys.retain(|key| key.ends_with("/manifest.json"));
        keys
    }

    /// `pgstow-tier` of every file but the lease.
    pub async fn tiers(&self) -> BTreeMap<String, Option<String>> {
        let mut tiers = BTreeMap::new();
        for key in self.keys().await {
            if key != self.lease_key() {
                let tier = self.bucket.tags(&key).await.get("pgstow-tier").cloned();
                tiers.insert(key, tier);
            }
        }
        tiers
    }

    pub async fn assert_all_files_are(&self, tier: &str) {
        let tiers = self.tiers().await;
        assert!(tiers.values().all(|found| found.as_deref() == Some(tier)), "{tiers:?}");
    }

    /// The tier of one backup's files, which all bear the same.
    pub async fn tier_of(&self, id: &str) -> String {
        let mut tiers = self.tiers().await;
        tiers.retain(|key, _| key.contains(id));
        let mut values: Vec<_> = tiers.values().flatten().cloned().collect();
        assert_eq!(values.len(), tiers.len(), "{tiers:?}");
        values.dedup();
        assert_eq!(values.len(), 1, "{tiers:?}");
        values.remove(0)
    }

    pub async fn uploads(&self) -> Vec<String> {
        let listed = self.bucket.client.list_multipart_uploads().bucket(&self.bucket.name);
        let listed = listed.prefix(format!("{}/", self.prefix)).send().await.unwrap();
        listed
            .uploads()
            .iter()
            .map(|upload| upload.key().unwrap().to_owned())
            .collect()
    }

    pub async fn assert_nothing_in_progress(&self) {
        assert_eq!(self.uploads().await, [""; 0], "an upload is left in progress");
    }

    pub async fn assert_lease_is_free(&self) {
        if let Some(lease) = self.lease().await {
            assert_eq!(lease["released"], true, "{lease}");
        }
    }
}

impl Running {
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn is_over(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    pub fn wait(mut self) -> Ended {
        let output = self.child.take().unwrap().wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Ended {
            exit: output.status.code(),
            document: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
            stderr,
            took: self.started.elapsed(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Ended {
    pub fn succeeded(&self) -> &Value {
        let status = &self.document["status"];
        assert!(status == "succeeded" || status == "degraded", "{}", self.stderr);
        crate::support::wreck::assert_status(&self.document, self.exit, &self.stderr);
        &self.document
    }

    /// The run failed in the contract's shape; gives message and hint.
    pub fn failed(&self, code: &str, exit: i32) -> (String, String) {
        assert_eq!(self.exit, Some(exit), "{}{}", self.stderr, self.document);
        assert_eq!(self.document["status"], "failed");
        let error = &self.document["error"];
        assert_eq!(error["code"], code, "{error}");
        let text = |name: &str| error[name].as_str().unwrap().to_owned();
        let (message, hint) = (text("message"), text("hint"));
        let told = format!("error[{code}]: {message}\nhint: {hint}\n");
        assert!(self.stderr.ends_with(&told), "{}", self.stderr);
        assert!(!message.contains(&s3().secret_key) && !self.stderr.contains(&s3().secret_key));
        (message, hint)
    }

    /// `STORE` whose message and hint contain these.
    pub fn store_failed(&self, message: &str, hint: &str) {
        let told = self.failed("STORE", 30);
        assert!(told.0.contains(message), "{}", told.0);
        assert!(told.1.contains(hint), "{}", told.1);
    }

    pub fn warnings(&self) -> Vec<String> {
        let warnings = self.document["warnings"].as_array();
        let warnings = warnings.into_iter().flatten();
        warnings.map(|warning| warning.as_str().unwrap().to_owned()).collect()
    }
}

/// Waits for something that must come, looking often.
pub async fn until(what: &str, check: impl AsyncFn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !check().await {
        assert!(Instant::now() < end, "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The pids of pg_dump on a database.
fn pg_dumps(database: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        // A process may end while we look.
        let Ok(words) = std::fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let words = String::from_utf8_lossy(&words);
        let program = words.split('\0').next().unwrap_or_default();
        if (program.ends_with("/pg_dump") || program.ends_with("/pg_dumpall")) && words.contains(database) {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}
