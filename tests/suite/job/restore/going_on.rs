//! `--keep-going`: what fails is told, and the rest is there.

use serde_json::Value;

use crate::job::restore::place::Backed;
use crate::support::database::{Database, quoted, unique_word};
use crate::support::program::{Run, run};
use crate::support::role::Role;

/// Rows that break a foreign key, a check that has become stricter, an index whose function fails, and tables and views
/// that a target may refuse.
fn faulty(major: u32) -> Database {
    let source = Database::fresh(major);
    source.sql(
        "CREATE TABLE parents (id int PRIMARY KEY, name text);
         CREATE TABLE children (id int PRIMARY KEY, parent int, other int);
         CREATE INDEX children_parent ON children (parent);
         CREATE FUNCTION allowed(n int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
         CREATE FUNCTION inverse(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n';
         CREATE TABLE strict (id int PRIMARY KEY, n int CHECK (public.allowed(n)));
         CREATE TABLE uses (id int REFERENCES strict);
         CREATE INDEX strict_n ON strict (n);
         CREATE INDEX fragile ON children (inverse(other));
         CREATE TABLE doomed (id int PRIMARY KEY, t text);
         CREATE INDEX doomed_t ON doomed (t);
         CREATE VIEW seen AS SELECT id FROM doomed;
         COMMENT ON VIEW seen IS 'of it';
         CREATE TABLE fine (id int PRIMARY KEY, t text);
         CREATE INDEX fine_t ON fine (t);
         INSERT INTO parents SELECT n, 'x' FROM generate_series(1, 50) n;
         INSERT INTO children SELECT n, n, n - 7 FROM generate_series(1, 60) n;
         INSERT INTO strict SELECT n, n FROM generate_series(1, 30) n;
         INSERT INTO uses SELECT n FROM generate_series(1, 10) n;
         INSERT INTO doomed SELECT n, 'd' FROM generate_series(1, 20) n;
         INSERT INTO fine SELECT n, md5(n::text) FROM generate_series(1, 500) n;
         ALTER TABLE children ADD CONSTRAINT other_pairs UNIQUE (other);
         ALTER TABLE children ADD CONSTRAINT own FOREIGN KEY (parent) REFERENCES parents NOT VALID;
         UPDATE pg_constraint SET convalidated = true WHERE conname = 'own';
         ALTER TABLE fine ADD CONSTRAINT itself FOREIGN KEY (id) REFERENCES fine;
         CREATE OR REPLACE FUNCTION allowed(n int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT n < 25';
         CREATE OR REPLACE FUNCTION inverse(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 10 / n';",
    );
    source
}

/// Where something else has the name of a table.
fn refusing(major: u32) -> Database {
    let target = Database::fresh(major);
    target.sql("CREATE TYPE doomed AS ENUM ('x')");
    target
}

fn partial(backed: &Backed, target: &Database, options: &[&str]) -> Value {
    let options = [options, &["--keep-going"]].concat();
    let Run { status, stdout, stderr } = run(&mut backed.restore(&target.url(), &options));
    let report: Value = serde_json::from_slice(&stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    assert_eq!(status.code(), Some(4), "{report:#}\n{stderr}");
    assert_eq!(report["status"], "partial", "{report:#}");
    assert!(stderr.contains("warning[PARTIAL]: "), "{stderr}");
    backed.site.assert_nothing_runs();
    report
}

/// Kind, name, code, SQLSTATE, and of what it is a consequence.
fn failed(report: &Value) -> Vec<String> {
    let list = report["failed"].as_array().unwrap();
    let mut lines: Vec<String> = list
        .iter()
        .map(|one| {
            let text = |name: &str| one[name].as_str().unwrap_or("-").to_owned();
            assert!(!text("message").is_empty(), "{one}");
            let rows = one["rows_lost"]
                .as_u64()
                .map_or(String::new(), |rows| format!(" {rows} rows"));
            format!(
                "{} {}: {} {}{rows} by {}",
                text("kind"),
                text("name"),
                text("code"),
                text("sqlstate"),
                text("consequence_of")
            )
        })
        .collect();
    lines.sort();
    lines
}

const OF_ROWS: [&str; 4] = [
    "FK CONSTRAINT public.children own: RESTORE_ERR 23503 by -",
    "FK CONSTRAINT public.uses uses_id_fkey: RESTORE_ERR 23503 by TABLE DATA public.strict",
    "INDEX public.fragile: RESTORE_ERR 22012 by -",
    "TABLE DATA public.strict: RESTORE_ERR 23514 30 rows by -",
];

const OF_TABLE: [&str; 6] = [
    "COMMENT public.VIEW seen: RESTORE_ERR 42P01 by VIEW public.seen",
    "CONSTRAINT public.doomed doomed_pkey: RESTORE_ERR 42P01 by TABLE public.doomed",
    "INDEX public.doomed_t: RESTORE_ERR 42P01 by TABLE public.doomed",
    "TABLE DATA public.doomed: RESTORE_ERR - 20 rows by TABLE public.doomed",
    "TABLE public.doomed: RESTORE_ERR 42710 by -",
    "VIEW public.seen: RESTORE_ERR 42P01 by TABLE public.doomed",
];

fn indexes(database: &Database) -> String {
    database.sql("SELECT string_agg(indexname, ' ' ORDER BY indexname) FROM pg_indexes WHERE schemaname = 'public'")
}

const MADE: &str = "children_parent children_pkey fine_pkey fine_t other_pairs parents_pkey strict_n strict_pkey";

fn what_fails_is_told_and_the_rest_is_there(major: u32) {
    let backed = Backed::up(faulty(major), &[]);
    let mut all = [&OF_ROWS[..], &OF_TABLE].concat();
    all.sort_unstable();
    for jobs in ["1", "4"] {
        let target = refusing(major);
        let report = partial(&backed, &target, &["--jobs", jobs, "--clean"]);
        assert_eq!(failed(&report), all, "{report:#}");
        assert_eq!(indexes(&target), MADE);
        let held =
            "SELECT (SELECT count(*) FROM parents), (SELECT count(*) FROM children), (SELECT count(*) FROM strict),
                      (SELECT count(*) FROM uses), (SELECT count(*) FROM fine),
                      (SELECT count(*) FROM pg_constraint WHERE conname = 'itself')";
        assert_eq!(target.sql(held), "50|60|0|10|500|1");
        // Only existing objects count.
        assert_eq!(
            (&report["tables"], &report["rows"]),
            (&4.into(), &620.into()),
            "{report:#}"
        );
        let fragile = report["failed"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["name"] == "public.fragile");
        assert!(
            fragile.unwrap()["message"]
                .as_str()
                .unwrap()
                .contains("division by zero"),
            "{report:#}"
        );
        // No row of the backup's is quoted.
        assert!(!report.to_string().contains("(parent)=(51)"), "{report:#}");
    }
    // Into a database that is made, and compared with what came in.
    let target = Database::fresh(major);
    let report = partial(&backed, &target, &["--create", "--clean", "--check"]);
    assert_eq!(failed(&report), OF_ROWS, "{report:#}");
    assert_eq!(report["compared"], 5, "{report:#}");
    assert_eq!(target.sql("SELECT count(*) FROM seen"), "20");
    // Single tables; then once more over the same tables.
    let target = Database::fresh(major);
    let options = [
        "--table",
        "public.children",
        "--table",
        "public.parents",
        "--table",
        "public.strict",
    ];
    for more in [&[][..], &["--clean"]] {
        let report = partial(&backed, &target, &[&options, more].concat());
        let of_others = |line: &&str| !line.contains("uses");
        let expected: Vec<&str> = OF_ROWS.into_iter().filter(of_others).collect();
        assert_eq!(failed(&report), expected, "{report:#}");
        assert_eq!(report["compared"], 2, "{report:#}");
    }
    // Bytes that differ are never loaded; their neighbours of the same pg_restore are.
    backed.damage("fine");
    let target = Database::fresh(major);
    let report = partial(&backed, &target, &["--jobs", "2"]);
    let mut expected = OF_ROWS.to_vec();
    expected.push("TABLE DATA public.fine: INTEGRITY - 500 rows by -");
    expected.sort_unstable();
    assert_eq!(failed(&report), expected, "{report:#}");
    assert_eq!(
        target.sql("SELECT (SELECT count(*) FROM fine), (SELECT count(*) FROM parents)"),
        "0|50"
    );

    // Where all goes well it says so.
    backed
        .source
        .sql("ALTER TABLE children DROP CONSTRAINT own; DROP INDEX fragile; DELETE FROM strict WHERE n > 20");
    let backed = Backed::up(backed.source.copy(), &[]);
    backed.restored(&Database::fresh(major), &["--keep-going", "--jobs", "2"]);
    rows_are_put_back_past_a_table_that_is_refused(&backed);
}

/// In place: a table is as it is in the backup, or as it was.
fn rows_are_put_back_past_a_table_that_is_refused(backed: &Backed) {
    let target = backed.source.copy();
    target.sql(
        "DELETE FROM fine WHERE id > 50; ALTER TABLE fine ADD CONSTRAINT less CHECK (id <= 100); DELETE FROM parents;
         TRUNCATE uses",
    );
    let tables = [
        "--table",
        "public.fine",
        "--table",
        "public.parents",
        "--table",
        "public.uses",
    ];
    let report = partial(backed, &target, &[&tables[..], &["--data-only", "--clean"]].concat());
    assert_eq!(
        failed(&report),
        ["TABLE DATA public.fine: RESTORE_ERR 23514 500 rows by -"],
        "{report:#}"
    );
    assert_eq!(
        (&report["compared"], &report["tables"]),
        (&2.into(), &2.into()),
        "{report:#}"
    );
    let held = "SELECT (SELECT count(*) FROM fine), (SELECT count(*) FROM parents), (SELECT count(*) FROM uses)";
    assert_eq!(target.sql(held), "50|50|10");
    // What would break a reference is not put back at all.
    target.sql(
        "DELETE FROM fine WHERE id > 3; CREATE TABLE looks (id int REFERENCES fine); INSERT INTO looks VALUES (3)",
    );
    target.sql("DELETE FROM parents; ALTER TABLE fine DROP CONSTRAINT less; INSERT INTO fine VALUES (1000, 'new'); INSERT INTO looks VALUES (1000)");
    let options = [&tables[..], &["--data-only", "--clean", "--keep-going"]].concat();
    let failure = backed.refused(&target.url(), &options, "RESTORE_ERR", 41);
    assert!(failure.message.contains("nothing was changed"), "{}", failure.message);
    assert_eq!(target.sql(held), "4|0|10");
}

on_majors! { what_fails_is_told_and_the_rest_is_there: 15 18 }

/// pg_dump loads partitions by the hash of an enum through their root: each may get rows of the other's block.
fn rows_of_another_partition_are_not_taken_for_its_own(major: u32) {
    let source = Database::fresh(major);
    source.sql(
        "DO $$ BEGIN
           EXECUTE 'CREATE TYPE label AS ENUM (' || (SELECT string_agg(quote_literal('l' || n), ', ') FROM generate_series(1, 40) n) || ')';
         END $$;
         CREATE TABLE hashed (id int, by label) PARTITION BY HASH (by);
         CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         CREATE TABLE beside AS SELECT generate_series(1, 100) AS n;
         INSERT INTO hashed SELECT n, ('l' || 1 + n % 40)::label FROM generate_series(1, 4000) n;",
    );
    let rows = |name: &str| -> u64 { source.sql(&format!("SELECT count(*) FROM {name}")).parse().unwrap() };
    let (kept, lost) = (rows("hashed_0"), rows("hashed_1"));
    assert!(kept > 0 && lost > 0 && kept + lost == 4000, "{kept} and {lost}");
    let backed = Backed::up(source, &[]);
    backed.damage("hashed_1");
    for jobs in ["1", "2"] {
        let target = Database::fresh(major);
        let report = partial(&backed, &target, &["--jobs", jobs]);
        let expected = format!("TABLE DATA public.hashed_1: INTEGRITY - {lost} rows by -");
        assert_eq!(failed(&report), [expected], "{report:#}");
        assert_eq!(report["rows"], kept + 100, "{report:#}");
        let held = "SELECT (SELECT count(*) FROM hashed), (SELECT count(DISTINCT id) FROM hashed), (SELECT count(*) FROM beside)";
        assert_eq!(target.sql(held), format!("{kept}|{kept}|100"));
    }
}

on_majors! { rows_of_another_partition_are_not_taken_for_its_own: 15 18 }

#[test]
fn a_reference_that_the_backup_itself_breaks_has_a_way_on() {
    let source = Database::fresh(17);
    source.sql(
        "CREATE TABLE parents (id int PRIMARY KEY); CREATE TABLE children (parent int); INSERT INTO children VALUES (1);
         ALTER TABLE children ADD CONSTRAINT own FOREIGN KEY (parent) REFERENCES parents NOT VALID;
         UPDATE pg_constraint SET convalidated = true WHERE conname = 'own'",
    );
    let backed = Backed::up(source, &[]);
    let target = Database::fresh(17);
    let failed = backed.refused(&target.url(), &[], "RESTORE_ERR", 41);
    assert!(
        failed.message.contains("FK CONSTRAINT children own"),
        "{}",
        failed.message
    );
    for option in ["--exclude", "--keep-going"] {
        assert!(failed.hint.contains(option), "{}", failed.hint);
    }
    backed.restored(&target, &["--clean", "--exclude", "fk-constraint:children own"]);
    partial(&backed, &target, &["--clean"]);
}

/// It is made and filled, and only lacks its owner, who may make nothing in its schema.
fn an_owner_that_cannot_be_set_costs_no_table(major: u32) {
    let (holder, owner) = (format!("holder_{}", unique_word()), format!("owner_{}", unique_word()));
    let source = Database::fresh(major);
    source.sql(&format!(
        "CREATE ROLE {holder}; CREATE ROLE {owner}; CREATE SCHEMA s AUTHORIZATION {holder};
         CREATE TABLE s.one AS SELECT generate_series(1, 3) AS n; ALTER TABLE s.one OWNER TO {owner}"
    ));
    let backed = Backed::up(source, &[]);
    let target = Database::fresh(major);
    let restorer = Role::fresh(&target, "its own secret", "");
    target.sql(&format!(
        "GRANT {holder}, {owner} TO {to}; GRANT CREATE ON DATABASE {name} TO {to}",
        to = quoted(&restorer.name),
        name = quoted(&target.name)
    ));
    let url = target.url_as(Some((&restorer.name, &restorer.password)));
    let refused = backed.refused(&url, &[], "PERMISSION", 13);
    assert!(refused.message.contains("nothing was changed"), "{}", refused.message);
    assert!(refused.hint.contains("--keep-going"), "{}", refused.hint);
    let Run { status, stdout, stderr } = run(&mut backed.restore(&url, &["--keep-going"]));
    let report: Value = serde_json::from_slice(&stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    assert_eq!(status.code(), Some(4), "{report:#}");
    assert_eq!(failed(&report), ["OWNER TABLE s.one: RESTORE_ERR - by -"], "{report:#}");
    let told = report["failed"][0]["message"].as_str().unwrap();
    assert!(told.starts_with("the owner of TABLE s.one was not set: "), "{told}");
    assert_eq!(
        (&report["tables"], &report["rows"]),
        (&1.into(), &3.into()),
        "{report:#}"
    );
    assert_eq!(target.sql("SELECT count(*) FROM s.one"), "3");
    for database in [&target, &backed.source] {
        database.sql(&format!("DROP SCHEMA s CASCADE; DROP OWNED BY {holder}, {owner}"));
    }
    target.sql(&format!(
        "DROP OWNED BY {}; DROP ROLE {holder}; DROP ROLE {owner}",
        quoted(&restorer.name)
    ));
}

on_majors! { an_owner_that_cannot_be_set_costs_no_table: 15 18 }

#[test]
fn an_extension_that_the_server_lacks_costs_what_needs_it() {
    let source = Database::fresh(15);
    // Gone since 17.
    source.sql("CREATE EXTENSION adminpack; CREATE TABLE kept AS SELECT generate_series(1, 5) AS n");
    let backed = Backed::up(source, &[]);
    let target = Database::fresh(18);
    let refused = backed.refused(&target.url(), &[], "RESTORE_ERR", 41);
    assert!(refused.message.contains("adminpack"), "{}", refused.message);
    let report = partial(&backed, &target, &[]);
    let all = failed(&report);
    assert!(
        all[0].starts_with("COMMENT EXTENSION adminpack: ") && all[0].ends_with(" by EXTENSION adminpack"),
        "{all:?}"
    );
    assert_eq!(all[1..], ["EXTENSION adminpack: RESTORE_ERR 0A000 by -"], "{report:#}");
    assert_eq!(target.sql("SELECT count(*) FROM kept"), "5");
}
