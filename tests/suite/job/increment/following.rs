//! `--follow`.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::scene::Scene;

struct Follower(Option<Child>);

impl Follower {
    fn start(scene: &Scene, every: &str) -> Self {
        let mut command = scene.command(&["--kind", "incremental", "--follow", "--every", every]);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        Self(Some(command.spawn().unwrap()))
    }

    fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        let child = self.0.take().unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[track_caller]
fn wait_for(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < end, "{what} takes too long");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A source whose increments were started.
fn followed(scene: Scene) -> Scene {
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    scene.start();
    scene
}

fn stored(scene: &Scene) -> Vec<String> {
    let reports = scene.increments().into_iter().map(|id| serde_json::json!({ "id": id }));
    reports.flat_map(|report| scene.inserted(&report)).collect()
}

/// Inserts a row, and waits until the increments have these.
#[track_caller]
fn insert(scene: &Scene, id: u32, all: &[&str]) {
    scene.sql(&format!("INSERT INTO orders VALUES ({id})"));
    wait_for("the increment", PATIENCE, || stored(scene) == all);
}

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_follower_stores_what_is_committed_ends_cleanly_and_goes_on_without_loss() {
    let scene = followed(Scene::fresh(18));
    let follower = Follower::start(&scene, "5s");
    insert(&scene, 1, &["1"]);
    // The second file needs the table's description again, which the server sends once per session.
    insert(&scene, 2, &["1", "2"]);
    let (code, report) = follower.end(Signal::TERM);
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains("\"incremental\""), "{report}");
    scene.assert_is_chained();
    let count = scene.increments().len();

    scene.sql("INSERT INTO orders VALUES (3)");
    let follower = Follower::start(&scene, "5s");
    wait_for("the increment after the restart", PATIENCE, || {
        stored(&scene) == ["1", "2", "3"]
    });
    follower.end(Signal::TERM);
    assert_eq!(scene.increments().len(), count + 1);
    scene.assert_is_chained();
}

#[test]
fn a_follower_that_is_killed_loses_nothing_and_doubles_nothing() {
    let scene = followed(Scene::with(18, &["wal_sender_timeout=3s"]));
    for round in 0..3 {
        let follower = Follower::start(&scene, "5s");
        scene.sql(&format!("INSERT INTO orders VALUES ({round})"));
        wait_for("the increment", PATIENCE, || stored(&scene).len() == round + 1);
        follower.end(Signal::KILL);
        let lease = scene
            .folder
            .path()
            .join(&scene.database.name)
            .join(".lease-incremental");
        std::fs::remove_file(lease).unwrap();
        let active = "SELECT count(*) FROM pg_replication_slots WHERE active";
        wait_for("the server", PATIENCE, || scene.sql(active) == "0");
    }
    assert_eq!(stored(&scene), ["0", "1", "2"]);
    scene.increment();
    scene.assert_is_chained();
}

#[test]
fn a_follower_proves_the_fulls_that_other_tasks_make() {
    let scene = followed(Scene::fresh(18));
    let follower = Follower::start(&scene, "5s");
    insert(&scene, 1, &["1"]);
    let full = scene.backup(&[]);
    scene.sql("INSERT INTO orders VALUES (2)");
    let result = scene.path(&full["id"], "verification.json");
    wait_for("the proof", PATIENCE, || result.exists());
    follower.end(Signal::TERM);
    let result: serde_json::Value = serde_json::from_slice(&std::fs::read(result).unwrap()).unwrap();
    assert_eq!(result["chain"]["status"], "ok", "{result}");
    assert_eq!(result["chain"]["equal"], 1, "{result}");
}

#[test]
fn a_follower_outlives_a_restart_of_its_source() {
    let mut scene = followed(Scene::fresh(18));
    let follower = Follower::start(&scene, "5s");
    insert(&scene, 1, &["1"]);
    scene.server.crash();
    std::thread::sleep(Duration::from_secs(2));
    scene.server.start_again();
    insert(&scene, 2, &["1", "2"]);
    follower.end(Signal::TERM);
    scene.assert_is_chained();
}
