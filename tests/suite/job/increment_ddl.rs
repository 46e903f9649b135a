//! What increments say about tables whose definitions change between them.

mod chain;
mod replayed;

use chain::Chain;
use replayed::Replayed;
use serde_json::json;

fn a_table_that_stays_is_exact_and_nothing_is_stored_beside_the_changes(major: u32) {
    let chain = Chain::begin(major, "CREATE TABLE t (id int PRIMARY KEY, v text)");
    chain.sql("INSERT INTO t VALUES (1, 'a'); UPDATE t SET v = 'b'");
    let increment = chain.increment();
    assert_eq!(increment.states(), ["t exact"]);
    assert_eq!(increment.baselines(), [""; 0]);
    assert_eq!(increment.roles(), ["catalog", "changes"]);
}

on_majors! { a_table_that_stays_is_exact_and_nothing_is_stored_beside_the_changes: 15 18 }

fn a_day_of_partitions_ends_with_every_leaf_covered(major: u32) {
    let chain = Chain::begin(
        major,
        "CREATE TABLE ev (id int, day int, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
         CREATE TABLE ev_default PARTITION OF ev DEFAULT;
         CREATE TABLE ev_0 PARTITION OF ev FOR VALUES FROM (0) TO (100);
         CREATE TABLE ev_1 PARTITION OF ev FOR VALUES FROM (100) TO (200)",
    );
    chain.sql("INSERT INTO ev SELECT g, g % 200, 'v' FROM generate_series(1, 400) g");
    chain.sql(
        "CREATE TABLE ev_2 PARTITION OF ev FOR VALUES FROM (200) TO (300);
         INSERT INTO ev SELECT 5000 + g, 200 + g, 'new' FROM generate_series(1, 90) g;
         UPDATE ev SET v = v || 'u' WHERE id % 7 = 0;
         CREATE TABLE ev_3 (LIKE ev INCLUDING ALL);
         INSERT INTO ev_3 VALUES (9999, 399, 'from before it was attached');
         ALTER TABLE ev ATTACH PARTITION ev_3 FOR VALUES FROM (300) TO (400);
         INSERT INTO ev SELECT 9000 + g, 360, 'late' FROM generate_series(1, 20) g;
         ALTER TABLE ev DETACH PARTITION ev_0; INSERT INTO ev_0 VALUES (7777, 7, 'detached');
         DROP TABLE ev_1",
    );
    let increment = chain.increment();
    assert_eq!(increment.state("ev_default"), "exact");
    for new in ["ev_2", "ev_3"] {
        assert_eq!(increment.state(new), "exact with a gap");
        assert_eq!(increment.baseline(new)["proof"], "from-nothing");
        assert_eq!(increment.rows(new, "id"), chain.rows(new, "id"));
    }
    assert_eq!(increment.state("ev_1"), "exact with a gap");
    assert_eq!(increment.coverage("ev_1")["is_gone"], json!(true));
    // It is published by its own entry since this increment.
    assert_eq!(increment.state("ev_0"), "exact with a gap");
    assert_eq!(increment.rows("ev_0", "id"), chain.rows("ev_0", "id"));
    chain.sql("INSERT INTO ev_0 VALUES (7778, 8, 'again'); INSERT INTO ev VALUES (1, 250, 'x')");
    let next = chain.increment();
    assert_eq!(
        next.states(),
        ["ev_0 exact", "ev_2 exact", "ev_3 exact", "ev_default exact"]
    );
}

on_majors! { a_day_of_partitions_ends_with_every_leaf_covered: 15 18 }

fn a_new_partition_without_rows_from_before_can_be_replayed_from_nothing(major: u32) {
    let chain = Chain::begin(
        major,
        "CREATE TABLE ev (id int, day int, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)",
    );
    chain.sql(
        "CREATE TABLE ev_2 PARTITION OF ev FOR VALUES FROM (200) TO (300);
         INSERT INTO ev SELECT g, 200 + g, 'new' FROM generate_series(1, 90) g; DELETE FROM ev WHERE id < 5;
         CREATE TABLE ev_3 (LIKE ev INCLUDING ALL); INSERT INTO ev_3 VALUES (9999, 399, 'before');
         ALTER TABLE ev ATTACH PARTITION ev_3 FOR VALUES FROM (300) TO (400); INSERT INTO ev VALUES (1, 300, 'after')",
    );
    let increment = chain.increment();
    let replayed = |name: &str| {
        let mut replayed = Replayed::nothing();
        replayed.hear(&increment, increment.oid(name));
        replayed.rows()
    };
    assert_eq!(replayed("ev_2"), increment.rows("ev_2", "id"));
    assert_ne!(replayed("ev_3"), increment.rows("ev_3", "id"));
}

