//! A chain that cannot go on, and a slot that is not pgstow's.

use super::scene::{Scene, metric};
use crate::support::database::psql;
use crate::support::program::run;
use crate::support::server::OwnServer;

#[test]
fn increments_that_were_never_started_are_refused_with_the_way_to_start_them() {
    let scene = Scene::fresh(18);
    scene.backup(&[]);
    assert!(scene.refused("CONFIG").contains("pgstow incremental start"));
    assert!(scene.increments().is_empty());
}

fn a_slot_that_is_gone_makes_a_full_and_a_new_chain(major: u32) {
    let scene = Scene::fresh(major);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    scene.start();
    scene.sql("INSERT INTO orders VALUES (1)");
    scene.increment();
    scene.sql(&format!("SELECT pg_drop_replication_slot('{}')", scene.slot()));
    scene.sql("INSERT INTO orders VALUES (2)");
    let renewed = scene.increment();
    assert_eq!(renewed["kind"], "full");
    assert!(renewed["renewed"].as_str().unwrap().contains("is missing"), "{renewed}");
    assert_eq!(renewed["rows"], 2);

    scene.sql("INSERT INTO orders VALUES (3)");
    let next = scene.increment();
    assert_eq!(scene.inserted(&next), ["3"]);
    let stream = scene.manifest(&next).increment.unwrap().stream;
    assert!(stream.predecessor.is_none());
    assert_eq!(stream.from.to_string(), stream.id.rsplit_once('@').unwrap().1);
    scene.sql("INSERT INTO orders VALUES (4)");
    assert_eq!(scene.inserted(&scene.increment()), ["4"]);
}

on_majors! { a_slot_that_is_gone_makes_a_full_and_a_new_chain: 15 18 }

#[test]
fn a_slot_that_the_server_has_given_up_makes_a_full_and_a_new_chain() {
    let scene = Scene::with(
        18,
        &["max_slot_wal_keep_size=1MB", "max_wal_size=32MB", "min_wal_size=32MB"],
    );
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    scene.start();
    scene.sql("INSERT INTO orders VALUES (1)");
    scene.increment();
    scene.sql("INSERT INTO orders VALUES (2)");
    let lost = format!(
        "SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{}'",
        scene.slot()
    );
    for _ in 0..8 {
        scene.sql("SELECT pg_logical_emit_message(false, 'pgstow', 'log'); SELECT pg_switch_wal(); CHECKPOINT");
    }
    assert_eq!(scene.sql(&lost), "lost");
    let status = run(&mut scene.pgstow(&["incremental", "status", "--json"]));
    assert_eq!(status.status.code(), Some(1));
    assert!(status.text().contains("given the slot up"), "{}", status.text());
    let (renewed, metrics) = scene.increment_with_metrics();
    let renewed = renewed.json();
    assert_eq!(
        (renewed["kind"].as_str(), renewed["rows"].as_u64()),
        (Some("full"), Some(2))
    );
    assert!(
        renewed["renewed"].as_str().unwrap().contains("given the slot"),
        "{renewed}"
    );
    assert!(metric(&metrics, "pgstow_increment_chain_broken") > 0.5);
    scene.sql("INSERT INTO orders VALUES (3)");
    let (next, metrics) = scene.increment_with_metrics();
    assert_eq!(scene.inserted(&next.json()), ["3"]);
    assert!(metric(&metrics, "pgstow_increment_chain_broken") < 0.5);
    assert!(metric(&metrics, "pgstow_increment_last_run_success") > 0.5);
    assert!(metric(&metrics, "pgstow_slot_wal_retained_bytes") < 64e6);
    assert!(metric(&metrics, "pgstow_slot_wal_safe_bytes") > 0.0);
    assert!(metric(&metrics, "pgstow_recovery_point_timestamp_seconds") > 1.7e9);
}

