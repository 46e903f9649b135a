//! `restore --to-lsn` and `--to-time`: the database as it was at moments between two backups, and the refusal of
//! moments that cannot be had.

use std::process::Command;

use serde_json::Value;

use crate::job::increment::scene::Scene;
use crate::support::database::{Database, psql};
use crate::support::program::{Run, pgstow, run, succeed};

/// Tables of every kind of identity, with large values, escapes, partitions, generated columns and foreign keys.
pub const TABLES: &str = r#"
    CREATE TABLE acc (id int PRIMARY KEY, bal bigint, note text);
    CREATE TABLE hist (id bigserial PRIMARY KEY, acc int REFERENCES acc ON DELETE CASCADE, x float8, j jsonb, b bytea);
    CREATE TABLE doc (id int PRIMARY KEY, title text, body text); ALTER TABLE doc ALTER body SET STORAGE EXTERNAL;
    CREATE TABLE "Weird T" (k1 numeric, "k 2" text, val text, g int GENERATED ALWAYS AS (length(val)) STORED,
        PRIMARY KEY (k1, "k 2"));
    CREATE TABLE bykey (id int, code text NOT NULL, v text, CONSTRAINT uqc UNIQUE (code));
    ALTER TABLE bykey REPLICA IDENTITY USING INDEX uqc;
    CREATE TABLE whole (a int, b text, big text); ALTER TABLE whole REPLICA IDENTITY FULL;
    ALTER TABLE whole ALTER big SET STORAGE EXTERNAL;
    CREATE TABLE emptied (id int PRIMARY KEY, r text);
    CREATE TABLE parts (id int, d int, v text, PRIMARY KEY (id, d)) PARTITION BY RANGE (d);
    CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (50);
    CREATE TABLE parts_high (v text, gone int, d int NOT NULL, id int NOT NULL); ALTER TABLE parts_high DROP gone;
    ALTER TABLE parts ATTACH PARTITION parts_high FOR VALUES FROM (50) TO (100);
    CREATE TABLE ident (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);
    CREATE TABLE untouched AS SELECT n, md5(n::text) FROM generate_series(1, 50) n; ALTER TABLE untouched ADD PRIMARY KEY (n);
    INSERT INTO acc SELECT n, 100, 'n' FROM generate_series(1, 300) n;
    INSERT INTO hist (acc, x, j, b) SELECT n, n / 3.0, '{"a": [1, null, "\\"]}', '\x00ff5c0a' FROM generate_series(1, 300) n;
    INSERT INTO doc SELECT n, 't', repeat(md5(n::text), 300) FROM generate_series(1, 40) n;
    INSERT INTO "Weird T" SELECT n, E'k\t\\' || n, E'v\n' || n FROM generate_series(1, 100) n;
    INSERT INTO bykey SELECT n, 'c' || n, 'v' FROM generate_series(1, 100) n;
    INSERT INTO whole SELECT n % 7, 'f', repeat(md5((n % 7)::text), 200) FROM generate_series(1, 70) n;
    INSERT INTO emptied SELECT n, 'r' FROM generate_series(1, 20) n;
    INSERT INTO parts SELECT n, n % 100, 'p' FROM generate_series(1, 200) n;
    INSERT INTO ident (v) SELECT 'i' FROM generate_series(1, 30)"#;

