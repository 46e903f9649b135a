//! What an increment holds, and when it ends.

use serde_json::json;

use super::scene::Scene;
use crate::support::program::succeed;

fn holds_what_was_committed_and_confirms_it(major: u32) {
    let scene = Scene::fresh(major);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY, item text); INSERT INTO orders VALUES (0, 'before')");
    scene.start();
    scene.sql("INSERT INTO orders VALUES (1, 'one'), (2, 'two')");
    scene.sql("BEGIN; UPDATE orders SET item = 'zwei' WHERE id = 2; DELETE FROM orders WHERE id = 0; COMMIT");
    scene.sql("BEGIN; INSERT INTO orders VALUES (3, 'never'); ROLLBACK");
    let first = scene.increment();
    assert_eq!(
        (&first["kind"], &first["status"]),
        (&json!("incremental"), &json!("succeeded"))
    );
    assert_eq!(first["increment"]["transactions"], 2);
    let changes = &first["increment"]["changes"][0];
    assert_eq!(
        [
            &changes["name"],
            &changes["inserts"],
            &changes["updates"],
            &changes["deletes"]
        ],
        [&json!("orders"), &json!(2), &json!(1), &json!(1)]
    );
    assert_eq!(scene.inserted(&first), ["1", "2"]);
    scene.assert_is_chained();

    scene.sql("INSERT INTO orders VALUES (4, 'four')");
    let second = scene.increment();
    assert_eq!(scene.inserted(&second), ["4"]);
    scene.assert_is_chained();
    let manifest = scene.manifest(&second);
    let increment = manifest.increment.unwrap();
    assert_eq!(
        increment.stream.predecessor.unwrap().to_string(),
        first["id"].as_str().unwrap()
    );
    assert_eq!(
        increment.stream.from.to_string(),
        first["increment"]["to"].as_str().unwrap()
    );
    let covered: Vec<_> = increment
        .coverage
        .iter()
        .map(|table| (table.name.as_str(), table.state))
        .collect();
    assert_eq!(
        covered,
        [("orders", pgstow::repository::manifest::CoverageState::Exact)]
    );
    assert!(
        increment.coverage[0].from.is_none() && increment.coverage[0].to.is_none(),
        "{:?}",
        increment.coverage
    );
    assert!(increment.stream.seen_to <= manifest.finished_at);
}

on_majors! { holds_what_was_committed_and_confirms_it: 15 18 }

