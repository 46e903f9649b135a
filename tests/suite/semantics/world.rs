//! One database, its stores, a clock that the test sets, and runs of the real backup on them.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use pgstow::command::BackupRequest;
use pgstow::error::Result;
use pgstow::job::backup;
use pgstow::job::backup::BackupReport;
use pgstow::outside::secrets::Credentials;
use pgstow::repository::backup_id::BackupId;
use pgstow::repository::manifest::Manifest;
use pgstow::repository::signature::{Keyring, Signer};
use pgstow::repository::trigger::Trigger;
use pgstow::run::progress::{Observer, Silent};
use pgstow::run::stop::Stop;
use pgstow::settings::{CredentialSource, Input, Settings};
use tempfile::TempDir;

use super::crashing::{Crashing, Script};
use super::place::{Place, State};
use crate::support::database::Database;
use crate::support::impostor::recorded;
use crate::support::services::{MAJORS, postgres_bin};

/// `BACKUP_LEASE_SECONDS` of every run here.
pub const LEASE: i64 = 60;

thread_local! {
    // Every run has a runtime of one thread, so this is the clock of all that happens in it.
    static NOW: Cell<Timestamp> = Cell::new(Timestamp::now());
}

pub fn clock() -> Timestamp {
    NOW.get()
}

pub fn set_clock(text: &str) {
    NOW.set(text.parse().unwrap());
}

pub fn advance(seconds: i64) {
    NOW.set(NOW.get() + SignedDuration::from_secs(seconds));
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let result = runtime.block_on(future);
    // As a process that ends does: nothing is waited for.
    runtime.shutdown_background();
    result
}

pub struct World {
    pub database: Database,
    pub settings: Settings,
    /// The first is the primary.
    pub places: Vec<Place>,
    pub temp: TempDir,
    pub stop: Stop,
    pub host: String,
    /// PostgreSQL's programs, where they are recorded ones.
    programs: Option<TempDir>,
}

/// How a run under a script ended.
pub enum End {
    Died,
    Returned(Box<Result<BackupReport>>),
}

impl World {
    pub fn new(places: Vec<Place>) -> Self {
        Self::with(places, &[])
    }

    /// With further settings, by their variables.
    pub fn with(places: Vec<Place>, env: &[(&str, &str)]) -> Self {
        let database = Database::fresh(17);
        database.sql(
            "CREATE TABLE goods (id int PRIMARY KEY, name text);
             INSERT INTO goods SELECT n, md5(n::text) FROM generate_series(1, 200) n;
             SELECT lo_from_bytea(0, 'large');",
        );
        let temp = tempfile::tempdir().unwrap();
        let folders: Vec<String> = MAJORS
            .iter()
            .map(|major| postgres_bin(*major).display().to_string())
            .collect();
        let mut variables = BTreeMap::from([
            ("DATABASE_URL".to_owned(), database.url()),
            ("BACKUP_STORE".to_owned(), "unused".to_owned()),
            ("BACKUP_PG_BIN".to_owned(), folders.join(":")),
            ("BACKUP_LEASE_SECONDS".to_owned(), LEASE.to_string()),
            ("BACKUP_RETENTION".to_owned(), "daily=7,monthly=12".to_owned()),
            ("TMPDIR".to_owned(), temp.path().display().to_string()),
        ]);
        for (name, value) in env {
            variables.insert((*name).to_owned(), (*value).to_owned());
        }
        let settings = Settings::load(&Input {
            env: variables,
            working_dir: temp.path().to_owned(),
            cpus: 2,
            memory: None,
            ..Input::default()
        })
        .unwrap();
        Self {
            database,
            settings,
            places,
            temp,
            stop: Stop::new(),
            host: "here".to_owned(),
            programs: None,
        }
    }

    /// From here on every run is given what pg_dump gives now.
    pub fn record(&mut self) {
        let place = tempfile::tempdir().unwrap();
        self.settings.postgres.bin = Some(vec![recorded(place.path(), &self.database)]);
        self.programs = Some(place);
    }

    pub async fn backup(&self, script: Option<&Arc<Script>>, event: Option<&str>) -> Result<BackupReport> {
        let scripts = [script.cloned()];
        self.backup_by(&scripts, event).await
    }

    /// One script per store, as far as there are any.
    pub async fn backup_by(&self, scripts: &[Option<Arc<Script>>], event: Option<&str>) -> Result<BackupReport> {
        let CredentialSource::Direct(info) = self.settings.source() else {
            panic!("not a direct source")
        };
        let mut stores = Vec::new();
        for (number, place) in self.places.iter().enumerate() {
            let store = place.store(&self.settings).await;
            stores.push(match scripts.get(number) {
                Some(Some(script)) => Crashing::around(store, script),
                _ => store,
            });
        }
        let observer: Arc<dyn Observer> = Arc::new(Silent);
        let keyring = Keyring::new(self.settings.signing.clone(), |_| panic!("no key here is in KMS"));
        let signer = keyring.signer().await?;
        let job = backup::Job {
            settings: &self.settings,
            credentials: &Credentials::Direct(info.clone()),
            stores: &stores,
            signer,
            trust: &keyring.trust().await?.and(signer.map(Signer::public)),
            clock,
            host: &self.host,
            stop: &self.stop,
            observer: &observer,
        };
        let request = BackupRequest {
            trigger: Trigger::Manual,
            event_id: event.map(str::to_owned),
            ..BackupRequest::default()
        };
        let result = backup::run(&job, &request).await;
        scripts.iter().flatten().for_each(|script| script.ended());
        result
    }