/// The changes between two moments.
pub const PHASES: [&str; 5] = [
    r#"UPDATE acc SET bal = bal + 1 WHERE id <= 50;
       INSERT INTO hist (acc, x) SELECT n, -n FROM generate_series(1, 20) n;
       DELETE FROM acc WHERE id BETWEEN 100 AND 110;
       UPDATE doc SET title = title || 'x' WHERE id <= 10;
       UPDATE whole SET b = b || 'u' WHERE ctid IN (SELECT ctid FROM whole WHERE a = 3 LIMIT 2)"#,
    r#"BEGIN; INSERT INTO acc VALUES (1000, 1, 'kept'); SAVEPOINT a; INSERT INTO acc VALUES (1001, 1, 'lost');
       UPDATE acc SET bal = -1; ROLLBACK TO a; UPDATE acc SET note = E'a\tb\\' WHERE id = 2; COMMIT;
       BEGIN; DELETE FROM acc; ROLLBACK;
       UPDATE doc SET id = id + 1000 WHERE id < 5; UPDATE doc SET id = id - 1000 WHERE id IN (1002, 1003);
       WITH gone AS (DELETE FROM doc WHERE id = 7 RETURNING *) INSERT INTO doc SELECT id, title || 're', body FROM gone;
       UPDATE "Weird T" SET k1 = k1 + 1000 WHERE k1 < 10; UPDATE "Weird T" SET k1 = (k1 || '.0')::numeric WHERE k1 > 1000"#,
    r#"TRUNCATE emptied; INSERT INTO emptied SELECT n, 'again' FROM generate_series(5, 9) n;
       UPDATE emptied SET r = r || 'u' WHERE id = 6; DELETE FROM emptied WHERE id = 7;
       UPDATE parts SET d = (d + 37) % 100 WHERE id < 60; DELETE FROM parts WHERE id > 190;
       UPDATE bykey SET code = code || 'q', v = NULL WHERE id < 20; UPDATE bykey SET v = 'w' WHERE id = 5"#,
    r#"INSERT INTO whole SELECT n % 3, 'f', repeat(md5((n % 3)::text), 200) FROM generate_series(1, 9) n;
       DELETE FROM whole WHERE ctid IN (SELECT ctid FROM whole WHERE a = 1 LIMIT 3);
       INSERT INTO ident (v) SELECT 'x' FROM generate_series(1, 5); DELETE FROM ident WHERE id < 8;
       UPDATE doc SET body = repeat(md5(title), 280) WHERE id BETWEEN 20 AND 25; UPDATE doc SET title = 'late' WHERE id = 21"#,
    r#"DELETE FROM hist WHERE acc BETWEEN 200 AND 210;
       UPDATE acc SET id = id + 5000 WHERE id BETWEEN 200 AND 210; DELETE FROM hist WHERE acc > 250;
       UPDATE acc SET bal = 0, note = NULL WHERE id > 250; TRUNCATE ident;
       INSERT INTO ident (v) VALUES ('the only one')"#,
];

/// A moment of the source: what every table held, the position of the log and the clock.
pub struct Witness {
    pub tables: String,
    pub lsn: String,
    time: String,
}

/// Count and digest of every table.
pub fn tables(database: &Database) -> String {
    let statements = database.sql(
        "SELECT format('SELECT %L, count(*), sum(hashtextextended(t::text, 0)) FROM ONLY %s t;', oid::regclass, oid::regclass)
         FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY relname",
    );
    database.sql(&statements)
}

pub fn witness(scene: &Scene) -> Witness {
    Witness {
        tables: tables(&scene.database),
        lsn: scene.sql("SELECT pg_current_wal_insert_lsn()"),
        time: scene.sql(
            r#"SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), pg_sleep(0.01)"#,
        ),
    }
}

/// `restore latest --json` with these options, which lacks nothing.
pub fn restoring(scene: &Scene, target: &Database, options: &[&str]) -> Command {
    let mut restore = pgstow();
    restore
        .args(["restore", "latest", "--json", "--store", &scene.store()])
        .args(options)
        .env("BACKUP_TARGET_URL", target.url())
        .env("LOG_FORMAT", "text");
    restore
}

pub fn restored(scene: &Scene, target: &Database, options: &[&str]) -> Value {
    let report = succeed(&mut restoring(scene, target, options)).json();
    assert_eq!(report["status"], "restored", "{report}");
    report
}

pub fn refused(run: &Run, code: &str, what: &str) {
    let document = run.json();
    assert_eq!(document["error"]["code"], code, "{document}\n{}", run.stderr);
    let message = document["error"]["message"].as_str().unwrap();
    assert!(message.contains(what), "{message}");
}

