//! Tables that are emptied, rewritten and exchanged while a backup begins.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::support::database::{Database, try_psql};
use crate::support::impostor::impostor;
use crate::support::lock::Lock;
use crate::support::role::Role;
use crate::support::server::OwnServer;
use crate::support::wreck::{Site, assert_good, assert_no_session, fail, report};

const ANEW: &str = "TRUNCATE facts; INSERT INTO facts SELECT i FROM generate_series(1, 1000) i";

fn facts(database: &Database) {
    database.sql("CREATE TABLE facts AS SELECT i FROM generate_series(1, 500) i; CREATE TABLE other AS SELECT 1 AS a");
}

fn manifest(site: &Site, id: &Value) -> Value {
    let manifest = site.store().join(id.as_str().unwrap()).join("manifest.json");
    serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap()
}

/// Ends the threads that write, also when the test fails: or their end would be waited for.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn rows(manifest: &Value, table: &str) -> u64 {
    let tables = manifest["tables"].as_array().unwrap();
    let table = tables.iter().find(|one| one["name"] == table).unwrap();
    table["rows"].as_u64().unwrap()
}

/// With every kind of reader, and every change of the table in the moment before its lock.
fn what_is_done_before_the_lock_is_in_the_backup(major: u32) {
    for (jobs, format) in [("1", "custom"), ("2", "custom"), ("1", "plain")] {
        for (change, expected) in [
            (ANEW, 1000),
            ("ALTER TABLE facts ALTER COLUMN i TYPE bigint", 500),
            ("DROP TABLE facts; CREATE TABLE facts AS SELECT 1 AS i", 1),
            (
                "ALTER TABLE facts RENAME TO was; ALTER TABLE other RENAME TO facts; ALTER TABLE was RENAME TO other",
                1,
            ),
        ] {
            let (site, database) = (Site::new(), Database::fresh(major));
            facts(&database);
            let mut command = site.backup(&database.url());
            command.args(["--jobs", jobs, "--format", format, "--compress", "none"]);
            let lock = Lock::hold(&database, "facts");
            let mut running = site.start(&mut command);
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                         AND wait_event_type = 'Lock' AND query LIKE 'LOCK TABLE%'";
            running.until("the backup waits for its lock", || database.sql(waits) == "1");
            lock.release_after(change);
            let run = running.end(Duration::from_secs(30));
            assert!(run.status.success(), "{change}: {}", run.stderr);
            let report = run.json();
            assert!(report["warnings"].is_null() && report["left_out"].is_null(), "{report}");
            if format == "custom" {
                assert_eq!(
                    rows(&manifest(&site, &report["id"]), "facts"),
                    expected,
                    "{change}, {jobs} jobs"
                );
                assert_good(&site.store(), report["id"].as_str().unwrap(), major);
            } else {
                let folder = site.store().join(report["id"].as_str().unwrap());
                let sql = fs::read_to_string(folder.join(format!("{}.sql", database.name))).unwrap();
                let copied = sql.split_once("COPY public.facts ").unwrap().1;
                let copied = copied.split_once("\n\\.").unwrap().0;
                assert_eq!(copied.lines().count() as u64 - 1, expected, "{change}, plain");
            }
            site.assert_nothing_runs();
            assert_no_session(&database);
        }
    }
}

on_majors! { what_is_done_before_the_lock_is_in_the_backup: 15 16 17 18 }

/// They may make a backup impossible, but never make it a lie.
#[test]
fn a_storm_of_truncates_never_leaves_a_table_empty_without_a_word() {
    let database = Database::fresh(17);
    facts(&database);
    database.sql("CREATE TABLE more AS SELECT i FROM generate_series(1, 1000) i");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for table in ["facts", "more"] {
            let (over, url) = (&over, database.url());
            scope.spawn(move || {
                let again = format!(
                    "BEGIN; TRUNCATE {table}; INSERT INTO {table} SELECT i FROM generate_series(1, 1000) i; COMMIT;"
                );
                while !over.load(Ordering::Relaxed) {
                    drop(try_psql(17, &url, &again.repeat(10)));
                }
            });
        }
        let _over = Over(&over);
        std::thread::sleep(Duration::from_millis(500));
        for (jobs, setting) in [("1", "fail"), ("2", "fail"), ("1", "warn"), ("2", "warn")] {
            let site = Site::new();
            let mut command = site.backup(&database.url());
            command.args(["--jobs", jobs]).env("BACKUP_ON_CHANGED_TABLES", setting);
            let run = crate::support::program::run(&mut command);
            let told = run.json();
            if told["status"] == "failed" {
                assert_eq!((setting, run.status.code()), ("fail", Some(23)), "{told}");
                let message = told["error"]["message"].as_str().unwrap();
                assert!(
                    message.contains("public.facts") || message.contains("public.more"),
                    "{message}"
                );
                site.assert_nothing_is_left();
                continue;
            }
            assert!(run.status.success(), "{told}");
            let manifest = manifest(&site, &told["id"]);
            for table in ["facts", "more"] {
                let named = format!("public.{table}");
                let left_out = manifest["left_out"].as_array().into_iter().flatten();
                let missing = left_out
                    .clone()
                    .any(|one| one["kind"] == "rows" && one["name"] == *named);
                // A named table may have all its rows nevertheless, if it was emptied just before the snapshot.
                let there = rows(&manifest, table);
                assert!(
                    there == 1000 || missing && there == 0,
                    "{there} of {table}: {manifest:#}"
                );
            }
        }
    });
}

