//! The store of the load's backups, and the runs that make them.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::busy::Busy;
use crate::support::bucket::Bucket;
use crate::support::database::Database;
use crate::support::program::{Run, pgstow, run};
use crate::support::services::s3;
use crate::support::wreck::Site;
use crate::torture::campaign::Dice;

const LIMIT: Duration = Duration::from_secs(90);

pub struct Chain {
    pub site: Site,
    url: String,
    name: String,
    bucket: Option<(Bucket, Runtime)>,
    /// By what the runs came to.
    came_to: Mutex<BTreeMap<String, usize>>,
    /// What may not happen.
    problems: Mutex<Vec<String>>,
}

/// What a new chain says that was begun because the server has failed inside ("could not map filenumber …").
const UNDECODABLE: &str = "cannot be read on";

/// Codes of runs that other runs, this one, or a server that is down, may end.
const MET: [&str; 5] = ["BUSY", "CONN_ERR", "AUTH", "STALLED", "INTERRUPTED"];

impl Chain {
    pub fn of(database: &Database, in_bucket: bool) -> Self {
        let bucket = in_bucket.then(|| {
            let runtime = Runtime::new().unwrap();
            (runtime.block_on(Bucket::fresh()), runtime)
        });
        Self {
            site: Site::new(),
            url: database.url(),
            name: database.name.clone(),
            bucket,
            came_to: Mutex::default(),
            problems: Mutex::default(),
        }
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = pgstow();
        let store = match &self.bucket {
            Some((bucket, _)) => bucket.url("load"),
            None => self.site.store().display().to_string(),
        };
        command
            .args(words)
            .arg("--json")
            .env("BACKUP_STORE", store)
            .env("DATABASE_URL", &self.url)
            .env("TMPDIR", self.site.path().join("tmp"))
            .env("BACKUP_LEASE_SECONDS", "2")
            .env("BACKUP_LOCK_WAIT_SECONDS", "5")
            .env("LOG_FORMAT", "text")
            .envs(s3().environment())
            .current_dir(self.site.path());
        command
    }

    /// The manifests of all backups, in the order of their ids.
    pub fn manifests(&self) -> Vec<Value> {
        let parsed = |bytes: Vec<u8>| serde_json::from_slice(&bytes).unwrap();
        if let Some((bucket, runtime)) = &self.bucket {
            let keys = runtime.block_on(bucket.keys()).into_iter();
            let manifests = keys.filter(|key| key.ends_with("/manifest.json"));
            return manifests
                .map(|key| parsed(runtime.block_on(bucket.get(&key))))
                .collect();
        }
        let folders = std::fs::read_dir(self.site.store().join(&self.name)).unwrap();
        let mut paths: Vec<_> = folders
            .map(|entry| entry.unwrap().path().join("manifest.json"))
            .collect();
        paths.retain(|path| path.exists());
        paths.sort();
        paths
            .into_iter()
            .map(|path| parsed(std::fs::read(path).unwrap()))
            .collect()
    }

    fn note(&self, what: &str) {
        *self.came_to.lock().unwrap().entry(what.to_owned()).or_default() += 1;
    }

    fn judge(&self, what: &str, run: &Run) -> bool {
        let document: Value = serde_json::from_slice(&run.stdout).unwrap_or_default();
        let code = document["error"]["code"].as_str().unwrap_or_default();
        match run.status.code() {
            None => self.note(&format!("{what}: killed")),
            Some(0) => self.note(&format!("{what}: made")),
            Some(_) if MET.contains(&code) => self.note(&format!("{what}: {code}")),
            Some(status) => {
                let text: String = run.text().chars().take(600).collect();
                let problem = format!("{what} ended with {status}: {}\n{text}", run.stderr);
                self.problems.lock().unwrap().push(problem);
            }
        }
        for line in run.text().lines() {
            let report: Value = serde_json::from_str(line).unwrap_or_default();
            self.look_at(what, &report);
        }
        self.look_at(what, &document);
        run.status.code() == Some(0)
    }

    fn look_at(&self, what: &str, report: &Value) {
        let proof = &report["chain"];
        if report["renewed"].as_str().is_some_and(|why| why.contains(UNDECODABLE)) {
            self.note(UNDECODABLE);
        } else if !report["renewed"].is_null() || !proof["different"].is_null() {
            self.problems
                .lock()
                .unwrap()
                .push(format!("{what}: {} {proof:#}", report["renewed"]));
        }
        if proof["equal"].is_u64() {
            self.note("chain proved");
        }
    }

    /// Increments, one after the other, some of them killed, until the load is over.
    pub fn repeat(&self, busy: &Busy, dice: &mut Dice, every: Duration, kills: bool) {
        while !busy.is_over() {
            let running = self.site.start(&mut self.command(&["backup", "--kind", "incremental"]));
            if kills && dice.below(4) == 0 {
                sleep(dice.moment(Duration::from_millis(1200)));
                running.signal(Signal::KILL);
            }
            self.judge("increment", &running.end(LIMIT));
            sleep(dice.moment(every));
        }
    }

    /// A follower, killed and started again, until the load is over.
    pub fn follow(&self, busy: &Busy, dice: &mut Dice, kills: bool) {
        while !busy.is_over() {
            let words = ["backup", "--kind", "incremental", "--follow", "--every", "5s"];
            let mut running = self.site.start(&mut self.command(&words));
            let end = Instant::now() + dice.moment(Duration::from_secs(40));
            while !busy.is_over() && !running.is_over() && (!kills || Instant::now() < end) {
                sleep(Duration::from_millis(50));
            }
            let signal = if busy.is_over() { Signal::TERM } else { Signal::KILL };
            if !running.is_over() {
                running.signal(signal);
            }
            let run = running.end(LIMIT);
            // Before it could listen.
            let is_early = run.status.code().is_none() && signal == Signal::TERM;
            self.judge(if is_early { "early follower" } else { "follower" }, &run);
        }
    }

    /// Succeeds at last: others may hold a table, or the lease.
    pub fn insist(&self, what: &str, words: &[&str], busy: &Busy) {
        let patience = Instant::now() + Duration::from_secs(60);
        loop {
            let run = run(&mut self.command(words));
            // A table is locked, or changes while it is read.
            let text = run.text();
            let is_crossed = ["PG_DUMP_ERR", "CHANGED"].iter().any(|code| text.contains(code));
            if is_crossed {
                self.note(&format!("{what}: crossed"));
            } else if self.judge(what, &run) {
                return;
            }
            assert!(Instant::now() < patience, "{what}: never: {}\n{text}", run.stderr);
            sleep(Duration::from_millis(if busy.is_over() { 100 } else { 400 }));
        }
    }

    /// The server itself has failed to decode its log, so a new chain was begun.
    pub fn is_undecodable(&self) -> bool {
        self.came_to.lock().unwrap().contains_key(UNDECODABLE)
    }

    pub fn came_to(&self) -> BTreeMap<String, usize> {
        self.came_to.lock().unwrap().clone()
    }

    pub fn assert_no_problem(&self) {
        let problems = self.problems.lock().unwrap();
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }
}