/// The time without what follows the first column.
pub fn time(witness: &Witness) -> &str {
    witness.time.split(['|', '\t', '\n']).next().unwrap()
}

fn every_moment_is_restored_as_it_was(major: u32) {
    let scene = Scene::fresh(major);
    scene.sql(TABLES);
    scene.start();
    let mut moments = vec![witness(&scene)];
    for (number, phase) in PHASES.iter().enumerate() {
        scene.sql(phase);
        moments.push(witness(&scene));
        if number % 2 == 0 {
            scene.increment();
        }
    }
    scene.sql("UPDATE acc SET note = 'after the last moment'");
    scene.increment();
    for (number, moment) in moments.iter().enumerate() {
        let target = scene.server.database("moment");
        // Half of them by their position, half of them by their time.
        let asked = match number % 2 {
            0 => ["--to-lsn", &moment.lsn],
            _ => ["--to-time", time(moment)],
        };
        let report = restored(&scene, &target, &asked);
        assert_eq!(tables(&target), moment.tables, "moment {number}: {report}");
        assert!(
            report["moment"]["base"].as_str().unwrap().ends_with("-full"),
            "{report}"
        );
        let keys = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated";
        assert_eq!(target.sql(keys), "1");
        // No number is given twice.
        target.sql("INSERT INTO hist (acc) SELECT min(id) FROM acc");
    }
}

on_majors! { every_moment_is_restored_as_it_was: 15 18 }

#[test]
fn one_table_comes_back_beside_the_damaged_one() {
    let scene = Scene::fresh(18);
    scene.sql(TABLES);
    scene.start();
    scene.sql(PHASES[0]);
    scene.increment();
    let before = witness(&scene);
    let rows = |table: &str| {
        scene.sql(&format!(
            "SELECT count(*), sum(hashtextextended(t::text, 0)) FROM {table} t"
        ))
    };
    let acc = rows("acc");
    scene.sql("DELETE FROM acc WHERE id < 200");
    scene.increment();
    let options = [
        "--table",
        "public.acc",
        "--into",
        "recovered",
        "--to-time",
        time(&before),
    ];
    let planned = succeed(restoring(&scene, &scene.database, &options).arg("--dry-run")).json();
    assert_eq!(planned["status"], "planned");
    let moment = &planned["moment"];
    assert!(
        moment["stops_after"]["xid"].is_u64() && moment["stops_before"]["xid"].is_u64(),
        "{planned}"
    );
    let report = restored(&scene, &scene.database, &options);
    assert_eq!(rows("recovered.acc"), acc, "{report}");
    assert_eq!(
        (&report["compared"], &report["moment"]["tables_changed"]),
        (&1.into(), &1.into()),
        "{report}"
    );
    assert_eq!(report["copies"][0]["rows"], report["rows"], "{report}");
    // Into the damaged table itself.
    let into_place = [
        "--table",
        "public.acc",
        "--data-only",
        "--clean",
        "--to-time",
        time(&before),
    ];
    scene.sql("DROP TABLE hist");
    restored(&scene, &scene.database, &into_place);
    assert_eq!(rows("acc"), acc);
}

/// A standby does not say which transactions ran when its snapshot was taken, so nothing says which changes it lacks.
#[test]
fn a_full_backup_of_a_standby_is_no_base_while_transactions_run() {
    let settings = &["max_prepared_transactions=5"];
    let scene = Scene::with(18, settings);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY)");
    scene.start();
    let standby = scene.server.standby(settings);
    scene.sql("BEGIN; INSERT INTO orders VALUES (1); PREPARE TRANSACTION 'one'");
    scene.sql("INSERT INTO orders VALUES (2)");
    let place = |port| format!(":{port}/");
    let url = scene
        .database
        .url()
        .replace(&place(scene.server.port), &place(standby.port));
    let replayed = || psql(18, &url, "SELECT count(*) FROM orders");
    for _ in 0..100 {
        if replayed().trim() == "1" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let full = succeed(scene.command(&[]).env("DATABASE_URL", &url)).json();
    assert_eq!(
        (full["kind"].as_str(), full["rows"].as_u64()),
        (Some("full"), Some(1)),
        "{full}"
    );
    scene.sql("COMMIT PREPARED 'one'");
    scene.increment();
    let moment = scene.sql("SELECT pg_current_wal_insert_lsn()");
    scene.sql("INSERT INTO orders VALUES (3)");
    scene.increment();
    let target = scene.server.database("of_a_standby");
    let report = restored(&scene, &target, &["--to-lsn", &moment]);
    assert_eq!(
        target.sql("SELECT string_agg(id::text, ',' ORDER BY id) FROM orders"),
        "1,2",
        "{report}"
    );
    assert_ne!(report["moment"]["base"], full["id"], "{report}");
}

