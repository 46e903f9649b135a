//! What checks, generated columns and views make of their values by the database's own settings: in a restore they make
//! the same of them, while rows are read again as the backup has them.

use crate::job::restore::place::Backed;
use crate::job::restore::roles::MASTER;
use crate::support::database::{Database, psql, quoted};
use crate::support::program::succeed;
use crate::support::server::OwnServer;
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

/// A custom setting belongs to superusers. A managed service's master user cannot give it to a new database, and what
/// is computed would differ without a word.
fn a_custom_setting_that_the_role_may_not_give_is_there_while_it_computes(major: u32) {
    let source = Database::fresh(major);
    let name = quoted(&source.name);
    psql(
        major,
        &postgres_url(major),
        &format!(
            "ALTER DATABASE {name} SET shop.vat = '1.19'; ALTER DATABASE {name} SET shop.label = 'it''s \\ our own';
             ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'; ALTER DATABASE {name} SET log_statement = 'none';
             ALTER DATABASE {name} SET shop.long = '{}'",
            // Longer than all options of a session may be.
            "x".repeat(12_000)
        ),
    );
    source.sql(
        "CREATE FUNCTION gross(n numeric) RETURNS numeric IMMUTABLE LANGUAGE sql
           AS 'SELECT n * coalesce(current_setting(''shop.vat'', true), ''1'')::numeric';
         CREATE TABLE sold (net numeric, gross numeric GENERATED ALWAYS AS (public.gross(net)) STORED);
         INSERT INTO sold VALUES (100);
         CREATE VIEW labels AS SELECT current_setting('shop.label', true) AS label;
         CREATE MATERIALIZED VIEW shown AS SELECT public.gross(net) AS gross, label FROM sold, labels",
    );
    let backed = Backed::up(source, &[]);
    let computed = "SELECT (SELECT gross FROM sold), (SELECT gross || '/' || label FROM shown)";
    let expected = "119.00|119.00/it's \\ our own";
    assert_eq!(backed.source.sql(computed), expected);

    let server = OwnServer::start(major);
    psql(major, &server.url(), MASTER);
    let target = server.database("made");
    let name = quoted(&target.name);
    psql(major, &server.url(), &format!("DROP DATABASE {name}"));
    let url = target.url_as(Some(("master", "its secret")));
    let planned = succeed(&mut backed.restore(&url, &["--create", "--no-owner", "--dry-run"])).json();
    let told = planned["left_out"].to_string();
    for options in [
        &["--create", "--no-owner", "--jobs", "2"][..],
        &["--create", "--clean", "--no-owner"],
    ] {
        let report = succeed(&mut backed.restore(&url, options)).json();
        assert_eq!(target.sql(computed), expected, "{report:#}");
        assert_eq!(report["left_out"].to_string(), told, "{report:#}");
        assert_eq!(report["warnings"], planned["warnings"], "{report:#}");
        assert_eq!(target.sql("SHOW timezone"), "Asia/Tokyo");
        // Later sessions do not have it, which was told before anything was changed, with the statement that helps.
        assert_eq!(target.sql("SELECT label IS NULL FROM labels"), "t");
    }
    for what in ["shop.vat", "shop.label", "log_statement", "shop.long"] {
        let statement = format!("ALTER DATABASE {name} SET \"{what}\" TO …").replace('"', "\\\"");
        assert!(told.contains(&statement), "{statement}: {told}");
    }
    assert!(!told.contains("our own") && !told.contains("1.19"), "{told}");
    target.sql(&format!("ALTER DATABASE {name} SET shop.label = 'it''s \\ our own'"));
    assert_eq!(target.sql("SELECT label FROM labels"), "it's \\ our own");
}

on_majors! { a_custom_setting_that_the_role_may_not_give_is_there_while_it_computes: 15 18 }
