//! What checks, generated columns and views make of their values by the database's own settings: in a restore they make
//! the same of them, while rows are read again as the backup has them.

use crate::job::restore::place::Backed;
use crate::support::database::{Database, psql, quoted};
use crate::support::services::postgres_url;

/// Of a database, however it is restored.
const SETTINGS: [&str; 3] = [
    "timezone = 'Asia/Tokyo'",
    "datestyle = 'German'",
    "bytea_output = 'escape'",
];

fn set(database: &Database, major: u32) {
    for setting in SETTINGS {
        let statement = format!("ALTER DATABASE {} SET {setting}", quoted(&database.name));
        psql(major, &postgres_url(major), &statement);
    }
}

fn source(major: u32) -> Database {
    let source = Database::fresh(major);
    set(&source, major);
    source.sql(
        "CREATE TABLE moments (id int PRIMARY KEY, at timestamptz,
           CHECK (at::date = DATE '2026-03-05'), CHECK (at::text LIKE '05.03.2026 05:%'));
         CREATE TABLE raw (b bytea, shown text GENERATED ALWAYS AS (b::text) STORED);
         CREATE VIEW days AS SELECT DATE '2026-03-05' AS day;
         CREATE FUNCTION is_day(d date) RETURNS boolean LANGUAGE sql
           AS 'SELECT EXISTS (SELECT FROM public.days WHERE day = d)';
         CREATE TABLE dated (id int PRIMARY KEY, d date CHECK (is_day(d)));
         CREATE TABLE events (at timestamptz);
         INSERT INTO moments VALUES (1, '2026-03-04 20:00+00');
         INSERT INTO raw VALUES ('\\x61');
         INSERT INTO dated VALUES (1, '2026-03-05');
         INSERT INTO events SELECT at FROM moments;
         CREATE MATERIALIZED VIEW counted AS SELECT at::date AS day, count(*) AS n FROM events GROUP BY 1",
    );
    source
}

fn what_is_computed_goes_by_the_databases_settings(major: u32) {
    let backed = Backed::up(source(major), &[]);
    let what = "SELECT (SELECT count(*) FROM moments), (SELECT shown FROM raw), (SELECT count(*) FROM dated),
                  (SELECT day || '/' || n FROM counted)";
    let expected = "1|a|1|05.03.2026/1";
    assert_eq!(backed.source.sql(what), expected);

    let target = Database::fresh(major);
    let report = backed.restored(&target, &["--create", "--clean", "--check", "--jobs", "4"]);
    assert_eq!(report["compared"], 4, "{report:#}");
    assert_eq!(target.sql(what), expected);

    let tables = [
        "--table",
        "public.moments",
        "--table",
        "public.raw",
        "--table",
        "public.dated",
    ];
    for more in [
        &["--data-only", "--clean"][..],
        &["--data-only", "--clean", "--keep-going"],
        &["--clean"],
    ] {
        target.sql("DELETE FROM moments; DELETE FROM raw; DELETE FROM dated");
        let report = backed.restored(&target, &[&tables[..], more].concat());
        assert_eq!(report["compared"], 3, "{more:?}: {report:#}");
        assert_eq!(target.sql(what), expected, "{more:?}");
    }
    let copies = [&tables[..4], &["--into", "beside"]].concat();
    let report = backed.restored(&target, &copies);
    assert_eq!(report["compared"], 2, "{report:#}");
    let copied = "SELECT (SELECT at::text FROM beside.moments), (SELECT shown FROM beside.raw)";
    assert_eq!(target.sql(copied), "05.03.2026 05:00:00 JST|a");

    let plain = Backed::up(backed.source, &["--format", "plain"]);
    let target = Database::fresh(major);
    set(&target, major);
    plain.restored(&target, &[]);
    assert_eq!(target.sql(what), expected);
}

on_majors! { what_is_computed_goes_by_the_databases_settings: 15 18 }