#[test]
fn a_moment_that_cannot_be_had_is_refused_with_the_nearest_ones() {
    let scene = Scene::fresh(18);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY, item text); INSERT INTO orders VALUES (0, 'before')");
    let before = witness(&scene);
    scene.start();
    scene.sql("INSERT INTO orders VALUES (1, 'one')");
    scene.increment();
    scene.sql("INSERT INTO orders VALUES (2, 'two')");
    let after = witness(&scene);
    let target = scene.server.database("never");
    let asked = |options: &[&str]| run(&mut restoring(&scene, &target, options));
    refused(
        &asked(&["--to-time", time(&before)]),
        "NOT_COVERED",
        "before the first moment",
    );
    refused(
        &asked(&["--to-lsn", &before.lsn]),
        "NOT_COVERED",
        "before the first moment",
    );
    refused(
        &asked(&["--to-lsn", &after.lsn]),
        "NOT_COVERED",
        "after the last moment",
    );
    refused(
        &asked(&["--to-time", "2999-01-01T00:00:00Z"]),
        "NOT_COVERED",
        "in the future",
    );
    refused(&asked(&["--to-time", "soon"]), "CONFIG", "is no time");
    refused(&asked(&["--allow-partial"]), "CONFIG", "--allow-partial");
    assert_eq!(
        target.sql("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"),
        "0"
    );
}

#[test]
fn a_table_that_the_increments_do_not_have_is_named_and_restored_only_on_request() {
    let scene = Scene::fresh(18);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY); CREATE UNLOGGED TABLE cache (id int PRIMARY KEY); INSERT INTO cache VALUES (1)");
    scene.start();
    scene.sql("INSERT INTO orders VALUES (1); INSERT INTO cache VALUES (2)");
    scene.increment();
    let moment = witness(&scene);
    scene.sql("INSERT INTO orders VALUES (2)");
    scene.increment();
    let target = scene.server.database("partly");
    let asked = ["--to-lsn", moment.lsn.as_str()];
    refused(
        &run(&mut restoring(&scene, &target, &asked)),
        "NOT_COVERED",
        "public.cache",
    );
    let report = restored(&scene, &target, &["--to-lsn", &moment.lsn, "--allow-partial"]);
    assert_eq!(report["moment"]["not_exact"][0]["what"], "public.cache", "{report}");
    assert_eq!(target.sql("SELECT id FROM orders"), "1");
}

/// pg_dump before 16 writes gzip, which the changes never have.
fn a_table_that_was_made_after_the_full_comes_from_its_baseline_and_changes(major: u32) {
    let scene = Scene::fresh(major);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (1)");
    scene.start();
    scene.sql("CREATE TABLE fresh (id serial PRIMARY KEY, v text); INSERT INTO fresh (v) VALUES ('a'), ('b')");
    scene.sql("ALTER TABLE orders ADD item text DEFAULT 'none'; UPDATE orders SET item = 'some'");
    let increment = scene.increment();
    let id = increment["id"].as_str().unwrap();
    succeed(pgstow().args(["verify", id, "--json", "--store", &scene.store()]));
    scene.sql(
        "UPDATE fresh SET v = 'c' WHERE id = 1; INSERT INTO fresh (v) VALUES ('d'); INSERT INTO orders VALUES (2)",
    );
    let moment = witness(&scene);
    scene.sql("DELETE FROM fresh");
    scene.increment();
    let target = scene.server.database("redefined");
    let report = restored(&scene, &target, &["--to-lsn", &moment.lsn]);
    assert_eq!(tables(&target), moment.tables, "{report}");
    assert!(
        report["moment"]["definitions_of"].as_str().unwrap().ends_with("-incr"),
        "{report}"
    );
    target.sql("INSERT INTO fresh (v) VALUES ('e')");
}

