//! Moments between a change of a definition and the increment that reads the table: exact where the stream proves it,
//! and else refused by name with the nearest exact moments.

use serde_json::Value;

use super::moment::{Witness, refused, restored, restoring, tables, time, witness};
use crate::job::increment::scene::Scene;
use crate::support::program::{pgstow, run, succeed};

const KEYS: &str = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated AND conparentid = 0";

/// The tables of the transactions that `changes --table` tells.
fn changed_in(scene: &Scene, table: &str) -> Vec<String> {
    let mut changes = pgstow();
    changes.args(["changes", "--json", "--table", table, "--store", &scene.store()]);
    let report = succeed(&mut changes).json();
    let transactions = report["transactions"].as_array().unwrap().iter();
    let tables = transactions.flat_map(|transaction| transaction["tables"].as_array().unwrap());
    let mut names: Vec<String> = tables.map(|table| table["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

fn a_new_partition_and_changed_tables_are_exact_at_every_moment_that_the_stream_proves(major: u32) {
    let scene = Scene::fresh(major);
    scene.sql(
        "CREATE TABLE ev (id int, day int, v text DEFAULT 'none', PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
         CREATE INDEX ev_v ON ev (v);
         CREATE TABLE ev_0 PARTITION OF ev FOR VALUES FROM (0) TO (100);
         CREATE TABLE notes (id int PRIMARY KEY, ev int, day int, FOREIGN KEY (ev, day) REFERENCES ev);
         CREATE TABLE packed (id int PRIMARY KEY, v text); INSERT INTO packed SELECT n, 'p' FROM generate_series(1, 9) n;
         CREATE TABLE wider (id int PRIMARY KEY, v int); INSERT INTO wider SELECT n, n FROM generate_series(1, 9) n;
         INSERT INTO ev SELECT n, n, 'first' FROM generate_series(1, 40) n",
    );
    scene.start();
    scene.sql("INSERT INTO ev VALUES (50, 50, 'before')");
    scene.increment();
    let mut moments = vec![witness(&scene)];
    scene.sql(
        "CREATE TABLE ev_1 PARTITION OF ev FOR VALUES FROM (100) TO (200); COMMENT ON TABLE ev_1 IS 'today';
         CREATE INDEX ON ev_1 (id); INSERT INTO ev SELECT n, 100 + n, 'new' FROM generate_series(1, 20) n;
         INSERT INTO notes VALUES (1, 5, 105)",
    );
    moments.push(witness(&scene));
    scene.sql("DELETE FROM ev WHERE id = 7; UPDATE ev SET v = 'u' WHERE id = 8");
    scene.sql("VACUUM FULL packed");
    scene.sql("UPDATE packed SET v = 'u' WHERE id = 3");
    moments.push(witness(&scene));
    scene.sql("UPDATE wider SET v = v + 1");
    let before = tables(&scene.database);
    scene.sql("ALTER TABLE wider ADD w int");
    scene.sql("INSERT INTO notes VALUES (2, 8, 108)");
    let unknown = witness(&scene);
    scene.sql("INSERT INTO wider VALUES (99, 99)");
    let gap = witness(&scene);
    scene.sql("INSERT INTO notes VALUES (3, 9, 109)");
    let read = witness(&scene);
    scene.increment();
    scene.sql("UPDATE wider SET v = 0; INSERT INTO ev VALUES (1000, 150, 'later')");
    moments.push(witness(&scene));
    scene.increment();
    for (number, moment) in moments.iter().enumerate() {
        let target = scene.server.database("moment");
        let report = restored(&scene, &target, &["--to-lsn", &moment.lsn]);
        assert_eq!(tables(&target), moment.tables, "moment {number}: {report}");
        assert_eq!(target.sql(KEYS), "1");
        // A partition that is there is one: its rows are found through its parent, and so is its index.
        let through = "SELECT count(*) FROM ev";
        let leaves = "SELECT count(*) FROM ONLY ev_0";
        let more = if number == 0 {
            String::new()
        } else {
            target.sql("SELECT count(*) FROM ONLY ev_1")
        };
        let sum = target.sql(leaves).parse::<u32>().unwrap() + more.parse::<u32>().unwrap_or(0);
        assert_eq!(target.sql(through), sum.to_string());
        if number > 0 {
            let attached = "SELECT count(*) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                JOIN pg_index x ON x.indrelid = 'ev_1'::regclass AND x.indexrelid = c.oid";
            assert_eq!(target.sql(attached), "2", "moment {number}");
            assert_eq!(target.sql("SELECT obj_description('ev_1'::regclass)"), "today");
        }
        drop(target);
    }
    // Between the last row without the new column and the reading of the table.
    let target = scene.server.database("unknown");
    let asked = ["--to-lsn", unknown.lsn.as_str()];
    refused(
        &run(&mut restoring(&scene, &target, &asked)),
        "NOT_COVERED",
        "public.wider: ",
    );
    let target = scene.server.database("never");
    let asked = ["--to-lsn", gap.lsn.as_str()];
    let run = run(&mut restoring(&scene, &target, &asked));
    refused(
        &run,
        "NOT_COVERED",
        "public.wider: its columns changed; it is exact up to ",
    );
    let planned = succeed(restoring(&scene, &target, &asked).arg("--dry-run")).json();
    let not_exact = planned["moment"]["not_exact"].as_array().unwrap();
    assert_eq!(not_exact.len(), 1, "{planned}");
    for nearest in ["before", "after"] {
        let target = scene.server.database("nearest");
        let lsn = not_exact[0][nearest].as_str().unwrap();
        restored(&scene, &target, &["--to-lsn", lsn]);
        let expected = if nearest == "before" { &before } else { &read.tables };
        assert_eq!(&tables(&target), expected, "{nearest}");
    }
    // The partitions are changed under their own names.
    assert_eq!(changed_in(&scene, "public.ev"), ["ev_0", "ev_1"]);
    assert_eq!(changed_in(&scene, "public.ev_1"), ["ev_1"]);
}

on_majors! { a_new_partition_and_changed_tables_are_exact_at_every_moment_that_the_stream_proves: 15 18 }

#[test]
fn what_the_stream_does_not_prove_is_named_with_the_nearest_exact_moments() {
    let scene = Scene::fresh(18);
    scene.sql(
        "CREATE TABLE ev (id int, day int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
         CREATE TABLE ev_old PARTITION OF ev FOR VALUES FROM (0) TO (100);
         CREATE TABLE shout (id int PRIMARY KEY, v text); INSERT INTO shout VALUES (1, 'a'), (2, 'b');
         CREATE TABLE kept (id int PRIMARY KEY)",
    );
    scene.start();
    scene.sql("INSERT INTO ev VALUES (1, 1)");
    scene.increment();
    let before = witness(&scene);
    scene.sql(
        "CREATE TABLE ev_2 (LIKE ev INCLUDING ALL); INSERT INTO ev_2 VALUES (1, 250);
         ALTER TABLE ev ATTACH PARTITION ev_2 FOR VALUES FROM (200) TO (300); INSERT INTO ev VALUES (2, 260);
         ALTER TABLE shout ALTER v TYPE text USING upper(v);
         DROP TABLE ev_old; INSERT INTO kept VALUES (1)",
    );
    let inside = witness(&scene);
    scene.sql("INSERT INTO kept VALUES (2)");
    let read = witness(&scene);
    scene.increment();
    let target = scene.server.database("never");
    let asked = ["--to-lsn", inside.lsn.as_str()];
    refused(
        &run(&mut restoring(&scene, &target, &asked)),
        "NOT_COVERED",
        "public.ev_2: ",
    );
    let planned = succeed(restoring(&scene, &target, &asked).arg("--dry-run")).json();
    let not_exact = planned["moment"]["not_exact"].as_array().unwrap();
    let names: std::collections::BTreeSet<&str> = not_exact.iter().map(|one| one["what"].as_str().unwrap()).collect();
    assert_eq!(
        names.into_iter().collect::<Vec<_>>(),
        ["public.ev_2", "public.ev_old", "public.shout"],
        "{planned}"
    );
    let lsn = |one: &Value, field: &str| one[field].as_str().unwrap().parse::<pgstow::format::Lsn>().unwrap();
    let last = not_exact.iter().map(|one| lsn(one, "after")).max().unwrap();
    let first = not_exact.iter().map(|one| lsn(one, "before")).min().unwrap();
    for (position, expected) in [(first, &before.tables), (last, &read.tables)] {
        let target = scene.server.database("nearest");
        restored(&scene, &target, &["--to-lsn", &position.to_string()]);
        assert_eq!(&tables(&target), expected, "{position}");
    }
    // The others can be had at the moment itself.
    let one = ["--to-lsn", inside.lsn.as_str(), "--table", "public.kept"];
    let target = scene.server.database("kept");
    restored(&scene, &target, &one);
    assert_eq!(target.sql("SELECT count(*) FROM kept"), "1");
}

/// The rows that replace them prove nothing about those before.
fn values_that_alter_table_rewrote_are_not_exact_though_all_of_them_are_gone(major: u32) {
    let scene = Scene::fresh(major);
    scene.sql(
        "CREATE TABLE shout (id int PRIMARY KEY, v text); INSERT INTO shout VALUES (1, 'a'), (2, 'b');
         CREATE TABLE worth (id int PRIMARY KEY, v int); INSERT INTO worth VALUES (1, 1), (2, 2);
         CREATE TABLE emptied (id int PRIMARY KEY, v int); INSERT INTO emptied VALUES (1, 1), (2, 2);
         CREATE TABLE at_once (id int PRIMARY KEY, v int); INSERT INTO at_once VALUES (1, 1), (2, 2);
         CREATE TABLE packed (id int PRIMARY KEY, v int); INSERT INTO packed VALUES (1, 1), (2, 2)",
    );
    scene.start();
    scene.sql("INSERT INTO worth VALUES (3, 3)");
    scene.increment();
    scene.sql(
        "ALTER TABLE shout ALTER v TYPE text USING upper(v); ALTER TABLE worth ALTER v TYPE int USING v + 1000;
         ALTER TABLE emptied ALTER v TYPE int USING v + 1000",
    );
    scene.sql("BEGIN; ALTER TABLE at_once ALTER v TYPE int USING v + 1000; TRUNCATE at_once; COMMIT");
    scene.sql("VACUUM FULL packed");
    let inside = witness(&scene);
    scene.sql("DELETE FROM shout; INSERT INTO shout VALUES (1, 'anew'); UPDATE worth SET v = id; TRUNCATE emptied");
    scene.sql("INSERT INTO at_once VALUES (1, 1); INSERT INTO emptied VALUES (1, 1); UPDATE packed SET v = 0");
    scene.increment();
    let target = scene.server.database("never");
    let asked = ["--to-lsn", inside.lsn.as_str()];
    let planned = succeed(restoring(&scene, &target, &asked).arg("--dry-run")).json();
    let not_exact = planned["moment"]["not_exact"].as_array().unwrap();
    let names: Vec<&str> = not_exact.iter().map(|one| one["what"].as_str().unwrap()).collect();
    let expected = ["public.at_once", "public.emptied", "public.shout", "public.worth"];
    assert_eq!(names, expected, "{planned}");
    let target = scene.server.database("packed");
    restored(&scene, &target, &["--to-lsn", &inside.lsn, "--table", "public.packed"]);
    assert_eq!(target.sql("SELECT sum(v) FROM packed"), "3");
}

on_majors! { values_that_alter_table_rewrote_are_not_exact_though_all_of_them_are_gone: 15 18 }

/// Without a transaction around a change of a definition, the stream does not tell whether a time is before it.
fn a_time_that_may_lie_on_either_side_of_a_change_is_not_exact_for_its_table(major: u32) {
    let scene = Scene::fresh(major);
    scene.sql(
        "CREATE TYPE feel AS ENUM ('low', 'high');
         CREATE TABLE shout (id int PRIMARY KEY, v text); INSERT INTO shout VALUES (1, 'a'), (2, 'b');
         CREATE TABLE felt (id int PRIMARY KEY, f feel); INSERT INTO felt VALUES (1, 'low'), (2, 'high');
         CREATE TABLE kept (id int PRIMARY KEY)",
    );
    scene.start();
    scene.sql("INSERT INTO kept VALUES (1)");
    let before = witness(&scene);
    scene.sql("ALTER TABLE shout ALTER v TYPE text USING upper(v); ALTER TYPE feel RENAME VALUE 'low' TO 'deep'");
    let after = witness(&scene);
    scene.increment();
    let idle = witness(&scene);
    scene.sql("INSERT INTO kept VALUES (2)");
    scene.increment();
    let quiet = witness(&scene);
    scene.sql("ALTER TABLE shout ALTER v TYPE text USING lower(v)");
    scene.sql("INSERT INTO kept VALUES (3)");
    scene.increment();
    let not_exact = |moment: &Witness| {
        let target = scene.server.database("never");
        let asked = ["--to-time", time(moment)];
        let refusal = run(&mut restoring(&scene, &target, &asked));
        refused(&refusal, "NOT_COVERED", "public.shout: ");
        let plan = succeed(restoring(&scene, &target, &asked).arg("--dry-run")).json();
        plan["moment"]["not_exact"].as_array().unwrap().clone()
    };
    let names = |not_exact: &[Value]| {
        let names = not_exact.iter().map(|one| one["what"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    // The change lies after the first, before the second, and the stream knows neither.
    for moment in [&before, &after] {
        assert_eq!(names(&not_exact(moment)), ["public.felt", "public.shout"]);
    }
    // Up to here it is exact: the change of its columns came later.
    let named = not_exact(&quiet);
    assert_eq!(names(&named), ["public.shout"]);
    let target = scene.server.database("exact");
    restored(&scene, &target, &["--to-lsn", named[0]["before"].as_str().unwrap()]);
    assert_eq!(tables(&target), quiet.tables);
    // An increment was made between the change and this time.
    let target = scene.server.database("exact");
    restored(&scene, &target, &["--to-time", time(&idle)]);
    assert_eq!(tables(&target), idle.tables);
}

on_majors! { a_time_that_may_lie_on_either_side_of_a_change_is_not_exact_for_its_table: 15 18 }