on_majors! { a_new_partition_without_rows_from_before_can_be_replayed_from_nothing: 15 18 }

/// Without the wait for older transactions, most of these tables would differ.
fn new_tables_with_writers_in_flight_equal_their_baseline_and_the_stream(major: u32) {
    const TABLES: usize = 6;
    let chain = Chain::begin(major, "CREATE TABLE other (id int PRIMARY KEY)");
    for number in 0..TABLES {
        chain.sql(&format!(
            "CREATE TABLE n{number} (id int PRIMARY KEY, v text);
             INSERT INTO n{number} SELECT g, 'x' FROM generate_series(1, 50) g"
        ));
    }
    let writers: Vec<_> = (1..=4)
        .map(|writer| {
            let script = format!(
                "DO $$ DECLARE t text; BEGIN FOR turn IN 1..60 LOOP
                   FOR step IN 1..3 LOOP
                     t := 'n' || floor(random() * {TABLES})::int;
                     EXECUTE format('INSERT INTO %I VALUES (%s, ''w'')', t, {writer} * 100000 + turn * 10 + step);
                     EXECUTE format('UPDATE %I SET v = v || ''u'' WHERE id = %s', t, 1 + floor(random() * 12) * 4 + {writer} - 1);
                     EXECUTE format('DELETE FROM %I WHERE id = %s', t, {writer} * 100000 + (turn - 3) * 10 + step);
                     PERFORM pg_sleep(random() * 0.03);
                   END LOOP; COMMIT;
                 END LOOP; END $$"
            );
            let url = chain.url();
            std::thread::spawn(move || crate::support::database::psql(major, &url, &script))
        })
        .collect();
    std::thread::sleep(std::time::Duration::from_millis(700));
    let first = chain.increment();
    let mut all = vec![first];
    all.push(chain.increment());
    writers.into_iter().for_each(|writer| drop(writer.join().unwrap()));
    chain.sql("INSERT INTO other VALUES (1)");
    all.push(chain.increment());
    for number in 0..TABLES {
        let name = format!("n{number}");
        assert_eq!(all[0].state(&name), "exact with a gap", "{name}");
        let mut replayed = Replayed::of(&all[0], &name);
        for increment in &all {
            replayed.hear(increment, all[0].oid(&name));
        }
        assert_eq!(replayed.rows(), chain.rows(&name, "id"), "{name}");
    }
}

on_majors! { new_tables_with_writers_in_flight_equal_their_baseline_and_the_stream: 15 18 }