on_majors! { a_table_that_was_made_after_the_full_comes_from_its_baseline_and_changes: 15 18 }

/// No increment ends between the full and the moment.
#[test]
fn a_sequence_that_was_set_back_in_the_first_increment_keeps_the_position_that_the_full_has() {
    let scene = Scene::fresh(18);
    scene.sql(
        "CREATE TABLE orders (id serial PRIMARY KEY); INSERT INTO orders SELECT FROM generate_series(1, 9);
         CREATE TABLE other (id serial PRIMARY KEY)",
    );
    scene.start();
    scene.sql("INSERT INTO other DEFAULT VALUES");
    let moment = witness(&scene);
    scene.sql("ALTER TABLE other ADD v int; ALTER SEQUENCE orders_id_seq RESTART");
    scene.increment();
    let target = scene.server.database("first");
    let asked = ["--to-lsn", moment.lsn.as_str()];
    let refusal = run(&mut restoring(&scene, &target, &asked));
    refused(&refusal, "NOT_COVERED", "the sequence public.orders_id_seq");
    // It is no reason to refuse a table.
    let report = |table: &str| {
        let target = scene.server.database("first");
        let report = restored(&scene, &target, &["--to-lsn", &moment.lsn, "--table", table]);
        (target, report["warnings"].to_string())
    };
    let (target, warnings) = report("public.orders");
    assert!(warnings.contains("the sequence public.orders_id_seq"), "{warnings}");
    target.sql("INSERT INTO orders DEFAULT VALUES");
    assert_eq!(target.sql("SELECT max(id) FROM orders"), "10");
    let (_, warnings) = report("public.other");
    assert!(!warnings.contains("the sequence"), "{warnings}");
}

#[test]
fn a_sequence_that_was_set_back_after_the_moment_is_named_and_keeps_its_position_before_it() {
    let scene = Scene::fresh(18);
    scene.sql(
        "CREATE TABLE orders (id serial PRIMARY KEY); CREATE TABLE other (id serial PRIMARY KEY);
         CREATE SEQUENCE loose",
    );
    scene.start();
    scene.sql("INSERT INTO orders SELECT FROM generate_series(1, 9); INSERT INTO other DEFAULT VALUES");
    scene.increment();
    scene.sql("INSERT INTO other DEFAULT VALUES");
    let moment = witness(&scene);
    scene.sql("TRUNCATE orders RESTART IDENTITY; ALTER SEQUENCE other_id_seq RENAME TO renamed; DROP SEQUENCE loose");
    scene.increment();
    let target = scene.server.database("set_back");
    let asked = ["--to-lsn", moment.lsn.as_str()];
    refused(
        &run(&mut restoring(&scene, &target, &asked)),
        "NOT_COVERED",
        "the sequence public.orders_id_seq",
    );
    let report = restored(&scene, &target, &["--to-lsn", &moment.lsn, "--allow-partial"]);
    let not_exact = report["moment"]["not_exact"].as_array().unwrap();
    let names: Vec<&str> = not_exact.iter().map(|one| one["what"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["the sequence public.orders_id_seq", "the sequence public.loose"]
    );
    target.sql("INSERT INTO orders DEFAULT VALUES; INSERT INTO other DEFAULT VALUES");
    assert_eq!(target.sql("SELECT max(id) FROM orders"), "10");
    assert_eq!(target.sql("SELECT max(id) FROM other"), "3");
}