#[test]
fn another_server_makes_a_full_and_a_new_chain() {
    let scene = Scene::fresh(18);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    scene.start();
    scene.sql("INSERT INTO orders VALUES (1)");
    scene.increment();
    // The same database, restored into a new server.
    let other = OwnServer::start(18);
    let name = &scene.database.name;
    psql(18, &other.url(), &format!("CREATE DATABASE \"{name}\""));
    let port = |port: u16| format!(":{port}/");
    let url = scene
        .database
        .url()
        .replace(&port(scene.server.port), &port(other.port));
    psql(
        18,
        &url,
        "CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (1), (2)",
    );
    // A physical copy has the publications, and no slot.
    let [all, inserts] = scene.slot().publications();
    let publications = format!(
        "CREATE PUBLICATION {all} WITH (publish = 'insert, update, delete, truncate');
         CREATE PUBLICATION {inserts} WITH (publish = 'insert, truncate')"
    );
    psql(18, &url, &publications);
    let increment = || {
        run(scene
            .command(&["--kind", "incremental"])
            .env("DATABASE_URL", &url)
            .env("BACKUP_ADOPT", "true"))
    };
    let renewed = increment().json();
    assert_eq!(
        (renewed["kind"].as_str(), renewed["rows"].as_u64()),
        (Some("full"), Some(2)),
        "{renewed}"
    );
    assert!(renewed["renewed"].as_str().unwrap().contains("is missing"), "{renewed}");
    psql(18, &url, "INSERT INTO orders VALUES (3)");
    let next = increment().json();
    assert_eq!(scene.inserted(&next), ["3"]);
    let stream = scene.manifest(&next).increment.unwrap().stream;
    assert!(stream.predecessor.is_none());
}

#[test]
fn a_full_that_raced_a_start_that_was_killed_is_no_base() {
    let scene = Scene::fresh(18);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    scene.start();
    // Where the start dies: publications and slot are there, and the older transactions have not ended.
    let slot = scene.slot();
    for folder in std::fs::read_dir(scene.folder.path().join(&scene.database.name)).unwrap() {
        let folder = folder.unwrap().path();
        if folder.is_dir() {
            std::fs::remove_dir_all(folder).unwrap();
        }
    }
    scene.sql(&format!(
        "SELECT pg_drop_replication_slot('{slot}'); SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"
    ));
    let raced = scene.backup(&[]);
    assert_eq!(scene.manifest(&raced).beginning, None);
    let renewed = scene.increment();
    assert_eq!(renewed["kind"], "full", "{renewed}");
    assert!(
        renewed["renewed"].as_str().unwrap().contains("older than the slot"),
        "{renewed}"
    );
    let beginning = scene.manifest(&renewed).beginning.unwrap();
    assert_eq!(beginning.slot, slot.slot());
    scene.sql("INSERT INTO orders VALUES (1)");
    let first = scene.increment();
    let stream = scene.manifest(&first).increment.unwrap().stream;
    assert_eq!(
        (stream.settled, stream.settled_xid),
        (Some(beginning.from), Some(beginning.xid))
    );
    // A full that another task makes now is one, even before any increment but the first.
    let later = scene.backup(&[]);
    scene.sql("INSERT INTO orders VALUES (2)");
    assert_eq!(scene.increment()["chain"]["to"], later["id"]);
}

#[test]
fn a_slot_that_another_program_has_read_makes_a_full() {
    let scene = Scene::fresh(18);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    scene.start();
    scene.sql("INSERT INTO orders VALUES (1)");
    scene.increment();
    scene.sql("INSERT INTO orders VALUES (2)");
    scene.sql(&format!(
        "SELECT pg_replication_slot_advance('{}', pg_current_wal_flush_lsn())",
        scene.slot()
    ));
    let renewed = scene.increment();
    assert_eq!(
        (renewed["kind"].as_str(), renewed["rows"].as_u64()),
        (Some("full"), Some(2))
    );
    assert!(
        renewed["renewed"].as_str().unwrap().contains("another program"),
        "{renewed}"
    );
    scene.sql("INSERT INTO orders VALUES (3)");
    assert_eq!(scene.inserted(&scene.increment()), ["3"]);
}

#[test]
fn a_slot_of_another_program_with_our_name_is_not_touched() {
    let scene = Scene::fresh(18);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    let slot = scene.slot();
    scene.sql(&format!(
        "SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')"
    ));
    let look = "SELECT plugin, confirmed_flush_lsn FROM pg_replication_slots";
    let before = scene.sql(look);
    assert!(scene.refused("SLOT").contains("test_decoding"));
    assert_eq!(scene.sql(look), before);
}