fn a_rewrite_that_the_stream_does_not_show_is_read_whole(major: u32) {
    let chain = Chain::begin(
        major,
        "CREATE TABLE upper (id int PRIMARY KEY, v text); INSERT INTO upper VALUES (1, 'a');
         CREATE TABLE bigger (id int PRIMARY KEY, v int); INSERT INTO bigger VALUES (1, 2);
         CREATE TABLE vacuumed (id int PRIMARY KEY, v text); INSERT INTO vacuumed VALUES (1, 'a');
         CREATE TABLE clustered (id int PRIMARY KEY, v text); INSERT INTO clustered VALUES (1, 'a');
         CREATE TABLE emptied (id int PRIMARY KEY, v text); INSERT INTO emptied VALUES (1, 'a');
         CREATE TABLE refilled (id int PRIMARY KEY, v text); INSERT INTO refilled VALUES (1, 'a');
         CREATE TABLE narrow (id int PRIMARY KEY, v int); INSERT INTO narrow VALUES (1, 1)",
    );
    chain.sql("ALTER TABLE upper ALTER v TYPE text USING upper(v)");
    chain.sql("ALTER TABLE bigger ALTER v TYPE bigint");
    chain.sql("VACUUM FULL vacuumed");
    chain.sql("CLUSTER clustered USING clustered_pkey");
    chain.sql("TRUNCATE emptied; INSERT INTO emptied VALUES (2, 'b')");
    // The stream has the TRUNCATE and the rows behind it, but not the rewrite of these rows.
    chain.sql("BEGIN; TRUNCATE refilled; INSERT INTO refilled VALUES (2, 'b'); ALTER TABLE refilled ALTER v TYPE text USING upper(v); COMMIT");
    chain.sql("TRUNCATE narrow; INSERT INTO narrow VALUES (2, 2)");
    chain.sql("ALTER TABLE narrow ALTER v TYPE int USING v + 1");
    let increment = chain.increment();
    for name in ["upper", "vacuumed", "clustered", "refilled", "narrow"] {
        assert_eq!(increment.state(name), "exact with a gap", "{name}");
        assert_eq!(increment.rows(name, "id"), chain.rows(name, "id"), "{name}");
    }
    // No replay can show that ALTER TABLE left the values as they were.
    for (name, proof) in [
        ("vacuumed", json!("from-base")),
        ("clustered", json!("from-base")),
        ("upper", json!(null)),
        ("refilled", json!(null)),
        ("narrow", json!(null)),
    ] {
        assert_eq!(increment.baseline(name)["proof"], proof, "{name}");
    }
    assert_eq!(increment.state("bigger"), "exact with a gap");
    assert_eq!(increment.baseline("bigger")["proof"], json!(null));
    assert_eq!(increment.state("emptied"), "exact");
    assert_eq!(increment.rows("upper", "id"), ["1\tA"]);
}

on_majors! { a_rewrite_that_the_stream_does_not_show_is_read_whole: 15 18 }

fn renamed_labels_are_read_and_new_ones_and_other_names_only_defined(major: u32) {
    let chain = Chain::begin(
        major,
        "CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TYPE size AS ENUM ('s');
         CREATE TABLE moods (id int PRIMARY KEY, m mood); INSERT INTO moods VALUES (1, 'a');
         CREATE TABLE sizes (id int PRIMARY KEY, s size); INSERT INTO sizes VALUES (1, 's');
         CREATE TABLE named (id int PRIMARY KEY, v text); CREATE TABLE columned (id int PRIMARY KEY, v text)",
    );
    chain.sql("INSERT INTO moods VALUES (2, 'a')");
    chain.sql("ALTER TYPE mood RENAME VALUE 'a' TO 'z'");
    chain.sql("INSERT INTO moods VALUES (3, 'z')");
    chain.sql("ALTER TYPE size ADD VALUE 'm'");
    chain.sql("INSERT INTO sizes VALUES (2, 'm')");
    chain.sql("ALTER TABLE named RENAME TO other_name; INSERT INTO other_name VALUES (1, 'x')");
    chain.sql("ALTER TABLE columned RENAME v TO w; INSERT INTO columned VALUES (1, 'x')");
    let increment = chain.increment();
    assert_eq!(increment.state("moods"), "exact with a gap");
    assert_eq!(increment.rows("moods", "id"), ["1\tz", "2\tz", "3\tz"]);
    assert_eq!(increment.state("sizes"), "exact with a gap");
    assert_eq!(increment.baselines(), ["moods"]);
    assert_eq!(increment.state("other_name"), "exact with a gap");
    assert_eq!(increment.state("columned"), "exact with a gap");
    assert_eq!(increment.coverage("columned")["renamed"], json!(true));
    assert!(increment.roles().contains(&"schema".to_owned()));
    let script = increment.definitions();
    assert!(script.contains("other_name") && script.contains("'m'"), "{script}");
    chain.sql("INSERT INTO other_name VALUES (2, 'x')");
    assert_eq!(chain.increment().roles(), ["catalog", "changes"]);
}

on_majors! { renamed_labels_are_read_and_new_ones_and_other_names_only_defined: 15 18 }

