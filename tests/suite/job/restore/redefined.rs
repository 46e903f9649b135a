//! Tables whose columns, names or keys change between increments: each moment is restored as it was, or refused by name.

use serde_json::Value;

use super::moment::{refused, restored, restoring, tables, witness};
use crate::job::increment::scene::Scene;
use crate::support::database::Database;
use crate::support::program::{run, succeed};

/// What of a moment is not exact, by name, as `--dry-run` says it.
fn not_exact(scene: &Scene, target: &Database, lsn: &str) -> Vec<(String, Value)> {
    let asked = ["--to-lsn", lsn, "--dry-run"];
    let planned = succeed(&mut restoring(scene, target, &asked)).json();
    let found = planned["moment"]["not_exact"].as_array().cloned().unwrap_or_default();
    let mut found: Vec<(String, Value)> = found
        .into_iter()
        .map(|one| (one["what"].as_str().unwrap().to_owned(), one))
        .collect();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

fn names(found: &[(String, Value)]) -> Vec<&str> {
    found.iter().map(|(name, _)| name.as_str()).collect()
}

/// The last position of all, or the first one, at which these are exact.
fn nearest(found: &[(String, Value)], which: &str) -> String {
    let all = found.iter().filter_map(|(_, one)| one[which].as_str());
    let all = all.map(|lsn| lsn.parse::<pgstow::format::Lsn>().unwrap());
    let nearest = if which == "before" { all.min() } else { all.max() };
    nearest.unwrap().to_string()
}

fn refused_at(scene: &Scene, lsn: &str, named: &[&str]) -> Vec<(String, Value)> {
    let target = scene.server.database("never");
    let found = not_exact(scene, &target, lsn);
    assert_eq!(names(&found), named);
    refused(
        &run(&mut restoring(scene, &target, &["--to-lsn", lsn])),
        "NOT_COVERED",
        named[0],
    );
    found
}

const TABLES: [&str; 7] = ["added", "called", "dropped", "moved", "quiet", "renamed", "shuttle"];

fn columns_and_names_that_change_are_restored_as_they_were_or_the_table_is_named(major: u32) {
    let scene = Scene::fresh(major);
    for table in TABLES {
        scene.sql(&format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, v text, n int); INSERT INTO {table} VALUES (1, 'a', 1), (2, 'b', 2)"
        ));
    }
    scene.sql("CREATE TABLE kept (id int PRIMARY KEY); CREATE SCHEMA away");
    scene.start();
    let all = |script: &str| {
        for table in TABLES {
            scene.sql(&script.replace('#', table));
        }
    };
    all("INSERT INTO # VALUES (3, 'c', 3)");
    scene.increment();
    // In one transaction, so that all of them are exact up to the same position.
    let updated: Vec<String> = TABLES
        .iter()
        .map(|table| format!("UPDATE {table} SET v = 'x' WHERE id = 1;"))
        .collect();
    scene.sql(&format!("BEGIN; {} COMMIT", updated.concat()));
    let before = tables(&scene.database);
    scene.sql(
        "ALTER TABLE added ADD w int DEFAULT 7; ALTER TABLE dropped DROP v; ALTER TABLE renamed RENAME v TO w;
         ALTER TABLE called RENAME TO other; ALTER TABLE quiet RENAME v TO \"W \"\"w\"; ALTER TABLE moved RENAME n TO id2;
         ALTER TABLE shuttle RENAME v TO w; ALTER TABLE shuttle ADD y int",
    );
    scene.sql("INSERT INTO kept VALUES (1)");
    let between = witness(&scene);
    scene.sql(
        "INSERT INTO added VALUES (4, 'd', 4, 8); INSERT INTO dropped VALUES (4, 4); INSERT INTO renamed VALUES (4, 'd', 4);
         UPDATE other SET v = 'y'; DELETE FROM moved WHERE id = 2; UPDATE shuttle SET y = 5; ALTER TABLE shuttle DROP y;
         ALTER TABLE shuttle RENAME w TO v",
    );
    let inside = witness(&scene);
    scene.sql("INSERT INTO kept VALUES (2)");
    let behind = witness(&scene);
    scene.increment();
    let changed = [
        "public.added",
        "public.dropped",
        "public.moved",
        "public.other",
        "public.quiet",
        "public.renamed",
        "public.shuttle",
    ];
    let found = refused_at(&scene, &between.lsn, &changed);
    refused_at(&scene, &inside.lsn, &changed);
    for (which, expected) in [("before", &before), ("after", &behind.tables)] {
        let target = scene.server.database("nearest");
        restored(&scene, &target, &["--to-lsn", &nearest(&found, which)]);
        assert_eq!(&tables(&target), expected, "{which}");
    }
    // Rows with the names from before and after are one table's.
    scene.sql(
        "UPDATE renamed SET w = w || '!' WHERE id IN (1, 4); INSERT INTO other VALUES (9, 'new', 9); UPDATE moved SET id2 = 0;
         UPDATE shuttle SET v = 'home'; DELETE FROM added WHERE id = 1; UPDATE dropped SET n = 5",
    );
    let later = witness(&scene);
    scene.sql("INSERT INTO kept VALUES (3)");
    scene.increment();
    scene.sql("UPDATE quiet SET \"W \"\"w\" = 'loud'; ALTER TABLE renamed RENAME w TO third");
    scene.sql("UPDATE renamed SET third = third || '?'");
    scene.increment();
    let last = witness(&scene);
    scene.sql("INSERT INTO kept VALUES (4)");
    scene.increment();
    for moment in [&later, &last] {
        let target = scene.server.database("moment");
        restored(&scene, &target, &["--to-lsn", &moment.lsn]);
        assert_eq!(tables(&target), moment.tables);
        let columns = "SELECT string_agg(attname::text, ',' ORDER BY attrelid::regclass::text, attnum) FROM pg_attribute
            WHERE attrelid IN ('other'::regclass, 'quiet'::regclass, 'shuttle'::regclass) AND attnum > 0 AND NOT attisdropped";
        assert_eq!(target.sql(columns), scene.sql(columns));
    }
    // One of them alone, beside the others.
    restored(
        &scene,
        &scene.database,
        &["--to-lsn", &later.lsn, "--table", "public.quiet", "--into", "back"],
    );
    assert_eq!(scene.sql("SELECT \"W \"\"w\" FROM back.quiet WHERE id = 1"), "x");
}

