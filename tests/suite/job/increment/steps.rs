//! A run that ends at any step of the protocol: killed, cut off, thrown out by the server, or with its server. Nothing is
//! lost, nothing comes twice, and nothing is confirmed that is not stored.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgstow::format::Lsn;
use serde_json::Value;

use super::scene::Scene;
use crate::support::program::succeed;
use crate::support::watched_wire::{Line, Step, WatchedWire};

const PATIENCE: Duration = Duration::from_secs(120);

/// What happens at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    /// SIGKILL.
    Kill,
    /// The network drops the connection.
    Cut,
    /// `pg_terminate_backend`, for every session but the one that asks for it.
    Terminate,
    /// The server crashes, and is started again when the run has ended.
    Crash,
}

/// By their names.
type Steps = &'static [(&'static str, fn(&Step, Lsn) -> bool)];

const INCREMENT: Steps = &[
    ("before the stream begins", |step, _| says(step, "START_REPLICATION")),
    ("after the stream has begun", |step, _| *step == Step::Streaming),
    ("inside a transaction", |step, _| *step == Step::Change),
    (
        "between the manifest and the confirmation",
        |step, from| matches!(step, Step::Confirming(to) if *to > from.0),
    ),
    (
        "after the server has the confirmation",
        |step, from| matches!(step, Step::Confirmed(to) if *to > from.0),
    ),
    ("before the end of the stream", |step, _| *step == Step::Ending),
    ("after the end of the stream", |step, _| *step == Step::Ended),
];

const START: Steps = &[
    ("before the slot is made", |step, _| {
        says(step, "pg_create_logical_replication_slot")
    }),
    ("in the wait for older transactions", |step, _| {
        says(step, "pg_current_xact_id")
    }),
    ("when the full takes its snapshot", |step, _| {
        says(step, "pg_export_snapshot")
    }),
];

fn says(step: &Step, words: &str) -> bool {
    matches!(step, Step::Statement(text) if text.contains(words))
}

/// Positions that the server was told before the manifest that ends there was in the store.
#[derive(Default)]
struct Ahead(Mutex<Vec<u64>>);

impl Ahead {
    fn look(&self, scene: &StoreOf, from: Lsn, step: &Step) {
        if let Step::Confirming(to) = step
            && Lsn(*to) > from
            && Lsn(*to) > scene.end()
        {
            self.0.lock().unwrap().push(*to);
        }
    }
}

/// The folder with the increments, as the watcher reads it.
#[derive(Clone)]
struct StoreOf(std::path::PathBuf);

impl StoreOf {
    /// Where the newest increment ends.
    fn end(&self) -> Lsn {
        let ends = std::fs::read_dir(&self.0).into_iter().flatten().filter_map(|folder| {
            let manifest = std::fs::read(folder.ok()?.path().join("manifest.json")).ok()?;
            let manifest: Value = serde_json::from_slice(&manifest).ok()?;
            manifest["stream"]["to"].as_str()?.parse::<Lsn>().ok()
        });
        ends.max().unwrap_or(Lsn(0))
    }
}