fn a_table_made_again_under_its_name_is_another_table(major: u32) {
    let chain = Chain::begin(
        major,
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'old')",
    );
    chain.sql("INSERT INTO t VALUES (2, 'old')");
    chain.sql("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'new')");
    let increment = chain.increment();
    let mut states = increment.states();
    states.sort();
    assert_eq!(states, ["t exact with a gap", "t exact with a gap"]);
    assert_eq!(increment.rows("t", "id"), ["1\tnew"]);
    chain.sql("INSERT INTO t VALUES (5, 'x')");
    assert_eq!(chain.increment().states(), ["t exact"]);
}

on_majors! { a_table_made_again_under_its_name_is_another_table: 15 18 }

fn tables_without_a_key_are_read_when_their_rows_changed_and_not_when_they_only_grew(major: u32) {
    let chain = Chain::begin(
        major,
        "CREATE TABLE log (v text); INSERT INTO log VALUES ('a'), ('b');
         CREATE TABLE changed (v text); INSERT INTO changed VALUES ('a'), ('b');
         CREATE TABLE back (v text); INSERT INTO back VALUES ('a');
         CREATE TABLE kept (id int PRIMARY KEY)",
    );
    chain.sql("INSERT INTO kept VALUES (0)");
    chain.increment();
    chain.sql("INSERT INTO log VALUES ('c'); UPDATE changed SET v = 'c' WHERE v = 'b'");
    // Its rows are the earlier ones, but they were others in between.
    chain.sql("UPDATE back SET v = 'b'; UPDATE back SET v = 'a'");
    let increment = chain.increment();
    assert_eq!(increment.state("log"), "inserts");
    assert_eq!(increment.state("changed"), "baseline with a gap");
    assert_eq!(increment.state("back"), "baseline with a gap");
    assert_eq!(increment.baselines(), ["changed", "back"]);
    assert_eq!(increment.rows("changed", "v"), ["a", "c"]);
    chain.sql("INSERT INTO kept VALUES (1)");
    let next = chain.increment();
    assert_eq!(next.baselines(), [""; 0]);
    assert_eq!(next.state("changed"), "inserts");
}

on_majors! { tables_without_a_key_are_read_when_their_rows_changed_and_not_when_they_only_grew: 15 18 }

/// The text of such a table is as before, but the stream has rows that are gone, or have changed since.
fn rows_without_a_key_that_came_and_went_between_two_increments_are_not_replayed(major: u32) {
    let chain = Chain::begin(
        major,
        "CREATE TABLE queue (job text); CREATE TABLE grown (v text); INSERT INTO grown VALUES ('a');
         CREATE TABLE kept (id int PRIMARY KEY)",
    );
    chain.sql("INSERT INTO kept VALUES (0)");
    chain.increment();
    chain.sql("INSERT INTO queue VALUES ('job 1'); INSERT INTO grown VALUES ('b')");
    chain.sql("DELETE FROM queue; UPDATE grown SET v = 'c' WHERE v = 'b'");
    let increment = chain.increment();
    assert_eq!(increment.state("queue"), "baseline with a gap");
    assert_eq!(increment.state("grown"), "baseline with a gap");
    assert_eq!(increment.rows("queue", "job"), [""; 0]);
    assert_eq!(increment.rows("grown", "v"), ["a", "c"]);
    chain.sql("INSERT INTO grown VALUES ('d'), ('e'); INSERT INTO kept VALUES (1)");
    let next = chain.increment();
    assert_eq!(
        (next.state("queue"), next.state("grown")),
        ("inserts".into(), "inserts".into())
    );
}

on_majors! { rows_without_a_key_that_came_and_went_between_two_increments_are_not_replayed: 15 18 }