on_majors! { columns_and_names_that_change_are_restored_as_they_were_or_the_table_is_named: 15 18 }

/// Rows that no longer fit what the stream says of them.
fn a_table_in_its_gap_is_restored_as_it_was_before_it_if_that_is_allowed(major: u32) {
    let scene = Scene::fresh(major);
    scene.sql(
        "CREATE TABLE shout (id int, v text); ALTER TABLE shout REPLICA IDENTITY FULL; INSERT INTO shout VALUES (1, 'a'), (2, 'b');
         CREATE TABLE wider (id int PRIMARY KEY, v text); INSERT INTO wider VALUES (1, 'a'), (2, 'b');
         CREATE TABLE gone (id int PRIMARY KEY); INSERT INTO gone VALUES (1); CREATE TABLE kept (id int PRIMARY KEY);
         CREATE TABLE above (id int PRIMARY KEY); INSERT INTO above VALUES (1), (2);
         CREATE TABLE below (id int PRIMARY KEY, above int REFERENCES above DEFERRABLE);
         INSERT INTO below VALUES (1, 1), (2, 2)",
    );
    scene.start();
    scene.sql("INSERT INTO shout VALUES (3, 'c'); INSERT INTO wider VALUES (3, 'c')");
    scene.increment();
    scene.sql(
        "ALTER TABLE shout ALTER v TYPE text USING upper(v); UPDATE shout SET v = v || '!' WHERE id < 3;
         DELETE FROM shout WHERE id = 3; UPDATE wider SET v = 'x' WHERE id = 1; ALTER TABLE wider ALTER id TYPE bigint, ADD w int;
         UPDATE wider SET w = 1; DELETE FROM wider WHERE id = 2; CREATE TABLE fresh (id int PRIMARY KEY);
         INSERT INTO fresh VALUES (1); DROP TABLE gone; INSERT INTO kept VALUES (1); ALTER TABLE below ALTER id TYPE bigint;
         DELETE FROM below WHERE above = 2; DELETE FROM above WHERE id = 2",
    );
    let inside = witness(&scene);
    scene.sql("INSERT INTO kept VALUES (2)");
    scene.increment();
    refused_at(
        &scene,
        &inside.lsn,
        &[
            "public.below",
            "public.fresh",
            "public.gone",
            "public.shout",
            "public.wider",
        ],
    );
    let target = scene.server.database("partly");
    let report = restored(&scene, &target, &["--to-lsn", &inside.lsn, "--allow-partial"]);
    assert_eq!(target.sql("SELECT * FROM kept"), "1", "{report}");
    let rows = |table: &str| target.sql(&format!("SELECT string_agg(v, ',' ORDER BY id) FROM {table}"));
    assert_eq!(
        (rows("shout"), rows("wider")),
        ("a,b,c".into(), "a,b,c".into()),
        "{report}"
    );
    assert_eq!(target.sql("SELECT * FROM gone"), "1");
    // A row of before refers to one that is gone by now.
    let rows = "SELECT (SELECT string_agg(id::text, ',') FROM above), (SELECT string_agg(above::text, ',') FROM below)";
    assert_eq!(target.sql(rows), "1|1,2");
    assert_eq!(
        target.sql("SELECT convalidated FROM pg_constraint WHERE contype = 'f'"),
        "f"
    );
}

