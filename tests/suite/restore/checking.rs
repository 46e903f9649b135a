//! What the target holds when all is made, compared with the backup.

use crate::restore::place::{Backed, three};
use crate::support::database::Database;
use crate::support::program::{run, succeed};

#[test]
fn tables_are_compared_with_the_backup_when_all_is_there() {
    let source = three(17);
    source.sql(
        "CREATE TABLE odd (\"a b\" float8, c interval, d timestamptz, e int GENERATED ALWAYS AS (1) STORED, f bytea, g xml);
         INSERT INTO odd VALUES (0.1, '1 mon 3 s', '2024-02-29 12:00+03', DEFAULT, '\\x00ff', '<a/>'),
           ('NaN', NULL, 'infinity', DEFAULT, '', NULL);
         CREATE TABLE empty (); INSERT INTO empty DEFAULT VALUES; CREATE TABLE nothing (a int);
         CREATE TABLE heirs (h int) INHERITS (nothing); INSERT INTO heirs VALUES (1, 2);
         CREATE TYPE kind AS ENUM ('x', 'y', 'z');
         CREATE TABLE parts (id int, kind kind) PARTITION BY HASH (kind);
         CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         INSERT INTO parts SELECT n, (enum_range(NULL::kind))[1 + n % 3] FROM generate_series(1, 90) n;
         SELECT lo_from_bytea(0, 'x');",
    );
    let backed = Backed::up(source, &[]);
    for jobs in ["1", "3"] {
        let target = Database::fresh(17);
        let report = backed.restored(&target, &["--check", "--jobs", jobs]);
        assert_eq!(report["compared"], 9, "{report:#}");
        assert_eq!(report["not_proved"][0]["what"], "large objects", "{report:#}");
        assert_eq!(report["not_proved"].as_array().unwrap().len(), 1, "{report:#}");
    }
    // On another major, and by its own table.
    let target = Database::fresh(18);
    let report = backed.restored(&target, &["--check"]);
    assert_eq!(report["compared"], 9, "{report:#}");
    let target = Database::fresh(17);
    let report = backed.restored(&target, &["--table", "public.odd"]);
    assert_eq!(report["compared"], 1, "{report:#}");
    let report = backed.restored(&target, &["--table", "public.c", "--no-check"]);
    assert!(report.get("compared").is_none(), "{report:#}");
    let planned = succeed(&mut backed.restore(&target.url(), &["--table", "public.a", "--dry-run"])).json();
    assert!(
        planned["steps"].to_string().contains("compare them with the backup"),
        "{planned:#}"
    );
    let both = ["--check", "--no-check"];
    backed.refused(&target.url(), &both, "CONFIG", 2);
}

/// A materialized view whose function writes, as it is filled: once in the source, and once more in the target.
fn what_others_write_meanwhile_is_no_damage(major: u32) {
    let source = Database::fresh(major);
    source.sql(
        "CREATE TABLE log (n int); INSERT INTO log VALUES (1); CREATE TABLE fewer (n int); INSERT INTO fewer VALUES (1), (2);
         CREATE TABLE calm AS SELECT 1 AS n;
         CREATE FUNCTION note() RETURNS int LANGUAGE sql AS
           'INSERT INTO public.log VALUES (7); DELETE FROM public.fewer WHERE n = 2; SELECT 1';
         CREATE MATERIALIZED VIEW noted AS SELECT note() AS one WITH NO DATA; REFRESH MATERIALIZED VIEW noted;
         INSERT INTO fewer VALUES (2)",
    );
    let backed = Backed::up(source, &[]);
    let target = Database::fresh(major);
    let report = backed.restored(&target, &["--check"]);
    assert_eq!(report["compared"], 1, "{report:#}");
    let not_proved = report["not_proved"].as_array().unwrap();
    assert_eq!(not_proved.len(), 2, "{report:#}");
    for one in not_proved {
        assert!(
            one["why"].as_str().unwrap().contains("others have written"),
            "{report:#}"
        );
    }
}

on_majors! { what_others_write_meanwhile_is_no_damage: 15 18 }

#[test]
fn what_changes_rows_on_their_way_is_an_error_that_names_the_table() {
    let source = Database::fresh(17);
    source.sql(
        "CREATE DOMAIN price AS numeric; CREATE TABLE prices (id int, price price);
         INSERT INTO prices SELECT n, n / 7.0 FROM generate_series(1, 100) n;
         CREATE TABLE others (id int); INSERT INTO others VALUES (1);",
    );
    let backed = Backed::up(source, &[]);
    let target = Database::fresh(17);
    // What is there already stays as it is.
    target.sql("CREATE DOMAIN price AS numeric(10, 2)");
    let options = ["--table", "public.prices", "--table", "public.others"];
    let failure = backed.refused(&target.url(), &options, "RESTORE_ERR", 41);
    assert!(
        failure.message.contains("1 of 2 tables") && failure.message.contains("public.prices"),
        "{}",
        failure.message
    );
    assert!(failure.message.contains("were made before that"), "{}", failure.message);
    // The way on past it.
    let options = [&options[..], &["--clean", "--keep-going"]].concat();
    let ended = run(&mut backed.restore(&target.url(), &options));
    assert_eq!(ended.status.code(), Some(4), "{}", ended.stderr);
    let report = ended.json();
    assert_eq!(report["failed"][0]["name"], "public.prices", "{report:#}");
    assert_eq!(report["compared"], 1, "{report:#}");

    let plain = Backed::up(three(17), &["--format", "plain"]);
    for option in ["--check", "--keep-going"] {
        let failure = plain.refused(&Database::fresh(17).url(), &[option], "CONFIG", 2);
        assert!(failure.message.contains("plain script"), "{}", failure.message);
    }
}
