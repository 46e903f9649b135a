//! Names that a restore must know: of partitions' own keys, and in another encoding than ours.

use crate::job::restore::place::Backed;
use crate::support::database::{Database, psql, quoted};
use crate::support::services::postgres_url;

fn keys(database: &Database) -> String {
    database.sql(
        "SELECT conrelid::regclass, conname, pg_get_constraintdef(oid), obj_description(oid, 'pg_constraint'), conparentid > 0
           FROM pg_constraint WHERE contype = 'f' ORDER BY conrelid::regclass::text, conname",
    )
}

fn keys_of_partitions_keep_their_names_and_comments(major: u32) {
    let source = Database::fresh(major);
    source.sql(
        "CREATE TABLE people (id int PRIMARY KEY);
         CREATE TABLE visits (person int, day int, other int) PARTITION BY RANGE (day);
         CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (day);
         CREATE TABLE visits_1a PARTITION OF visits_1 FOR VALUES FROM (0) TO (5);
         CREATE TABLE visits_2 (person int CONSTRAINT \"named before\" REFERENCES people, day int, other int);
         COMMENT ON CONSTRAINT \"named before\" ON visits_2 IS 'it''s theirs';
         ALTER TABLE visits ADD CONSTRAINT whole FOREIGN KEY (person) REFERENCES people;
         ALTER TABLE visits ADD CONSTRAINT second FOREIGN KEY (other) REFERENCES people;
         ALTER TABLE visits ATTACH PARTITION visits_2 FOR VALUES FROM (10) TO (20);
         ALTER TABLE visits_1a RENAME CONSTRAINT whole TO renamed;
         COMMENT ON CONSTRAINT whole ON visits_1 IS 'in the middle';
         INSERT INTO people SELECT generate_series(1, 20);
         INSERT INTO visits VALUES (1, 1, 2), (2, 11, 3), (20, 19, NULL);",
    );
    let backed = Backed::up(source, &[]);
    let target = backed.source.copy();
    target.sql(
        "CREATE TABLE visits_3 (person int, day int, other int CONSTRAINT since REFERENCES people);
         COMMENT ON CONSTRAINT since ON visits_3 IS 'new';
         ALTER TABLE visits ATTACH PARTITION visits_3 FOR VALUES FROM (20) TO (30); INSERT INTO visits VALUES (1, 25, 4)",
    );
    let before = keys(&target);
    assert!(
        before.contains("named before") && before.contains("renamed"),
        "{before}"
    );
    for options in [
        &["--table", "public.people", "--clean"][..],
        &["--table", "public.people", "--clean", "--data-only"],
        &["--table", "public.visits_2", "--clean", "--data-only"],
        &["--table", "public.visits_2", "--clean"],
        &["--table", "public.visits", "--clean"],
        &["--clean"],
    ] {
        let report = backed.restored(&target, options);
        assert!(report.get("left_out").is_none(), "{options:?}: {report:#}");
        assert_eq!(keys(&target), before, "{options:?}");
        assert_eq!(target.sql("SELECT count(*) FROM visits"), "4", "{options:?}");
    }
}

on_majors! { keys_of_partitions_keep_their_names_and_comments: 15 18 }

fn in_encoding(encoding: &str) -> Database {
    let database = Database::fresh(17);
    let name = quoted(&database.name);
    let script =
        format!("DROP DATABASE {name};\nCREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'");
    psql(17, &postgres_url(17), &script);
    database
}

#[test]
fn names_beyond_ascii_are_replaced_whatever_the_encoding() {
    let source = in_encoding("LATIN1");
    source.sql(
        "SET client_encoding = 'UTF8';
         CREATE SCHEMA \"süd\"; CREATE TYPE \"süd\".\"größe\" AS ENUM ('groß', 'klein');
         CREATE TABLE \"süd\".\"Straße\" (\"fuß\" int PRIMARY KEY, wie \"süd\".\"größe\");
         CREATE TABLE \"süd\".hausnummern (id int REFERENCES \"süd\".\"Straße\", text text);
         CREATE VIEW \"süd\".\"übersicht\" AS SELECT \"fuß\" FROM \"süd\".\"Straße\";
         CREATE TABLE \"süd\".\"öl\" (a int, wie \"süd\".\"größe\") PARTITION BY HASH (wie);
         CREATE TABLE \"süd\".\"öl_0\" PARTITION OF \"süd\".\"öl\" FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE \"süd\".\"öl_1\" PARTITION OF \"süd\".\"öl\" FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         INSERT INTO \"süd\".\"öl\" VALUES (1, 'groß'), (2, 'klein');
         INSERT INTO \"süd\".\"Straße\" VALUES (1, 'groß'), (2, 'klein'); INSERT INTO \"süd\".hausnummern VALUES (1, 'ä');",
    );
    let backed = Backed::up(source, &[]);
    let target = backed.source.copy();
    // psql speaks the database's encoding by itself.
    let held = |database: &Database| {
        database.sql(
            "SET client_encoding = 'UTF8';
             SELECT c.relkind, c.oid::regclass FROM pg_class c WHERE c.relnamespace = 'süd'::regnamespace
              ORDER BY c.relname COLLATE \"C\";
             SELECT * FROM \"süd\".\"Straße\" ORDER BY 1; SELECT * FROM \"süd\".hausnummern; SELECT * FROM \"süd\".\"öl\" ORDER BY 1;
             SELECT * FROM \"süd\".\"übersicht\" ORDER BY 1; SELECT enum_range(NULL::\"süd\".\"größe\");
             SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f'",
        )
    };
    let whole = held(&target);
    assert!(
        whole.contains("\"Straße\"") && whole.contains("{groß,klein}"),
        "{whole}"
    );
    let injured = "SET client_encoding = 'UTF8'; SET session_replication_role = replica; DELETE FROM \"süd\".\"Straße\"; DELETE FROM \"süd\".\"öl\"";
    for options in [
        &[
            "--table",
            "süd.Straße",
            "--table",
            "süd.öl",
            "--table",
            "süd.übersicht",
            "--clean",
        ][..],
        &["--table", "süd.Straße", "--table", "süd.öl", "--clean", "--data-only"],
        &["--clean", "--check"],
    ] {
        target.sql(injured);
        backed.restored(&target, options);
        assert_eq!(held(&target), whole, "{options:?}");
    }
    // And into a database of another encoding.
    let other = Database::fresh(17);
    backed.restored(&other, &["--check", "--jobs", "2"]);
    let report = backed.restored(&other, &["--clean", "--check"]);
    assert_eq!(report["compared"], 4, "{report:#}");
    assert_eq!(held(&other), whole);
    other.sql("DROP VIEW \"süd\".\"übersicht\"");
    let report = backed.restored(&other, &["--clean", "--exclude", "VIEW:süd.übersicht"]);
    assert_eq!(report["left_out"][0]["what"], "VIEW süd.übersicht", "{report:#}");
}