on_majors! { a_table_in_its_gap_is_restored_as_it_was_before_it_if_that_is_allowed: 15 18 }

#[test]
fn a_table_whose_updates_do_not_arrive_is_exact_only_while_rows_are_added() {
    let scene = Scene::fresh(18);
    scene.sql("CREATE TABLE log (v text); INSERT INTO log VALUES ('a')");
    scene.start();
    scene.sql("INSERT INTO log VALUES ('b'); UPDATE log SET v = 'c' WHERE v = 'a'");
    let increment = scene.increment();
    let end = scene.manifest(&increment).increment.unwrap().stream.to;
    // Between the reading of the table and this position, rows may have been updated.
    refused_at(&scene, &end.to_string(), &["public.log"]);
    scene.sql("INSERT INTO log VALUES ('d')");
    let moment = witness(&scene);
    scene.sql("INSERT INTO log VALUES ('e')");
    scene.increment();
    let target = scene.server.database("grown");
    restored(&scene, &target, &["--to-lsn", &moment.lsn]);
    assert_eq!(tables(&target), moment.tables);
}

/// An increment from before the full is on the way because a transaction was open when the full was made.
#[test]
fn definitions_are_never_older_than_the_full_backup() {
    let scene = Scene::with(18, &["max_prepared_transactions=5"]);
    scene.sql("CREATE TABLE orders (id int PRIMARY KEY, v text); CREATE TABLE open (id int PRIMARY KEY)");
    scene.start();
    // So the full needs the increment before it.
    scene.sql("BEGIN; INSERT INTO open VALUES (1); PREPARE TRANSACTION 'one'");
    scene
        .sql("INSERT INTO orders VALUES (2, 'b'); CREATE VIEW old AS SELECT 1; CREATE TABLE gone (id int PRIMARY KEY)");
    succeed(
        scene
            .command(&["--kind", "incremental"])
            .env("BACKUP_LOCK_WAIT_SECONDS", "1"),
    );
    scene.sql(
        "DROP VIEW old; CREATE VIEW new AS SELECT 2; ALTER TABLE orders RENAME v TO w; ALTER TABLE orders ADD x int;
         INSERT INTO orders VALUES (3, 'c', 3); DROP TABLE gone",
    );
    let full = scene.backup(&[]);
    scene.sql("COMMIT PREPARED 'one'");
    scene.sql("INSERT INTO orders VALUES (4, 'd', 4)");
    let moment = witness(&scene);
    scene.sql("INSERT INTO orders VALUES (5, 'e', 5)");
    scene.increment();
    let target = scene.server.database("since");
    let report = restored(&scene, &target, &["--to-lsn", &moment.lsn, "--allow-partial"]);
    assert_eq!(report["moment"]["base"], full["id"], "{report}");
    assert_eq!(
        target.sql("SELECT relname FROM pg_class WHERE relkind = 'v' AND relname IN ('old', 'new')"),
        "new"
    );
    assert_eq!(target.sql("SELECT count(x) FROM orders"), "1", "{report}");
}

/// Only the archive knows which tables are partitioned: a text may hold anything.
fn rows_are_not_lost_to_the_text_of_a_default(major: u32) {
    let scene = Scene::fresh(major);
    scene.sql(
        "CREATE TABLE texts (id int PRIMARY KEY, v text DEFAULT E'a\nPARTITION BY RANGE (id)');
         CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (100)",
    );
    scene.start();
    scene.sql("INSERT INTO texts VALUES (1); INSERT INTO parts VALUES (1)");
    scene.increment();
    scene.sql("CREATE VIEW more AS SELECT 1; INSERT INTO texts VALUES (2)");
    scene.increment();
    scene.sql("INSERT INTO texts VALUES (3); INSERT INTO parts VALUES (2)");
    let moment = witness(&scene);
    scene.sql("INSERT INTO texts VALUES (4)");
    scene.increment();
    let target = scene.server.database("texts");
    let report = restored(&scene, &target, &["--to-lsn", &moment.lsn]);
    assert!(report["moment"]["definitions_of"].as_str().unwrap().ends_with("-incr"));
    assert_eq!(tables(&target), moment.tables, "{report}");
}

