//! What an increment asks a server about its tables, definitions and sequences.

use std::time::{Duration, Instant};

use pgstow::postgres::{ConnectionInfo, Contents, Dump, DumpOrder, Programs, SequenceReading, Session};

use crate::postgres::place::{client, connect, database, restored, role, settings, with_name};

const OWN: &str = "pgstow_0123456789_all";

async fn fingerprint(session: &Session) -> String {
    session.definitions_fingerprint(&[OWN.to_owned()]).await.unwrap()
}

async fn every_change_of_a_definition_changes_the_fingerprint_and_nothing_else_does(major: u32) {
    let info = database(
        major,
        "fingerprint",
        "CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TABLE t (id int PRIMARY KEY, v text, m mood DEFAULT 'a');
         CREATE INDEX t_v ON t (v); CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE MATERIALIZED VIEW mv AS SELECT id FROM t; CREATE VIEW w AS SELECT v FROM t; CREATE SEQUENCE s;
         CREATE TABLE p (a int) PARTITION BY RANGE (a); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)",
    )
    .await;
    let admin = client(&info).await;
    let session = connect(&info, major).await.unwrap();
    let mut before = fingerprint(&session).await;
    for same in [
        "INSERT INTO t SELECT g, 'x' FROM generate_series(1, 1000) g",
        "UPDATE t SET v = 'y'; SELECT nextval('s'); SELECT setval('s', 500)",
        "ANALYZE",
        "VACUUM FULL t",
        "VACUUM FULL pg_class",
        "VACUUM FULL pg_attribute",
        "VACUUM FREEZE",
        "CLUSTER t USING t_pkey; ALTER TABLE t SET WITHOUT CLUSTER",
        "TRUNCATE t",
        "REINDEX TABLE t",
        "REFRESH MATERIALIZED VIEW mv",
        "CREATE TEMPORARY TABLE tt (a serial PRIMARY KEY); INSERT INTO tt DEFAULT VALUES",
        "SELECT lo_create(4711)",
        "CREATE PUBLICATION pgstow_0123456789_all FOR TABLE t; ALTER PUBLICATION pgstow_0123456789_all ADD TABLE p",
    ] {
        for one in same.split("; ") {
            admin.batch_execute(one).await.unwrap();
        }
        assert_eq!(fingerprint(&session).await, before, "{same}");
    }
    for other in [
        "ALTER TABLE t ADD c int",
        "ALTER TABLE t RENAME c TO d",
        "ALTER TABLE t RENAME TO t2",
        "ALTER TABLE t2 ALTER d SET DEFAULT 4",
        "ALTER TABLE t2 ALTER d SET DEFAULT 5",
        "ALTER TABLE t2 ALTER d TYPE bigint",
        "ALTER TABLE t2 ADD CHECK (d > 0)",
        "ALTER TABLE t2 CLUSTER ON t_v",
        "ALTER TABLE t2 REPLICA IDENTITY FULL",
        "CREATE INDEX ON t2 (d)",
        "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
        "GRANT EXECUTE ON FUNCTION f() TO pg_monitor",
        "ALTER TYPE mood RENAME VALUE 'b' TO 'c'",
        "ALTER TYPE mood ADD VALUE 'd'",
        "CREATE TRIGGER tg BEFORE INSERT ON t2 FOR EACH ROW EXECUTE FUNCTION tf()",
        "ALTER TABLE t2 DISABLE TRIGGER tg",
        "CREATE POLICY po ON t2 USING (id > 1)",
        "ALTER TABLE t2 ENABLE ROW LEVEL SECURITY",
        "CREATE OR REPLACE VIEW w AS SELECT v || 'x' AS v FROM t2",
        "CREATE SCHEMA more",
        "ALTER TABLE t2 SET SCHEMA more",
        "COMMENT ON TABLE more.t2 IS 'a table'",
        "COMMENT ON COLUMN more.t2.id IS 'a column'",
        "GRANT SELECT ON more.t2 TO pg_monitor",
        "GRANT SELECT (id) ON more.t2 TO pg_read_all_stats",
        "GRANT USAGE ON SCHEMA more TO pg_monitor",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA more GRANT SELECT ON TABLES TO pg_monitor",
        "ALTER SEQUENCE s INCREMENT 5",
        "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
        "CREATE TYPE pair AS (a int, b text)",
        "ALTER TYPE pair ADD ATTRIBUTE c int",
        "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20)",
        "ALTER TABLE p DETACH PARTITION p2",
        "DROP TABLE p2",
        "CREATE STATISTICS st ON v, d FROM more.t2",
        "CREATE EXTENSION pg_trgm",
        "CREATE PUBLICATION theirs FOR TABLE p",
        "ALTER PUBLICATION theirs ADD TABLE more.t2",
        "CREATE COLLATION co (locale = 'C')",
        "CREATE CAST (mood AS int) WITH FUNCTION pg_catalog.hashenum(anyenum)",
        "DROP MATERIALIZED VIEW mv",
    ] {
        if let Err(error) = admin.batch_execute(other).await {
            // Not every server has every cast.
            assert!(other.starts_with("CREATE CAST"), "{other}: {error}");
            continue;
        }
        let after = fingerprint(&session).await;
        assert_ne!(after, before, "{other}");
        before = after;
    }
}