/// Runs the command through a line on which the blow falls at the step. `false`: the run did not come there.
fn strike(
    scene: &mut Scene,
    command: impl Fn(&Scene) -> Command,
    (name, is_it): (&str, fn(&Step, Lsn) -> bool),
    blow: Blow,
) -> bool {
    let from = confirmed(scene);
    let store = StoreOf(scene.folder.path().join(&scene.database.name));
    let ahead = Arc::new(Ahead::default());
    let (struck, is_struck): (Sender<()>, Receiver<()>) = mpsc::channel();
    let (done, is_done): (Sender<()>, Receiver<()>) = mpsc::channel();
    let (meeting, met, seen) = (
        Mutex::new((struck, is_done)),
        AtomicBool::new(false),
        Arc::clone(&ahead),
    );
    let wire = WatchedWire::start(scene.server.port, move |step| {
        seen.look(&store, from, step);
        if !is_it(step, from) || met.swap(true, Ordering::SeqCst) {
            return Line::Passes;
        }
        let meeting = meeting.lock().unwrap();
        let _ = meeting.0.send(());
        let _ = meeting.1.recv();
        match blow {
            Blow::Cut => Line::Cut,
            _ => Line::Passes,
        }
    });
    let mut command = command(scene);
    let mut child = command
        .env("DATABASE_URL", wire.before(&scene.database.url()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let came_there = wait(&mut child, &is_struck);
    if came_there {
        match blow {
            Blow::Kill => child.kill().unwrap(),
            Blow::Cut => {}
            Blow::Terminate => drop(scene.sql(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                 WHERE backend_type IN ('client backend', 'walsender') AND pid <> pg_backend_pid()",
            )),
            Blow::Crash => scene.server.crash(),
        }
        done.send(()).unwrap();
    }
    let end = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "{name}, {blow:?}: the run does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    if came_there && blow == Blow::Crash {
        scene.server.start_again();
    }
    assert_eq!(
        *ahead.0.lock().unwrap(),
        [0; 0],
        "{name}, {blow:?}: confirmed before it was stored"
    );
    came_there
}

fn wait(child: &mut Child, struck: &Receiver<()>) -> bool {
    let end = Instant::now() + PATIENCE;
    loop {
        match struck.recv_timeout(Duration::from_millis(50)) {
            Ok(()) => return true,
            Err(RecvTimeoutError::Timeout) if child.try_wait().unwrap().is_none() => {
                assert!(Instant::now() < end, "the run comes to nothing");
            }
            Err(_) => return false,
        }
    }
}

fn confirmed(scene: &Scene) -> Lsn {
    let question = "SELECT coalesce(max(confirmed_flush_lsn), '0/0') FROM pg_replication_slots";
    scene.sql(question).parse().unwrap()
}

/// As after the time that a dead run's leases last.
fn forget_the_dead(scene: &Scene) {
    for lease in [".lease", ".lease-incremental"] {
        let _ = std::fs::remove_file(scene.folder.path().join(&scene.database.name).join(lease));
    }
    let active = "SELECT count(*) FROM pg_replication_slots WHERE active";
    let end = Instant::now() + PATIENCE;
    while scene.sql(active) != "0" {
        assert!(Instant::now() < end, "the slot stays in use");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn stored(scene: &Scene) -> Vec<String> {
    let reports = scene.increments().into_iter().map(|id| serde_json::json!({ "id": id }));
    reports.flat_map(|report| scene.inserted(&report)).collect()
}

/// At each step one run is struck, and the next one finds everything in order.
fn each_step_of_an_increment(blow: Blow) {
    let mut scene = Scene::with(18, &["wal_sender_timeout=3s"]);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    scene.start();
    let mut expected = Vec::new();
    for step in INCREMENT {
        let first = expected.len();
        let more = first..first + 3;
        scene.sql(&format!(
            "INSERT INTO orders SELECT generate_series({}, {})",
            more.start,
            more.end - 1
        ));
        expected.extend(more.map(|id| id.to_string()));
        let came_there = strike(
            &mut scene,
            |scene| scene.command(&["--kind", "incremental"]),
            *step,
            blow,
        );
        assert!(came_there, "{}", step.0);
        forget_the_dead(&scene);
        let next = scene.increment();
        assert_eq!(next["kind"], "incremental", "{}, {blow:?}: {next}", step.0);
        assert_eq!(stored(&scene), expected, "{}, {blow:?}", step.0);
        scene.assert_is_chained();
    }
}

#[test]
fn a_run_that_is_killed_at_any_step_loses_nothing_and_doubles_nothing() {
    each_step_of_an_increment(Blow::Kill);
}

#[test]
fn a_run_that_is_cut_off_at_any_step_loses_nothing_and_doubles_nothing() {
    each_step_of_an_increment(Blow::Cut);
}

#[test]
fn a_run_whose_sessions_the_server_ends_at_any_step_loses_nothing_and_doubles_nothing() {
    each_step_of_an_increment(Blow::Terminate);
}

#[test]
fn a_source_that_crashes_at_any_step_loses_nothing_and_doubles_nothing() {
    each_step_of_an_increment(Blow::Crash);
}

/// A start that ended at a step: the next one, or the next increment, makes what is missing, and a stop leaves nothing.
fn each_step_of_a_start(blow: Blow) {
    let mut scene = Scene::with(18, &["wal_sender_timeout=3s"]);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    const ARGUMENTS: &[&str] = &["incremental", "start", "--accept-unbounded-wal", "--json"];
    let there = "SELECT (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_publication)";
    for (number, step) in START.iter().enumerate() {
        scene.sql(&format!("INSERT INTO orders VALUES ({number})"));
        assert!(
            strike(&mut scene, |scene| scene.pgstow(ARGUMENTS), *step, blow),
            "{}",
            step.0
        );
        forget_the_dead(&scene);
        // Another task makes a full backup, which does not know of the stream.
        scene.backup(&[]);
        if number % 2 == 0 {
            succeed(&mut scene.pgstow(ARGUMENTS));
        } else if scene.sql(there).starts_with('1') {
            assert_eq!(scene.increment()["kind"], "full", "{}, {blow:?}", step.0);
        } else {
            scene.start();
        }
        scene.sql(&format!("INSERT INTO orders VALUES (100 + {number})"));
        let made = scene.increment();
        assert_eq!(
            (&made["kind"], scene.inserted(&made)),
            (&"incremental".into(), vec![(100 + number).to_string()])
        );
        scene.backup(&[]);
        scene.sql(&format!("INSERT INTO orders VALUES (200 + {number})"));
        assert_eq!(scene.increment()["kind"], "incremental", "{}, {blow:?}", step.0);
        succeed(&mut scene.pgstow(&["incremental", "stop"]));
        assert_eq!(scene.sql(there), "0|0", "{}, {blow:?}", step.0);
    }
}

#[test]
fn a_start_that_is_killed_at_any_step_can_be_made_again_or_taken_back() {
    each_step_of_a_start(Blow::Kill);
}

#[test]
fn a_start_whose_server_crashes_at_any_step_can_be_made_again_or_taken_back() {
    each_step_of_a_start(Blow::Crash);
}