on_majors! { rows_are_not_lost_to_the_text_of_a_default: 15 18 }

/// The stream has the key without the computed column, so that several rows seem to be the same one.
fn a_key_with_a_generated_column_does_not_end_a_restore(major: u32) {
    let scene = Scene::fresh(major);
    scene.sql(
        "CREATE TABLE computed (grp int, n int, g int GENERATED ALWAYS AS (n * 2) STORED, PRIMARY KEY (grp, g));
         CREATE TABLE chosen (grp int NOT NULL, n int, g int GENERATED ALWAYS AS (n * 2) STORED NOT NULL);
         CREATE UNIQUE INDEX by_g ON chosen (grp, g); ALTER TABLE chosen REPLICA IDENTITY USING INDEX by_g;
         INSERT INTO computed VALUES (1, 1); INSERT INTO chosen VALUES (1, 1)",
    );
    scene.start();
    scene.sql("INSERT INTO computed VALUES (1, 2), (1, 3); INSERT INTO chosen VALUES (1, 2), (1, 3)");
    scene.increment();
    scene.sql("INSERT INTO computed VALUES (1, 7), (1, 8); INSERT INTO chosen VALUES (1, 7), (1, 8)");
    let moment = witness(&scene);
    scene.sql("INSERT INTO computed VALUES (1, 4); INSERT INTO chosen VALUES (1, 4)");
    scene.increment();
    let target = scene.server.database("computed");
    restored(&scene, &target, &["--to-lsn", &moment.lsn]);
    assert_eq!(tables(&target), moment.tables);
    // The application's updates go on, and are found.
    scene.sql("UPDATE computed SET n = n + 10; DELETE FROM chosen WHERE n = 1");
    scene.increment();
    scene.sql("INSERT INTO computed VALUES (1, 9); INSERT INTO chosen VALUES (1, 9)");
    let moment = witness(&scene);
    scene.sql("INSERT INTO computed VALUES (1, 5); INSERT INTO chosen VALUES (1, 5)");
    scene.increment();
    let target = scene.server.database("again");
    restored(&scene, &target, &["--to-lsn", &moment.lsn]);
    assert_eq!(tables(&target), moment.tables);
}

on_majors! { a_key_with_a_generated_column_does_not_end_a_restore: 15 18 }

/// What is made later in an increment is not there before.
fn a_moment_before_new_partitions_of_the_same_increment_is_exact(major: u32) {
    let scene = Scene::fresh(major);
    scene.sql(
        "CREATE TABLE ev (id int, day int, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
         CREATE TABLE ev_0 PARTITION OF ev FOR VALUES FROM (0) TO (100);
         CREATE TABLE loose (day int) PARTITION BY RANGE (day);
         CREATE TABLE loose_0 PARTITION OF loose FOR VALUES FROM (0) TO (100); CREATE TABLE kept (id int PRIMARY KEY)",
    );
    scene.start();
    scene.sql("INSERT INTO ev VALUES (1, 1)");
    scene.increment();
    scene.sql("INSERT INTO ev VALUES (2, 2); INSERT INTO kept VALUES (1)");
    let moment = witness(&scene);
    scene.sql("INSERT INTO kept VALUES (2)");
    for script in [
        "CREATE TABLE ev_1 PARTITION OF ev FOR VALUES FROM (100) TO (200); INSERT INTO ev VALUES (1, 150)",
        "CREATE TABLE ev_2 PARTITION OF ev FOR VALUES FROM (200) TO (300)",
        "CREATE TABLE ev_3 (LIKE ev INCLUDING ALL); ALTER TABLE ev ATTACH PARTITION ev_3 FOR VALUES FROM (300) TO (400);
         INSERT INTO ev VALUES (1, 350)",
        "CREATE TABLE loose_1 PARTITION OF loose FOR VALUES FROM (100) TO (200); INSERT INTO loose VALUES (150)",
        "CREATE TABLE ev_4 PARTITION OF ev FOR VALUES FROM (400) TO (500) PARTITION BY RANGE (day);
         CREATE TABLE ev_4a PARTITION OF ev_4 FOR VALUES FROM (400) TO (450); INSERT INTO ev VALUES (1, 401)",
    ] {
        scene.sql(script);
    }
    scene.increment();
    let target = scene.server.database("before");
    assert_eq!(names(&not_exact(&scene, &target, &moment.lsn)), [""; 0]);
    restored(&scene, &target, &["--to-lsn", &moment.lsn]);
    assert_eq!(tables(&target), moment.tables);
}

on_majors! { a_moment_before_new_partitions_of_the_same_increment_is_exact: 15 18 }
