//! What is published of each table: the application's statements must go on working, whatever becomes of its tables.

use std::collections::BTreeMap;

use pgstow::postgres::{
    ConnectionInfo, PrimaryKey, PublicationChanges, PublicationKind, Session, SlotName, TableCatalog, TableKind,
};

use crate::postgres::place::{connect, database};
use crate::support::database::psql;

fn name() -> SlotName {
    SlotName::of("s3://a-store", "a database")
}

/// A database whose tables are published, and the application's access to it.
struct Place {
    major: u32,
    url: String,
    session: Session,
}

impl Place {
    async fn with(major: u32, test: &str, sql: &str) -> Self {
        let info = database(major, &format!("publishing {test}"), sql).await;
        let session = connect(&info, major).await.unwrap();
        session.create_publications(&name()).await.unwrap();
        let place = Self {
            major,
            url: url(&info),
            session,
        };
        let changes = place.reconcile().await;
        assert_eq!(changes.postponed, []);
        place
    }

    async fn reconcile(&self) -> PublicationChanges {
        let catalog = self.catalog().await;
        self.session.reconcile(&name(), &catalog).await.unwrap()
    }

    async fn catalog(&self) -> TableCatalog {
        self.session.table_catalog().await.unwrap()
    }

    /// As the application runs it: it must not fail.
    fn run(&self, sql: &str) -> String {
        psql(self.major, &self.url, sql)
    }

    /// What the server lists: `all` or `inserts` by the table's name.
    fn listed(&self) -> BTreeMap<String, String> {
        let rows = self.run(
            "SELECT r.prrelid::regclass, substring(p.pubname from '_([a-z]+)$') FROM pg_publication_rel r
             JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname LIKE 'pgstow%' ORDER BY 1",
        );
        let pair = |row: &str| {
            let (table, publication) = row.split_once('|').unwrap();
            (table.to_owned(), publication.to_owned())
        };
        rows.lines().map(pair).collect()
    }
}

fn url(info: &ConnectionInfo) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use secrecy::ExposeSecret;
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    format!(
        "postgresql://{}:{}@{}:{}/{}",
        encoded(info.user.as_deref().unwrap()),
        encoded(info.password.as_ref().unwrap().expose_secret()),
        info.host.as_deref().unwrap(),
        info.port.unwrap(),
        encoded(info.dbname.as_deref().unwrap())
    )
}

const CHANGES: &str =
    "INSERT INTO t (id, v) VALUES (1, 'a'), (2, 'b'); UPDATE t SET v = 'c'; UPDATE t SET id = id + 10;
    DELETE FROM t WHERE id = 11; TRUNCATE t";

