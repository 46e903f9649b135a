//! A chain that cannot go on, and a slot that is not pgstow's.

use super::scene::Scene;
use crate::support::database::psql;
use crate::support::program::run;

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
