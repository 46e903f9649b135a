//! A backup that spares the server: at a rate, and by pausing while others need it.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::database::Database;
use crate::support::program::{pgstow, stock, succeed};
use crate::support::server::OwnServer;
use crate::support::wreck::{Site, assert_good, report};

const SOME: &str = "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 10) AS a FROM generate_series(1, 20000) i";

/// Sessions that are active for a while, until dropped.
struct Busy(Vec<Child>);

impl Busy {
    fn sessions(database: &Database, count: usize, seconds: u32) -> Self {
        let session = |_| {
            stock(database.major, "psql")
                .args(["-X", "-q", "-d", &database.url(), "-c"])
                .arg(format!("SELECT pg_sleep({seconds})"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        Self((0..count).map(session).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn manifest(site: &Site, report: &Value) -> Value {
    let id = report["id"].as_str().unwrap();
    assert_good(&site.store(), id, 17);
    serde_json::from_slice(&std::fs::read(site.store().join(id).join("manifest.json")).unwrap()).unwrap()
}

#[test]
fn a_rate_is_kept_by_one_stream_and_by_several() {
    let database = Database::fresh(17);
    database.sql(SOME);
    for jobs in ["1", "3"] {
        let site = Site::new();
        let mut command = site.backup(&database.url());
        command
            .args(["--jobs", jobs, "--max-rate", "3M"])
            // To be held back is not to stall.
            .env("BACKUP_STALL_SECONDS", "2")
            .env_remove("BACKUP_LOCK_WAIT_SECONDS");
        let began = Instant::now();
        let report = report(&mut command);
        let read = report["bytes_read"].as_f64().unwrap();
        let least = read / f64::from(3 << 20) * 0.7;
        assert!(
            began.elapsed().as_secs_f64() > least,
            "{:?} for {read} bytes",
            began.elapsed()
        );
        manifest(&site, &report);
    }
}

#[test]
fn it_pauses_while_others_are_many_and_goes_on_after() {
    // A server of its own: on a shared one, the sessions of other tests count, and their number changes.
    let server = OwnServer::start(17);
    let database = server.database("gentle");
    database.sql(SOME);
    let site = Site::new();
    let busy = Busy::sessions(&database, 4, 4);
    let mut command = site.backup(&database.url());
    command
        .args(["--nice", "--max-rate", "4M"])
        .env("BACKUP_NICE_MAX_SESSIONS", "3");
    let mut running = site.start(&mut command);
    std::thread::sleep(Duration::from_secs(2));
    assert!(!running.is_over(), "it has not paused");
    drop(busy);
    let run = running.end(Duration::from_secs(40));
    assert!(run.status.success(), "{}", run.stderr);
    let report = run.json();
    assert!(report["pauses"].as_u64().unwrap() >= 1, "{report}");
    assert!(report["paused_seconds"].as_f64().unwrap() > 0.5, "{report}");
    let manifest = manifest(&site, &report);
    assert_eq!(manifest["metadata"]["pauses"], report["pauses"]);
}

#[test]
fn a_stop_during_a_pause_is_a_stop_at_once() {
    let database = Database::fresh(17);
    database.sql(SOME);
    let site = Site::new();
    let _busy = Busy::sessions(&database, 3, 60);
    let mut command = site.backup(&database.url());
    command.arg("--nice").env("BACKUP_NICE_MAX_SESSIONS", "0");
    let mut running = site.start(&mut command);
    let paused = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%'";
    running.until("pg_dump has begun", || database.sql(paused) == "1");
    std::thread::sleep(Duration::from_millis(1500));
    running.signal(Signal::TERM);
    let run = running.end(Duration::from_secs(10));
    assert!(!run.status.success());
    site.assert_nothing_is_left_of(&database);
}

#[test]
fn without_its_watch_the_backup_goes_on_and_says_so() {
    let database = Database::fresh(17);
    database.sql(SOME);
    let site = Site::new();
    let mut command = site.backup(&database.url());
    command
        .args(["--nice", "--max-rate", "2M"])
        .env("BACKUP_NICE_MAX_SESSIONS", "1000");
    let mut running = site.start(&mut command);
    running.until("the watch has looked", || {
        database.sql(
            "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE datname = current_database() AND query LIKE '%replay_lag%' AND pid <> pg_backend_pid()",
        ) == "1"
    });
    let run = running.end(Duration::from_secs(40));
    assert!(run.status.success(), "{}", run.stderr);
    let report = run.json();
    assert!(report["warnings"].to_string().contains("--nice"), "{report}");
    manifest(&site, &report);
}

#[test]
fn the_summary_names_a_level_only_of_what_is_compressed() {
    let (site, database) = (Site::new(), Database::fresh(15));
    for (compress, said) in [("none", " stored (not compressed), "), ("gzip:1", " stored (gzip 1), ")] {
        let mut command = pgstow();
        command
            .args(["backup", "--compress", compress, "--store"])
            .arg(site.store())
            .env("DATABASE_URL", database.url())
            .env("TMPDIR", site.path().join("tmp"));
        let text = succeed(&mut command).text();
        assert!(text.contains(said), "{text}");
        // Ids are made of seconds.
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
}