async fn a_table_is_published_by_the_identity_that_the_server_sees(major: u32) {
    let sql = "CREATE SCHEMA \"a\"\"b\";
        CREATE TABLE \"a\"\"b\".\"it's\" (id int PRIMARY KEY, v text);
        CREATE TABLE plain (id int PRIMARY KEY, v varchar(7), at timestamptz[] );
        CREATE TABLE keyless (v int);
        CREATE TABLE put_off (id int, v text, PRIMARY KEY (id) DEFERRABLE);
        CREATE TABLE fully (v int); ALTER TABLE fully REPLICA IDENTITY FULL;
        CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
        CREATE TABLE by_index (id int PRIMARY KEY, a int NOT NULL, b int NOT NULL);
        CREATE UNIQUE INDEX chosen ON by_index (b, a) INCLUDE (id);
        ALTER TABLE by_index REPLICA IDENTITY USING INDEX chosen;
        CREATE TABLE gone (id int PRIMARY KEY, a int NOT NULL); CREATE UNIQUE INDEX gone_a ON gone (a);
        ALTER TABLE gone REPLICA IDENTITY USING INDEX gone_a; DROP INDEX gone_a;
        CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
        CREATE TEMP TABLE temporary (id int PRIMARY KEY);
        CREATE TABLE parent (id int, d int, PRIMARY KEY (id, d)) PARTITION BY LIST (d);
        CREATE TABLE leaf PARTITION OF parent FOR VALUES IN (1);
        CREATE TABLE below (a int PRIMARY KEY) INHERITS (keyless);";
    let place = Place::with(major, "identity", sql).await;
    let catalog = place.catalog().await;
    let known = place.run(
        "SELECT c.oid, coalesce(pg_get_replica_identity_index(c.oid)::oid, 0) FROM pg_class c
         WHERE c.relkind = 'r' AND c.relnamespace IN ('public'::regnamespace, '\"a\"\"b\"'::regnamespace) ORDER BY 1",
    );
    let ours: Vec<String> = catalog
        .tables
        .iter()
        .filter(|table| table.kind == TableKind::Ordinary)
        .map(|table| format!("{}|{}", table.oid, table.identity_index.unwrap_or(0)))
        .collect();
    assert_eq!(known.lines().collect::<Vec<_>>(), ours);
    let listed = place.listed();
    let of = |kind: &str| {
        let tables = listed.iter().filter(|(_, publication)| *publication == kind);
        tables.map(|(table, _)| table.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(
        of("all"),
        ["\"a\"\"b\".\"it's\"", "below", "by_index", "fully", "parent", "plain"]
    );
    assert_eq!(of("inserts"), ["gone", "keyless", "nothing", "put_off"]);

    let table = |name: &str| catalog.tables.iter().find(|table| table.name == name).unwrap();
    assert_eq!(table("by_index").key, ["b", "a"]);
    assert_eq!(table("put_off").primary_key, Some(PrimaryKey::Deferrable));
    assert_eq!(table("leaf").parent, Some(table("parent").oid));
    assert!(table("unlogged").is_unlogged && table("plain").is_ours && table("plain").owner == "postgres");
    let types: Vec<&str> = table("plain")
        .columns
        .iter()
        .map(|column| column.type_name.as_str())
        .collect();
    assert_eq!(types, ["integer", "character varying(7)", "timestamp with time zone[]"]);
    assert!(catalog.tables.iter().all(|table| table.name != "temporary"));
    // It is plain data.
    let text = serde_json::to_string(&catalog).unwrap();
    assert_eq!(serde_json::from_str::<TableCatalog>(&text).unwrap(), catalog);
    assert_eq!(place.reconcile().await.joined().len(), 0);
}

on_majors! { async a_table_is_published_by_the_identity_that_the_server_sees: 15 18 }

async fn types_show_when_the_text_of_values_changes(major: u32) {
    let sql =
        "CREATE TYPE mood AS ENUM ('a', 'b'); CREATE DOMAIN feeling AS mood; CREATE TYPE pair AS (x int, m feeling);
        CREATE TYPE span AS RANGE (SUBTYPE = mood);
        CREATE TABLE t (id int PRIMARY KEY, p pair[], s span); CREATE TABLE u (id int PRIMARY KEY)";
    let place = Place::with(major, "types", sql).await;
    let before = place.catalog().await;
    let t = before.tables.iter().find(|table| table.name == "t").unwrap();
    let labels: Vec<&str> = t.labels.iter().map(|label| label.label.as_str()).collect();
    assert_eq!(labels, ["a", "b"]);
    assert_eq!(t.columns[1].type_name, "public.pair[]");
    for (sql, alike) in [
        ("ALTER TYPE mood ADD VALUE 'c'", true),
        ("ALTER TABLE t ADD CHECK (id > 0)", true),
        ("ALTER TYPE mood RENAME VALUE 'a' TO 'z'", false),
        ("ALTER TYPE mood RENAME VALUE 'z' TO 'a'", true),
        ("ALTER TYPE pair ADD ATTRIBUTE y int", false),
    ] {
        place.run(sql);
        let now = place.catalog().await;
        let same = |name: &str| {
            let find = |catalog: &TableCatalog| catalog.tables.iter().find(|table| table.name == name).unwrap().clone();
            find(&now).has_values_of(&find(&before))
        };
        assert_eq!(same("t"), alike, "{sql}");
        assert!(same("u"));
    }
}

on_majors! { async types_show_when_the_text_of_values_changes: 15 18 }

async fn only_alter_table_leaves_a_trace_at_the_columns(major: u32) {
    let sql = "CREATE TABLE t (id int PRIMARY KEY, v text, n int); INSERT INTO t VALUES (1, 'a', 1)";
    let place = Place::with(major, "traces", sql).await;
    let trace = async || {
        let catalog = place.catalog().await;
        let table = catalog.tables.iter().find(|table| table.name == "t").unwrap();
        (table.filenode, table.traces.columns_changed_by.unwrap())
    };
    let mut before = trace().await;
    for (sql, is_rewritten, is_altered) in [
        ("INSERT INTO t VALUES (2, 'b', 2)", false, false),
        ("TRUNCATE t", true, false),
        ("VACUUM FULL t", true, false),
        ("CLUSTER t USING t_pkey", true, false),
        ("ANALYZE t", false, false),
        ("VACUUM FULL pg_attribute", false, false),
        ("ALTER TABLE t ALTER v TYPE text USING upper(v)", true, true),
        (
            "BEGIN; ALTER TABLE t ALTER n TYPE int USING n + 1; TRUNCATE t; COMMIT",
            true,
            true,
        ),
        (
            "ALTER TABLE t ADD c float8 DEFAULT random(); ALTER TABLE t DROP c",
            true,
            true,
        ),
    ] {
        place.run(sql);
        let now = trace().await;
        let changed = (now.0 != before.0, now.1 != before.1);
        assert_eq!(changed, (is_rewritten, is_altered), "{sql}");
        before = now;
    }
}

on_majors! { async only_alter_table_leaves_a_trace_at_the_columns: 15 18 }

async fn the_application_goes_on_whatever_becomes_of_a_key(major: u32) {
    let place = Place::with(major, "key", "CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    assert_eq!(place.listed()["t"], "all");
    place.run(CHANGES);
    for (change, expected) in [
        ("ALTER TABLE t DROP CONSTRAINT t_pkey", "inserts"),
        ("ALTER TABLE t ADD PRIMARY KEY (id) DEFERRABLE", "inserts"),
        (
            "ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD PRIMARY KEY (id)",
            "all",
        ),
        ("ALTER TABLE t REPLICA IDENTITY NOTHING", "inserts"),
        (
            "ALTER TABLE t REPLICA IDENTITY FULL; ALTER TABLE t DROP CONSTRAINT t_pkey",
            "all",
        ),
        (
            "ALTER TABLE t REPLICA IDENTITY DEFAULT; ALTER TABLE t ADD COLUMN k int GENERATED ALWAYS AS (id) STORED PRIMARY KEY",
            "inserts",
        ),
        (
            "ALTER TABLE t REPLICA IDENTITY FULL",
            if major >= 18 { "inserts" } else { "all" },
        ),
    ] {
        place.run(change);
        let changes = place.reconcile().await;
        assert_eq!(changes.postponed, [], "{change}");
        assert_eq!(place.listed()["t"], expected, "{change}");
        place.run(CHANGES);
    }
}

on_majors! { async the_application_goes_on_whatever_becomes_of_a_key: 15 18 }

async fn the_application_goes_on_whatever_becomes_of_partitions(major: u32) {
    let sql = "CREATE TABLE t (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
        CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10); CREATE TABLE t2 PARTITION OF t DEFAULT;
        CREATE TABLE keyless (id int, v text) PARTITION BY RANGE (id);
        CREATE TABLE k1 PARTITION OF keyless FOR VALUES FROM (0) TO (10);
        CREATE TABLE k2 PARTITION OF keyless DEFAULT; ALTER TABLE k2 ADD PRIMARY KEY (id)";
    let place = Place::with(major, "partitions", sql).await;
    let expected = |pairs: &[(&str, &str)]| {
        let pairs = pairs
            .iter()
            .map(|(table, kind)| ((*table).to_owned(), (*kind).to_owned()));
        pairs.collect::<BTreeMap<_, _>>()
    };
    let keyless = [("k2", "all"), ("keyless", "inserts")];
    let with = |more: &[(&str, &str)]| expected(&[&keyless[..], more].concat());
    assert_eq!(place.listed(), with(&[("t", "all")]));
    let changes = |table: &str| {
        CHANGES
            .replace(" t ", &format!(" {table} "))
            .replace("FROM t", &format!("FROM {table}"))
    };
    let keyless_changes = "INSERT INTO keyless VALUES (1, 'a'), (20, 'b'); UPDATE keyless SET v = 'c';
        UPDATE keyless SET id = id + 10; DELETE FROM keyless WHERE id = 11; TRUNCATE keyless";
    place.run(&changes("t"));
    place.run(keyless_changes);
    // A new partition is covered by its parent.
    place.run("ALTER TABLE t DETACH PARTITION t2; CREATE TABLE t3 PARTITION OF t FOR VALUES FROM (10) TO (1000)");
    place.run(&changes("t"));
    let after = place.reconcile().await;
    assert_eq!(place.listed(), with(&[("t", "all"), ("t2", "all")]));
    assert_eq!(after.left().len(), 0);
    // A partition whose identity is NOTHING would make updates of it fail.
    place.run("ALTER TABLE t3 REPLICA IDENTITY NOTHING");
    let after = place.reconcile().await;
    assert_eq!((after.postponed.len(), after.interrupted.len()), (0, 0));
    assert_eq!(place.listed(), with(&[("t", "inserts"), ("t1", "all"), ("t2", "all")]));
    place.run(&changes("t"));
    let kinds = |changes: &PublicationChanges| {
        changes
            .after
            .values()
            .filter(|kind| **kind == PublicationKind::All)
            .count()
    };
    assert_eq!(kinds(&after), 3);
    place.run("ALTER TABLE t3 REPLICA IDENTITY FULL");
    let after = place.reconcile().await;
    assert_eq!(place.listed(), with(&[("t", "all"), ("t2", "all")]));
    // The parent and the partition.
    assert_eq!(after.joined().len(), 2);
    place.run(&changes("t"));
    place.run(keyless_changes);
}

on_majors! { async the_application_goes_on_whatever_becomes_of_partitions: 15 18 }

async fn wide_rows_and_toasted_keys_are_changed_as_before(major: u32) {
    let columns: Vec<String> = (1..1600).map(|number| format!("c{number} int")).collect();
    let sql = format!(
        "CREATE TABLE wide (id int PRIMARY KEY, {});
         CREATE TABLE t (id text PRIMARY KEY, v text); ALTER TABLE t ALTER id SET STORAGE EXTERNAL",
        columns.join(", ")
    );
    let place = Place::with(major, "wide", &sql).await;
    let catalog = place.catalog().await;
    assert_eq!(catalog.tables.iter().map(|table| table.columns.len()).max(), Some(1600));
    place.run(
        "INSERT INTO wide (id) VALUES (1); UPDATE wide SET c1 = 1; DELETE FROM wide;
         INSERT INTO t SELECT string_agg(md5(g::text), ''), 'a' FROM generate_series(1, 70) g; UPDATE t SET v = 'b';
         UPDATE t SET id = id || 'z'; DELETE FROM t",
    );
    assert_eq!(place.listed().len(), 2);
}

on_majors! { async wide_rows_and_toasted_keys_are_changed_as_before: 15 18 }

async fn a_table_that_another_session_holds_is_added_later_and_writers_never_wait(major: u32) {
    let place = Place::with(major, "locks", "CREATE TABLE other (id int PRIMARY KEY)").await;
    place.run("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY)");
    let (holder, connection) = tokio_postgres::connect(&place.url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    // As VACUUM and CREATE INDEX CONCURRENTLY do.
    holder
        .batch_execute("BEGIN; LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE")
        .await
        .unwrap();
    let (writer, connection) = tokio_postgres::connect(&place.url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    writer
        .batch_execute("BEGIN; INSERT INTO u VALUES (1); INSERT INTO t VALUES (7, 'open')")
        .await
        .unwrap();
    let catalog = place.catalog().await;
    let name = name();
    let reconciling = place.session.reconcile(&name, &catalog);
    let url = place.url.clone();
    // If it had to wait for a lock, it would fail.
    let changing = format!("SET lock_timeout = '100ms'; {}", CHANGES.trim_end_matches("TRUNCATE t"));
    let writing = tokio::task::spawn_blocking(move || psql(major, &url, &changing));
    let (changes, written) = tokio::join!(reconciling, writing);
    written.unwrap();
    let changes = changes.unwrap();
    let names: Vec<&str> = changes.postponed.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["t"]);
    assert!(!changes.postponed[0].breaks_updates);
    // A writer in progress holds nothing up.
    assert_eq!(changes.joined().len(), 1);
    holder.batch_execute("COMMIT").await.unwrap();
    let later = place.reconcile().await;
    assert_eq!((later.postponed.len(), later.joined().len()), (0, 1));
    writer.batch_execute("COMMIT").await.unwrap();
}

on_majors! { async a_table_that_another_session_holds_is_added_later_and_writers_never_wait: 15 18 }

async fn a_table_that_is_published_in_part_counts_as_not_published(major: u32) {
    let place = Place::with(major, "in part", "CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    let [all, _] = name().publications();
    place.run(&format!("ALTER PUBLICATION {all} SET TABLE ONLY t WHERE (id > 5)"));
    let changes = place.reconcile().await;
    assert_eq!((changes.before.len(), changes.after.len()), (0, 0));
    assert!(changes.postponed[0].why.contains("row filter"), "{changes:?}");
    place.run(&format!("ALTER PUBLICATION {all} DROP TABLE t"));
    assert_eq!(place.reconcile().await.joined().len(), 1);
}

on_majors! { async a_table_that_is_published_in_part_counts_as_not_published: 15 18 }