on_majors! { async every_change_of_a_definition_changes_the_fingerprint_and_nothing_else_does: 15 18 }

async fn another_roles_session_gets_the_same_fingerprint_each_time(major: u32) {
    let info = database(major, "fingerprint_of_a_role", "CREATE TABLE t (id int PRIMARY KEY)").await;
    let reader = role(&info, "fingerprinter", "").await;
    let (one, two) = (
        connect(&reader, major).await.unwrap(),
        connect(&reader, major).await.unwrap(),
    );
    assert_eq!(fingerprint(&one).await, fingerprint(&two).await);
}

on_majors! { async another_roles_session_gets_the_same_fingerprint_each_time: 15 18 }

async fn sequences_are_read_as_they_are_and_those_that_may_not_be_are_named(major: u32) {
    let info = database(
        major,
        "sequences",
        "CREATE SEQUENCE \"a 'b\"; CREATE SEQUENCE called; SELECT nextval('called'), nextval('called');
         CREATE SEQUENCE moved; SELECT setval('moved', 700, false); CREATE SEQUENCE down INCREMENT -1;
         CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY); INSERT INTO t DEFAULT VALUES;
         CREATE SCHEMA hidden; CREATE SEQUENCE hidden.s; CREATE TEMPORARY SEQUENCE gone",
    )
    .await;
    let readings = connect(&info, major).await.unwrap().sequence_readings().await.unwrap();
    let read = |one: &SequenceReading| (format!("{}.{}", one.schema, one.name), one.last_value, one.is_called);
    let mut all: Vec<_> = readings.read.iter().map(read).collect();
    all.sort();
    let expected = [
        ("hidden.s", 1, false),
        ("public.a 'b", 1, false),
        ("public.called", 2, true),
        ("public.down", -1, false),
        ("public.moved", 700, false),
        ("public.t_id_seq", 1, true),
    ];
    let expected = expected.map(|(name, value, is_called)| (name.to_owned(), value, is_called));
    assert_eq!(all, expected);
    assert!(readings.unreadable.is_empty());

    let reader = role(&info, "sequence_reader", "").await;
    let grant = "GRANT SELECT ON SEQUENCE called TO sequence_reader";
    client(&info).await.batch_execute(grant).await.unwrap();
    let readings = connect(&reader, major)
        .await
        .unwrap()
        .sequence_readings()
        .await
        .unwrap();
    assert_eq!(readings.read.len(), 1);
    assert_eq!(readings.unreadable.len(), 5);
    assert!(readings.unreadable.contains(&"hidden.s".to_owned()));
}

on_majors! { async sequences_are_read_as_they_are_and_those_that_may_not_be_are_named: 15 18 }

async fn a_settled_position_comes_at_once_also_after_a_switch_of_the_log(major: u32) {
    let info = database(major, "settled", "CREATE TABLE t (a int)").await;
    let admin = client(&info).await;
    let session = connect(&info, major).await.unwrap();
    for statement in [
        "SELECT pg_switch_wal()",
        "SET synchronous_commit = off",
        "INSERT INTO t VALUES (1)",
        "CHECKPOINT",
    ] {
        admin.batch_execute(statement).await.unwrap();
        let settled = session.settled_position().await.unwrap().unwrap();
        let row = admin
            .query_one("SELECT pg_current_wal_flush_lsn()::text", &[])
            .await
            .unwrap();
        let flushed: pgstow::format::Lsn = row.get::<_, String>(0).parse().unwrap();
        assert!(settled <= flushed, "{statement}");
    }
}

on_majors! { async a_settled_position_comes_at_once_also_after_a_switch_of_the_log: 15 18 }

/// An archive of the tables with these names.
async fn dump_of(info: &ConnectionInfo, major: u32, names: &[&str], with_large_objects: bool) -> String {
    let settings = settings(major);
    let session = connect(info, major).await.unwrap();
    let programs = Programs::find(major, &settings).await.unwrap();
    let passfile = pgstow::postgres::Passfile::create(&settings.temp, session.info()).unwrap();
    let catalog = session.table_catalog().await.unwrap();
    let named = |name: &&str| catalog.tables.iter().find(|table| table.name == **name).unwrap().oid;
    let oids: Vec<u32> = names.iter().map(named).collect();
    let snapshot = session.export_snapshot().await.unwrap();
    let patterns = session.dump_patterns(&oids).await.unwrap();
    assert_eq!(patterns.len(), names.len());
    let mut dump = Dump::start(&DumpOrder {
        programs: &programs,
        info: session.info(),
        passfile: passfile.as_ref(),
        snapshot: &snapshot.id,
        contents: Contents::Tables {
            patterns: &patterns,
            with_large_objects,
        },
        lock_wait: Duration::from_secs(5),
        settings: &settings,
    })
    .await
    .unwrap();
    let mut stdout = dump.take_stdout().unwrap();
    let reading = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut stdout, &mut bytes).unwrap();
        bytes
    });
    let archive = reading.await.unwrap();
    dump.wait().await.unwrap();
    restored(&archive, major)
}