#[test]
fn an_idle_run_stores_nothing_and_reports_the_last_increment() {
    let scene = Scene::fresh(18);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    scene.start();
    scene.sql("INSERT INTO orders VALUES (1)");
    let made = scene.increment();
    let confirmed = scene.confirmed();
    let idle = scene.increment();
    assert_eq!(
        (&idle["id"], &idle["increment"]["is_idle"]),
        (&made["id"], &json!(true))
    );
    // What the last one holds is not told as if it were new.
    assert_eq!(
        (&made["increment"]["transactions"], &idle["increment"]["transactions"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(
        (&idle["increment"]["changes"], &idle["bytes_stored"]),
        (&json!([]), &json!(0))
    );
    assert_eq!(idle["increment"]["to"], made["increment"]["to"]);
    let text = succeed(
        scene
            .pgstow(&["backup", "--kind", "incremental"])
            .env("LOG_FORMAT", "text"),
    )
    .text();
    assert!(
        text.contains("none was made") && !text.contains("1 transaction"),
        "{text}"
    );
    assert_eq!(scene.increments().len(), 1);
    assert_eq!(scene.confirmed(), confirmed);
}

fn ends_at_a_switch_of_the_log_and_under_other_databases_load(major: u32) {
    let scene = Scene::fresh(major);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    scene.start();
    let other = scene.server.database("other");
    other.sql("CREATE TABLE noise AS SELECT n FROM generate_series(1, 1000) n");
    scene.sql("SELECT pg_switch_wal()");
    let first = scene.increment();
    assert_eq!(first["increment"]["transactions"], 0);
    scene.sql("INSERT INTO orders VALUES (1); SELECT pg_switch_wal()");
    assert_eq!(scene.inserted(&scene.increment()), ["1"]);
    // More than an idle stream may keep the server from removing.
    other.sql("INSERT INTO noise SELECT n FROM generate_series(1, 1200000) n");
    let confirmed = scene.confirmed();
    let quiet = scene.increment();
    assert_eq!(
        (&quiet["increment"]["transactions"], &quiet["increment"]["is_idle"]),
        (&json!(0), &json!(null))
    );
    assert!(scene.confirmed() > confirmed);
    scene.assert_is_chained();
}

on_majors! { ends_at_a_switch_of_the_log_and_under_other_databases_load: 15 18 }

#[test]
fn a_large_transaction_is_split_and_whole() {
    let scene = Scene::fresh(18);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY, filler text)");
    scene.start();
    let rows = 150_000;
    scene.sql(&format!(
        "INSERT INTO orders SELECT n, repeat(md5(n::text), 4) FROM generate_series(1, {rows}) n"
    ));
    let made = scene.increment();
    let inserted = scene.inserted(&made);
    assert_eq!((inserted.len(), &*inserted[rows - 1]), (rows, "150000"));
    assert_eq!(made["increment"]["transactions"], 1);
    scene.assert_is_chained();
}

#[test]
fn a_reader_of_the_slot_makes_a_second_one_busy() {
    let scene = Scene::fresh(18);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    scene.start();
    let [all, inserts] = scene.slot().publications();
    let names = format!("publication_names='{all},{inserts}'");
    let mut reader = crate::support::program::stock(18, "pg_recvlogical")
        .args([
            "-d",
            &scene.database.url(),
            "--slot",
            scene.slot().slot(),
            "--start",
            "-f",
            "/dev/null",
        ])
        .args(["-o", "proto_version=1", "-o", &names.replace('\'', "")])
        .spawn()
        .unwrap();
    let active = format!(
        "SELECT active FROM pg_replication_slots WHERE slot_name = '{}'",
        scene.slot()
    );
    while scene.sql(&active) != "t" {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(scene.refused("BUSY").contains("reads the slot"));
    reader.kill().unwrap();
    reader.wait().unwrap();
}

#[test]
fn the_second_delivery_of_an_event_makes_no_second_increment() {
    let scene = Scene::fresh(18);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    scene.start();
    scene.sql("INSERT INTO orders VALUES (1)");
    let ask = || scene.backup(&["--kind", "incremental", "--event-id", "e1"]);
    let first = ask();
    scene.sql("INSERT INTO orders VALUES (2)");
    let second = ask();
    assert_eq!((&second["id"], &second["repeated"]), (&first["id"], &json!(true)));
    assert_eq!(scene.inserted(&scene.increment()), ["2"]);
}

#[test]
fn the_sums_of_an_increment_are_those_of_all_its_files() {
    let scene = Scene::fresh(18);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    scene.start();
    // A new table needs a baseline, so there is an archive beside the changes.
    scene.sql("CREATE TABLE more (id int PRIMARY KEY); INSERT INTO more VALUES (1); INSERT INTO orders VALUES (1)");
    let made = succeed(scene.command(&["--kind", "incremental"]).env("BACKUP_MD5", "true")).json();
    let folder = scene.path(&made["id"], "");
    let mut files: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("manifest.json") && !name.ends_with("SUMS"))
        .collect();
    files.sort();
    assert!(files.iter().any(|name| name.ends_with(".dump")), "{files:?}");
    for (program, sums) in [("sha256sum", "SHA256SUMS"), ("md5sum", "MD5SUMS")] {
        let listed = std::fs::read_to_string(folder.join(sums)).unwrap();
        let mut listed: Vec<&str> = listed.lines().map(|line| line.split_once("  ").unwrap().1).collect();
        listed.sort_unstable();
        assert_eq!(listed, files, "{sums}");
        succeed(
            crate::support::program::program(program)
                .args(["-c", "--strict", sums])
                .current_dir(&folder),
        );
    }
    succeed(&mut scene.pgstow(&["verify", made["id"].as_str().unwrap()]));
}