/// The tables cannot be held beside pg_dump, and each time one is emptied before its lock.
#[test]
fn where_no_attempt_succeeds_the_setting_decides_and_the_tables_are_named() {
    let (site, database) = (Site::new(), Database::fresh(17));
    facts(&database);
    // For our session and pg_dump's, and no other.
    let role = Role::fresh(
        &database,
        "a word of ours",
        "IN ROLE pg_read_all_data CONNECTION LIMIT 2",
    );
    let psql = crate::support::services::postgres_bin(17).join("psql");
    let script = format!(
        "{} -X -q -d '{}' -c \"SET lock_timeout = '300ms'\" -c '{ANEW}'; exec $REAL \"$@\"",
        psql.display(),
        database.url()
    );
    let bin = impostor(site.path(), 17, &script);
    let url = database.url_as(Some((&role.name, &role.password)));
    let backup = || {
        let mut command = site.backup(&url);
        command.env("BACKUP_PG_BIN", &bin);
        command
    };
    let failure = fail(&mut backup(), "CHANGED", 23);
    assert!(failure.message.contains("public.facts"), "{}", failure.message);
    assert!(failure.hint.contains("BACKUP_ON_CHANGED_TABLES"), "{}", failure.hint);
    site.assert_nothing_is_left_of(&database);

    let report = report(backup().env("BACKUP_ON_CHANGED_TABLES", "warn"));
    let manifest = manifest(&site, &report["id"]);
    assert_eq!((rows(&manifest, "facts"), rows(&manifest, "other")), (0, 1));
    for document in [&report, &manifest] {
        let warnings = document["warnings"].to_string();
        assert!(
            warnings.contains("public.facts") && !warnings.contains("public.other"),
            "{warnings}"
        );
        assert_eq!(document["left_out"].as_array().unwrap().len(), 1);
        assert_eq!(document["left_out"][0]["kind"], "rows");
        assert_eq!(document["left_out"][0]["name"], "public.facts");
    }
}

/// What a nightly load does: fill another table, and put it into the old one's place.
#[test]
fn tables_that_are_exchanged_all_the_time_are_never_seen_empty() {
    let database = Database::fresh(17);
    database.sql("CREATE TABLE live AS SELECT i FROM generate_series(1, 1000) i");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (stop, url) = (&over, database.url());
        scope.spawn(move || {
            let exchange = "CREATE TABLE staging AS SELECT i FROM generate_series(1, 1000) i; BEGIN;
                ALTER TABLE live RENAME TO old; ALTER TABLE staging RENAME TO live; DROP TABLE old; COMMIT; SELECT pg_sleep(1);";
            while !stop.load(Ordering::Relaxed) {
                assert!(try_psql(17, &url, exchange).status.success());
            }
        });
        let _over = Over(&over);
        for jobs in ["1", "2", "1", "2"] {
            let site = Site::new();
            let run = crate::support::program::run(site.backup(&database.url()).args(["--jobs", jobs]));
            let told = run.json();
            match run.status.code() {
                Some(0) => assert_eq!(rows(&manifest(&site, &told["id"]), "live"), 1000),
                // On a machine that is slow enough.
                code => assert_eq!(code, Some(23), "{told}"),
            }
        }
    });
}