/// What is changed meanwhile is not in the stream, and both catalogs look the same.
fn a_table_that_was_not_published_for_a_while_is_read_whole(major: u32) {
    let chain = Chain::begin(
        major,
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a');
         CREATE TABLE ev (id int, day int, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
         CREATE TABLE ev_0 PARTITION OF ev FOR VALUES FROM (0) TO (100); INSERT INTO ev VALUES (1, 1, 'a')",
    );
    chain.sql("INSERT INTO t VALUES (2, 'b'); INSERT INTO ev VALUES (2, 2, 'b')");
    assert_eq!(chain.increment().states(), ["ev_0 exact", "t exact"]);
    let publication = |change: &str| {
        chain.sql(&format!(
            "DO $$ BEGIN EXECUTE (SELECT format('ALTER PUBLICATION %I {change} TABLE ONLY t', pubname) FROM pg_publication
                WHERE pubname ~ '^pgstow_.*_all$'); END $$"
        ));
    };
    publication("DROP");
    chain.sql("ALTER TABLE ev DETACH PARTITION ev_0");
    chain.sql("UPDATE t SET v = 'unseen'; UPDATE ev_0 SET v = 'unseen'");
    publication("ADD");
    chain.sql("ALTER TABLE ev ATTACH PARTITION ev_0 FOR VALUES FROM (0) TO (100)");
    let increment = chain.increment();
    for name in ["t", "ev_0"] {
        assert_eq!(increment.state(name), "exact with a gap", "{name}");
        assert_eq!(increment.rows(name, "id"), chain.rows(name, "id"), "{name}");
    }
    chain.sql("INSERT INTO t VALUES (3, 'c')");
    assert_eq!(chain.increment().states(), ["ev_0 exact", "t exact"]);
}

on_majors! { a_table_that_was_not_published_for_a_while_is_read_whole: 15 18 }

/// In each of these the application's own statements go on working after the increment.
fn a_table_that_loses_its_identity_leaves_the_stream_and_the_application_goes_on(major: u32) {
    let chain = Chain::begin(
        major,
        "CREATE TABLE keyed (id int PRIMARY KEY, v text); INSERT INTO keyed VALUES (1, 'a');
         CREATE TABLE nothing (id int PRIMARY KEY, v text); INSERT INTO nothing VALUES (1, 'a')",
    );
    chain.sql("INSERT INTO keyed VALUES (2, 'b'); INSERT INTO nothing VALUES (2, 'b')");
    chain.sql("ALTER TABLE keyed DROP CONSTRAINT keyed_pkey; ALTER TABLE nothing REPLICA IDENTITY NOTHING");
    let increment = chain.increment();
    for name in ["keyed", "nothing"] {
        assert_eq!(increment.state(name), "baseline with a gap", "{name}");
        assert_eq!(increment.rows(name, "id"), ["1\ta", "2\tb"], "{name}");
        chain.sql(&format!("UPDATE {name} SET v = 'c'; DELETE FROM {name} WHERE id = 1"));
    }
    let why = increment.coverage("nothing")["why"].as_str().unwrap().to_owned();
    assert!(why.contains("REPLICA IDENTITY DEFAULT"), "{why}");
    let next = chain.increment();
    assert_eq!(next.rows("keyed", "id"), ["2\tc"]);
    chain.sql("ALTER TABLE keyed ADD PRIMARY KEY (id); ALTER TABLE nothing REPLICA IDENTITY DEFAULT");
    chain.increment();
    chain.sql("UPDATE keyed SET v = 'd'; UPDATE nothing SET v = 'd'");
    assert_eq!(chain.increment().states(), ["keyed exact", "nothing exact"]);
}

on_majors! { a_table_that_loses_its_identity_leaves_the_stream_and_the_application_goes_on: 15 18 }

fn computed_and_identity_columns_come_back_from_a_baseline(major: u32) {
    let chain = Chain::begin(major, "CREATE TABLE other (id int PRIMARY KEY)");
    chain.sql(
        "CREATE TABLE made (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int,
                            twice int GENERATED ALWAYS AS (a * 2) STORED);
         INSERT INTO made (a) VALUES (4), (5)",
    );
    let increment = chain.increment();
    assert_eq!(increment.rows("made", "id"), ["1\t4", "2\t5"]);
    let columns = &increment.table("made")["columns"];
    assert_eq!(columns[2]["is_generated"], json!(true), "{columns}");
    let sequence = &increment.manifest["sequences"][0];
    assert_eq!(
        (&sequence["last_value"], &sequence["is_called"]),
        (&json!(2), &json!(true))
    );
}

on_majors! { computed_and_identity_columns_come_back_from_a_baseline: 15 18 }