#[test]
fn a_source_that_crashes_gives_nothing_twice() {
    let mut scene = Scene::fresh(18);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    scene.start();
    scene.sql("INSERT INTO orders VALUES (1)");
    let first = scene.increment();
    // The slot's confirmed position is written to the disk at checkpoints only.
    scene.server.crash();
    scene.server.start_again();
    scene.sql("INSERT INTO orders VALUES (2)");
    let second = scene.increment();
    assert_eq!(second["kind"], "incremental", "{second}");
    assert_eq!(
        (scene.inserted(&first), scene.inserted(&second)),
        (vec!["1".to_owned()], vec!["2".to_owned()])
    );
    scene.assert_is_chained();
}

#[test]
fn a_promoted_standby_makes_a_full_and_a_new_chain() {
    let scene = Scene::fresh(18);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    scene.start();
    scene.sql("INSERT INTO orders VALUES (1)");
    scene.increment();
    let standby = scene.server.standby(&[]);
    let url = scene
        .database
        .url()
        .replace(&format!(":{}/", scene.server.port), &format!(":{}/", standby.port));
    let increment = || {
        let run = run(scene.command(&["--kind", "incremental"]).env("DATABASE_URL", &url));
        run.json()
    };
    assert_eq!(increment()["error"]["code"], "CONFIG");
    psql(18, &url, "SELECT pg_promote()");
    psql(18, &url, "INSERT INTO orders VALUES (2)");
    let renewed = increment();
    assert_eq!(
        (renewed["kind"].as_str(), renewed["rows"].as_u64()),
        (Some("full"), Some(2)),
        "{renewed}"
    );
    assert!(renewed["renewed"].is_string(), "{renewed}");
    psql(18, &url, "INSERT INTO orders VALUES (3)");
    let next = increment();
    assert_eq!(scene.inserted(&next), ["3"]);
    assert_eq!(scene.manifest(&next).increment.unwrap().stream.timeline, 2);
}

/// The increment after that full must not find the same tables new once more.
#[test]
fn new_tables_that_are_too_much_for_an_increment_make_one_full_and_a_new_chain() {
    let scene = Scene::fresh(18);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    scene.start();
    scene.sql("INSERT INTO orders VALUES (1)");
    scene.increment();
    scene.sql(
        "CREATE TABLE large (id int PRIMARY KEY, v text); ALTER TABLE large ALTER v SET STORAGE EXTERNAL;
         INSERT INTO large SELECT n, repeat('x', 1000000) FROM generate_series(1, 70) n",
    );
    let renewed = scene.increment();
    assert_eq!(renewed["kind"], "full", "{renewed}");
    assert!(
        renewed["renewed"].as_str().unwrap().contains("more than a fifth"),
        "{renewed}"
    );
    scene.sql("INSERT INTO orders VALUES (2)");
    let next = scene.increment();
    assert_eq!(next["kind"], "incremental", "{next}");
    assert_eq!(scene.inserted(&next), ["2"]);
}

/// Only PostgreSQL 18 passes over changes from when a publication did not exist.
#[test]
fn a_log_that_the_server_cannot_decode_makes_a_full_and_a_new_chain() {
    let scene = Scene::fresh(15);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    scene.start();
    scene.sql("INSERT INTO orders VALUES (1)");
    scene.increment();
    let publication = scene.sql("SELECT pubname FROM pg_publication_tables");
    scene.sql(&format!("DROP PUBLICATION {publication}"));
    scene.sql("INSERT INTO orders VALUES (2)");
    scene.sql(&format!("CREATE PUBLICATION {publication} FOR TABLE orders"));
    let renewed = scene.increment();
    assert_eq!(
        (renewed["kind"].as_str(), renewed["rows"].as_u64()),
        (Some("full"), Some(2)),
        "{renewed}"
    );
    assert!(
        renewed["renewed"].as_str().unwrap().contains("cannot be read on"),
        "{renewed}"
    );
    scene.sql("INSERT INTO orders VALUES (3)");
    assert_eq!(scene.inserted(&scene.increment()), ["3"]);
}