async fn exactly_the_chosen_tables_are_dumped_whatever_their_names(major: u32) {
    let names = ["a.b", "a?b", "\"q\"", "t*", "$1|[x]", "UPPER", "a b\nc", "--"];
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let make = |name: &str| format!("CREATE TABLE {0} (id int); INSERT INTO {0} VALUES (1);", quoted(name));
    let mut sql: String = names.iter().map(|name| make(name)).collect();
    for other in ["axb", "t1", "upper", "q"] {
        sql += &make(other);
    }
    sql += "SELECT lo_create(4711);";
    let info = database(major, "dump_patterns", &sql).await;
    let script = dump_of(&info, major, &names, true).await;
    assert_eq!(script.matches("CREATE TABLE").count(), names.len(), "{script}");
    assert!(script.contains("4711"));
    let script = dump_of(&info, major, &names[..1], false).await;
    assert_eq!(script.matches("CREATE TABLE").count(), 1, "{script}");
    assert!(!script.contains("4711"));
}

on_majors! { async exactly_the_chosen_tables_are_dumped_whatever_their_names: 15 18 }

async fn a_name_in_another_encoding_is_dumped_too(major: u32) {
    let boss = database(major, "dump_patterns_latin1_from", "").await;
    let admin = client(&boss).await;
    let create = "CREATE DATABASE dump_patterns_latin1 TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'";
    for statement in ["DROP DATABASE IF EXISTS dump_patterns_latin1 WITH (FORCE)", create] {
        admin.batch_execute(statement).await.unwrap();
    }
    let info = with_name(&boss, "dump_patterns_latin1");
    let make = "CREATE TABLE \"äö\" (\"ü\" int); INSERT INTO \"äö\" VALUES (1)";
    client(&info).await.batch_execute(make).await.unwrap();
    let session = connect(&info, major).await.unwrap();
    let catalog = session.table_catalog().await.unwrap();
    let patterns = session.dump_patterns(&[catalog.tables[0].oid]).await.unwrap();
    assert_eq!(patterns, [b"\"public\".\"\xe4\xf6\"".to_vec()]);
}

on_majors! { async a_name_in_another_encoding_is_dumped_too: 15 18 }

async fn two_thousand_tables_are_looked_at_in_a_moment(major: u32) {
    let info = database(
        major,
        "two_thousand",
        "DO $$ BEGIN FOR number IN 1..2000 LOOP
           EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, a text, b numeric DEFAULT 1, c timestamptz, d jsonb)', number);
         END LOOP; END $$",
    )
    .await;
    let session = connect(&info, major).await.unwrap();
    for _ in 0..2 {
        let begun = Instant::now();
        let catalog = session.table_catalog().await.unwrap();
        let catalogs = begun.elapsed();
        let begun = Instant::now();
        fingerprint(&session).await;
        println!(
            "{major}: the catalog of {} tables took {catalogs:?}, the fingerprint {:?}",
            catalog.tables.len(),
            begun.elapsed()
        );
    }
}

on_majors! { async two_thousand_tables_are_looked_at_in_a_moment: 15 18 }

/// A snapshot does not name the newest transaction of all.
async fn transactions_that_have_not_ended_are_known(major: u32) {
    let info = database(major, "running", "CREATE TABLE t (a int)").await;
    let (open, other) = (client(&info).await, client(&info).await);
    let session = connect(&info, major).await.unwrap();
    let begin = async |client: &tokio_postgres::Client| -> u32 {
        client.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
        let row = client
            .query_one("SELECT pg_current_xact_id()::xid::text", &[])
            .await
            .unwrap();
        row.get::<_, String>(0).parse().unwrap()
    };
    let xids = [begin(&open).await, begin(&other).await];
    let (_, running) = session.unsettled_position().await.unwrap();
    assert!(xids.iter().all(|xid| running.contains(xid)), "{running:?}");
    open.batch_execute("COMMIT").await.unwrap();
    other.batch_execute("ROLLBACK").await.unwrap();
    let running = session.running().await.unwrap();
    assert!(!xids.iter().any(|xid| running.contains(xid)), "{running:?}");
}

on_majors! { async transactions_that_have_not_ended_are_known: 15 18 }