fn unlogged_tables_are_in_the_fulls_only_until_they_are_logged(major: u32) {
    let chain = Chain::begin(
        major,
        "CREATE UNLOGGED TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1)",
    );
    chain.sql("CREATE TABLE kept (id int PRIMARY KEY)");
    assert_eq!(chain.increment().state("u"), "full-only");
    chain.sql("ALTER TABLE u SET LOGGED; INSERT INTO u VALUES (2)");
    let increment = chain.increment();
    assert_eq!(increment.state("u"), "exact with a gap");
    assert_eq!(increment.rows("u", "id"), ["1", "2"]);
}

on_majors! { unlogged_tables_are_in_the_fulls_only_until_they_are_logged: 15 18 }

fn small_large_objects_are_read_by_each_increment_in_which_they_changed(major: u32) {
    let chain = Chain::begin(major, "CREATE TABLE t (id int PRIMARY KEY)");
    chain.sql("SELECT lo_from_bytea(4711, 'four'); INSERT INTO t VALUES (1)");
    let increment = chain.increment();
    assert_eq!(increment.manifest["large_objects_coverage"]["state"], "baseline");
    assert_eq!(increment.manifest["large_objects"][0]["count"], json!(1));
    // As long as no page of them is written, no increment stores them again.
    chain.sql("INSERT INTO t VALUES (2)");
    let next = chain.increment();
    assert_eq!(next.manifest["large_objects_coverage"]["state"], "exact");
    assert!(!next.roles().contains(&"dump".to_owned()), "{:?}", next.roles());
    chain.sql("INSERT INTO t VALUES (3); SELECT lo_put(4711, 0, 'F')");
    let next = chain.increment();
    assert_eq!(next.manifest["large_objects_coverage"]["state"], "baseline");
    assert_eq!(next.manifest["large_objects"][0]["count"], json!(1));
}

on_majors! { small_large_objects_are_read_by_each_increment_in_which_they_changed: 15 18 }

/// Its baseline waits for the lock that the renaming transaction holds.
fn a_table_that_is_renamed_before_its_baseline_has_the_new_name_there(major: u32) {
    let chain = Chain::begin(
        major,
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')",
    );
    chain.sql("ALTER TABLE t ALTER v TYPE text USING upper(v)");
    let held = chain.hold("ALTER TABLE t RENAME TO renamed");
    let increment = std::thread::scope(|scope| {
        let increment = scope.spawn(|| chain.increment());
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = (SELECT oid FROM pg_class
            WHERE relname = 't' AND relnamespace = 'public'::regnamespace)";
        while chain.value(waits) == "0" && !increment.is_finished() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        held.commit();
        increment.join().unwrap()
    });
    assert_eq!(
        (increment.baselines(), &increment.table("renamed")["rows"]),
        (vec!["t"], &json!(1))
    );
    let id = increment.manifest["id"].as_str().unwrap();
    let verified = chain.verify(id);
    assert_eq!(verified["status"], "ok", "{verified}");
}

on_majors! { a_table_that_is_renamed_before_its_baseline_has_the_new_name_there: 18 }

fn a_transaction_that_does_not_end_leaves_new_tables_to_the_next_increment(major: u32) {
    let chain = Chain::begin(major, "CREATE TABLE t (id int PRIMARY KEY)");
    let held = chain.hold("CREATE TABLE held (a int)");
    chain.sql("CREATE TABLE n (id int PRIMARY KEY); INSERT INTO n VALUES (1); INSERT INTO t VALUES (1)");
    let increment = chain.increment_waiting(3);
    assert_eq!(increment.state("t"), "exact");
    assert_eq!(increment.state("n"), "exact up to a position");
    let why = increment.coverage("n")["why"].as_str().unwrap();
    assert!(why.contains("older than its publication"), "{why}");
    drop(held);
    chain.sql("INSERT INTO n VALUES (2)");
    let next = chain.increment();
    assert_eq!(next.state("n"), "exact with a gap");
    assert_eq!(next.rows("n", "id"), ["1", "2"]);
}

on_majors! { a_transaction_that_does_not_end_leaves_new_tables_to_the_next_increment: 15 18 }
