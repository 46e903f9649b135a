//! A run that dies at any call to the store, and a store that is slow: nothing is lost, nothing is doubled, and nothing
//! is confirmed that is not stored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pgstow::command::BackupRequest;
use pgstow::error::Result;
use pgstow::job::backup::{BackupReport, Job};
use pgstow::job::increment;
use pgstow::outside::secrets::Credentials;
use pgstow::repository::backup_id::BackupKind;
use pgstow::repository::signature::Trust;
use pgstow::run::progress::{Observer, Silent};
use pgstow::run::stop::Stop;
use pgstow::settings::{CredentialSource, Input, Settings};
use pgstow::store::local::Local;

use super::scene::Scene;
use crate::semantics::crashing::{Crashing, Fate, Script};
use crate::semantics::world::block_on;
use crate::support::services::{MAJORS, postgres_bin};

fn settings(scene: &Scene) -> Settings {
    let folders: Vec<String> = MAJORS.iter().map(|major| postgres_bin(*major).display().to_string()).collect();
    let variables = BTreeMap::from(
        [
            ("DATABASE_URL", scene.database.url()),
            ("BACKUP_STORE", scene.store()),
            ("BACKUP_PG_BIN", folders.join(":")),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    Settings::load(&Input {
        env: variables,
        working_dir: scene.folder.path().to_owned(),
        cpus: 2,
        memory: None,
        ..Input::default()
    })
    .unwrap()
}

/// One increment in this process, whose store follows the script. `None`: the run died.
fn run_by(scene: &Scene, script: &Arc<Script>) -> Option<Result<BackupReport>> {
    let settings = settings(scene);
    let CredentialSource::Direct(info) = settings.source() else {
        panic!("not a direct source")
    };
    let observer: Arc<dyn Observer> = Arc::new(Silent);
    let stores = [Crashing::around(Arc::new(Local::new(scene.folder.path().to_owned())), script)];
    let job = Job {
        settings: &settings,
        credentials: &Credentials::Direct(info.clone()),
        stores: &stores,
        signer: None,
        trust: &Trust::default(),
        clock: Timestamp::now,
        host: "here",
        stop: &Stop::new(),
        observer: &observer,
    };
    let request = BackupRequest {
        kind: BackupKind::Incremental,
        ..BackupRequest::default()
    };
    block_on(async {
        tokio::select! {
            result = increment::run(&job, &request) => Some(result),
            () = script.died() => None,
        }
    })
}

/// As after the time that a dead run's lease lasts.
fn forget_the_dead(scene: &Scene) {
    let lease = scene.folder.path().join(&scene.database.name).join(".lease-incremental");
    let _ = std::fs::remove_file(lease);
    let active = "SELECT count(*) FROM pg_replication_slots WHERE active";
    while scene.sql(active) != "0" {
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn end_of_the_chain(scene: &Scene) -> Option<pgstow::format::Lsn> {
    let id = scene.increments().pop()?;
    let manifest = scene.manifest(&serde_json::json!({ "id": id }));
    Some(manifest.increment.unwrap().stream.to)
}

fn stored(scene: &Scene) -> Vec<String> {
    let reports = scene.increments().into_iter().map(|id| serde_json::json!({ "id": id }));
    reports.flat_map(|report| scene.inserted(&report)).collect()
}

#[test]
fn a_run_that_dies_at_any_call_loses_nothing_doubles_nothing_and_confirms_nothing_unstored() {
    let scene = Scene::with(18, &["wal_sender_timeout=3s"]);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    scene.start();
    scene.sql("INSERT INTO orders VALUES (0)");
    scene.increment();
    let mut expected = vec!["0".to_owned()];
    let mut call = 0;
    loop {
        call += 1;
        scene.sql(&format!("INSERT INTO orders VALUES ({call})"));
        expected.push(call.to_string());
        let script = Script::at(call, Fate::Die);
        let ended = run_by(&scene, &script);
        forget_the_dead(&scene);
        assert!(Some(scene.confirmed()) <= end_of_the_chain(&scene), "{:?}", script.calls());
        if let Some(result) = ended {
            result.unwrap();
            break;
        }
        let next = scene.increment();
        assert_eq!(next["kind"], "incremental", "{next}");
        assert_eq!(stored(&scene), expected, "{:?}", script.calls());
        scene.assert_is_chained();
    }
    assert!(call > 10);
    assert_eq!(stored(&scene), expected);
}

#[test]
fn a_store_that_stalls_longer_than_the_servers_patience_does_not_end_the_session() {
    let scene = Scene::with(18, &["wal_sender_timeout=3s"]);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    scene.start();
    scene.sql("INSERT INTO orders VALUES (1)");
    let script = Script::first(&["put", "catalog.json"], Fate::Hold);
    let waiting = std::thread::scope(|scope| {
        let script = &script;
        let run = scope.spawn(|| run_by(&scene, script));
        std::thread::sleep(Duration::from_secs(8));
        let readers = scene.sql("SELECT count(*) FROM pg_replication_slots WHERE active");
        script.resume();
        (readers, run.join().unwrap())
    });
    assert_eq!(waiting.0, "1", "{:?}", script.calls());
    waiting.1.unwrap().unwrap();
    assert_eq!(stored(&scene), ["1"]);
    scene.assert_is_chained();
}

#[test]
fn a_store_that_refuses_leaves_nothing_and_confirms_nothing() {
    let scene = Scene::fresh(18);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    scene.start();
    scene.sql("INSERT INTO orders VALUES (1)");
    let before = scene.confirmed();
    for words in [&["upload", ".changes"][..], &["put", "catalog.json"], &["put", "manifest.json"]] {
        let words: &'static [&'static str] = Box::leak(words.to_vec().into_boxed_slice());
        let script = Script::first(words, Fate::Reject);
        run_by(&scene, &script).unwrap().unwrap_err();
        forget_the_dead(&scene);
        assert_eq!((scene.confirmed(), scene.increments().len()), (before, 0), "{words:?}");
        let folders = std::fs::read_dir(scene.folder.path().join(&scene.database.name)).unwrap();
        let left = folders.filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().ends_with("-incr"));
        assert_eq!(left.count(), 0, "{words:?}");
    }
    assert_eq!(scene.inserted(&scene.increment()), ["1"]);
}