    /// A whole run, in a runtime of its own.
    pub fn run(&self) -> Result<BackupReport> {
        block_on(self.backup(None, None))
    }

    /// A run whose primary store follows the script. When that says so, the run is dropped where
    /// it stands, and its runtime with it: no code of it goes on.
    pub fn run_by(&self, script: &Arc<Script>) -> End {
        self.run_all_by(&[Some(Arc::clone(script))])
    }

    pub fn run_all_by(&self, scripts: &[Option<Arc<Script>>]) -> End {
        block_on(async {
            let deaths = scripts.iter().flatten().map(|script| Box::pin(script.died()));
            tokio::select! {
                result = self.backup_by(scripts, None) => End::Returned(Box::new(result)),
                _ = futures::future::select_all(deaths) => End::Died,
            }
        })
    }

    pub fn state(&self) -> State {
        self.state_of(0)
    }

    pub fn state_of(&self, place: usize) -> State {
        block_on(self.places[place].state())
    }

    pub fn remove(&self, keys: impl IntoIterator<Item = String>) {
        block_on(self.places[0].remove(keys));
    }

    /// A lease that no run renews ends.
    pub fn let_the_lease_expire(&self) {
        advance(LEASE + 1);
    }

    /// What no run, dead or alive, may leave on this machine.
    pub fn assert_nothing_left_here(&self) {
        let end = Instant::now() + Duration::from_secs(5);
        while !children().is_empty() {
            assert!(Instant::now() < end, "children left: {:?}", children());
            std::thread::sleep(Duration::from_millis(5));
        }
        let left: Vec<_> = std::fs::read_dir(self.temp.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// The programs that run for this process and its threads.
fn children() -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let Some((_, rest)) = stat.rsplit_once(") ") else {
            continue;
        };
        let parent = rest.split(' ').nth(1);
        if parent == Some(&std::process::id().to_string()) {
            found.push(stat);
        }
    }
    found
}

/// The backups that exist: whose manifest does.
pub fn backups(state: &State) -> BTreeMap<BackupId, Manifest> {
    state
        .objects
        .iter()
        .filter_map(|(key, found)| {
            let (id, file) = BackupId::of_key(key)?;
            (file == "manifest.json").then(|| {
                let manifest = Manifest::parse(&found.body, &id).unwrap();
                (id, manifest)
            })
        })
        .collect()
}

/// No manifest is without one of its files, whole.
pub fn assert_backups_are_whole(state: &State) {
    for (id, manifest) in backups(state) {
        assert!(manifest.files.len() >= 4, "{id}: {:?}", manifest.files.keys());
        for file in manifest.files.values() {
            let there = state.objects.get(&id.key(&file.name));
            let there = there.unwrap_or_else(|| panic!("{id} has no {}", file.name));
            assert_eq!(
                (there.bytes, &there.sha256),
                (file.bytes, &file.sha256),
                "{id} {}",
                file.name
            );
        }
    }
}

/// The tags that a backup's files bear.
pub fn tiers(state: &State, id: &BackupId) -> BTreeSet<String> {
    let of_backup = |key: &&String| BackupId::of_key(key).is_some_and(|(this, _)| this == *id);
    let keys = state.objects.keys().filter(of_backup);
    keys.map(|key| state.objects[key].tier.clone().unwrap_or_default())
        .collect()
}

/// Files whose folder has no manifest.
pub fn orphans(state: &State) -> Vec<String> {
    let good = backups(state);
    state
        .objects
        .keys()
        .filter(|key| BackupId::of_key(key).is_some_and(|(id, _)| !good.contains_key(&id)))
        .cloned()
        .collect()
}

/// Nothing that a run left unfinished is in the store, or it is given up.
pub fn assert_clean(state: &State) {
    assert!(state.unfinished.is_empty(), "{:?}", state.unfinished);
    assert!(state.empty.is_empty(), "{:?}", state.empty);
    for key in orphans(state) {
        let tier = state.objects[&key].tier.as_deref();
        assert_eq!(tier, Some("pending"), "{key} is neither a backup's nor given up");
    }
}

/// The newest `keep_last` backups never expire, the others expire with their tier.
pub fn assert_tagged(state: &State, keep_last: usize) {
    for (age, (id, manifest)) in backups(state).iter().rev().enumerate() {
        let wanted = if age < keep_last {
            "latest"
        } else {
            manifest.tier.name()
        };
        assert_eq!(tiers(state, id), BTreeSet::from([wanted.to_owned()]), "{id}");
    }
}