/// A server whose lock table holds the tables once and not twice.
#[test]
fn where_there_is_no_room_for_our_locks_pg_dumps_are_watched() {
    let server = OwnServer::start_with(
        17,
        &[
            "max_locks_per_transaction=10",
            "max_connections=10",
            "autovacuum=off",
            "max_worker_processes=0",
        ],
    );
    let database = server.database("crowded");
    let mut tables = 0;
    let site = Site::new();
    // The size of the lock table is rounded: some of these counts have room for one set only.
    while tables < 700 {
        let (from, to) = (tables + 1, tables + 100);
        database.sql(&format!(
            "SELECT format('CREATE TABLE t%s AS SELECT 1 AS a', i) FROM generate_series({from}, {to}) i \\gexec"
        ));
        tables = to;
        let run = crate::support::program::run(&mut site.backup(&database.url()));
        let told = run.json();
        match run.status.code() {
            Some(0) => {
                // The last lock of all may be wanted by the question for what a backup leaves out.
                let warnings = told["warnings"].as_array().map_or(&[][..], Vec::as_slice);
                let is_of_locks = |warning: &serde_json::Value| warning.to_string().contains("out of shared memory");
                assert!(warnings.iter().all(is_of_locks), "{told}");
                let manifest = manifest(&site, &told["id"]);
                let all = manifest["tables"].as_array().unwrap();
                assert!(all.len() == tables && all.iter().all(|table| table["rows"] == 1));
            }
            code => {
                assert_eq!(code, Some(20), "{told}");
                assert!(
                    told["error"]["hint"]
                        .as_str()
                        .unwrap()
                        .contains("max_locks_per_transaction"),
                    "{told}"
                );
                assert!(tables > 100, "{told}");
                return;
            }
        }
    }
}

/// An administrator, or a standby that wants to go on, ends the session that does nothing but hold the tables,
/// and another session empties one of them before pg_dump has its own lock.
#[test]
fn that_the_session_which_held_the_tables_was_ended_is_noticed() {
    let (site, database) = (Site::new(), Database::fresh(17));
    facts(&database);
    // The first pg_dump waits until it is told to go on.
    let script = r#"case "$*" in *--snapshot=*)
        if [ ! -e $SITE/waits ]; then touch $SITE/waits; while [ ! -e $SITE/go ]; do sleep 0.02; done; fi
        esac; exec $REAL "$@""#;
    let mut command = site.backup(&database.url());
    command.env("BACKUP_PG_BIN", impostor(site.path(), 17, script));
    let mut running = site.start(&mut command);
    running.until("pg_dump is started", || site.path().join("waits").exists());
    let ended = database.sql(
        "SELECT count(pg_terminate_backend(a.pid)) FROM pg_stat_activity a WHERE datname = current_database()
         AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.relation = 'facts'::regclass)",
    );
    assert_eq!(ended, "1");
    database.sql(&format!("BEGIN; {ANEW}; COMMIT"));
    fs::write(site.path().join("go"), "").unwrap();
    let run = running.end(Duration::from_secs(30));
    assert!(run.status.success(), "{}", run.stderr);
    assert_eq!(rows(&manifest(&site, &run.json()["id"]), "facts"), 1000);
    assert_no_session(&database);
}

/// Others take the same tables in another order, and the server ends our part of the knot.
#[test]
fn a_deadlock_with_others_is_no_failure() {
    let (site, database) = (Site::new(), Database::fresh(17));
    database
        .sql("CREATE TABLE a AS SELECT 1 AS n; CREATE TABLE b AS SELECT 1 AS n; CREATE TABLE facts AS SELECT 1 AS n");
    let first = Lock::hold(&database, "b");
    let second = Lock::hold(&database, "facts");
    let mut running = site.start(&mut site.backup(&database.url()));
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                 AND wait_event_type = 'Lock' AND query LIKE 'LOCK TABLE%'";
    running.until("the backup waits for its lock", || database.sql(waits) == "1");
    // It has `a`, and waits for `b`; then for `facts`, whose holder waits for `a`.
    let url = database.url();
    let knot = std::thread::spawn(move || {
        second.release_after(
            "SET LOCAL deadlock_timeout = '20s'; TRUNCATE a; INSERT INTO a SELECT generate_series(1, 7)",
        );
        drop(url);
    });
    let wants = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                 AND wait_event_type = 'Lock' AND query LIKE 'TRUNCATE%'";
    running.until("the other waits too", || database.sql(wants) == "1");
    drop(first);
    let run = running.end(Duration::from_secs(30));
    knot.join().unwrap();
    assert!(run.status.success(), "{}", run.stderr);
    assert_eq!(rows(&manifest(&site, &run.json()["id"]), "a"), 7);
}
