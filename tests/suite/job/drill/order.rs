//! One backup has one verdict, however often and by how many at once it is drilled; and what the drill's own sessions
//! would do by the database's settings, they do not.

use super::{drill, meddling, results};
use crate::support::database::{Database, unique_word};
use crate::support::program::{run, succeed};
use crate::support::services::postgres_bin;
use crate::support::wreck::Site;

fn a_database_that_minds_every_order_has_one_verdict(major: u32) {
    let (site, database) = (Site::new(), Database::fresh(major));
    let role = format!("owner_{}", unique_word());
    database.sql(&format!(
        "CREATE ROLE {role}; ALTER ROLE {role} SET search_path = nowhere; ALTER ROLE {role} SET statement_timeout = '1ms';
         CREATE TABLE z (id int PRIMARY KEY); INSERT INTO z SELECT generate_series(1, 2000);
         CREATE FUNCTION in_z(a int) RETURNS boolean LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM public.z WHERE id = a)';
         CREATE TABLE c (id int CHECK (in_z(id))); INSERT INTO c SELECT generate_series(1, 500);
         CREATE FUNCTION in_c(a int) RETURNS boolean LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM public.c WHERE id = a)';
         CREATE TABLE b (id int CHECK (in_c(id))); INSERT INTO b SELECT generate_series(1, 50);
         CREATE DOMAIN known AS int CHECK (in_z(VALUE));
         CREATE TABLE a (id known); INSERT INTO a SELECT generate_series(1, 50);
         CREATE SEQUENCE counted; SELECT nextval('counted');
         CREATE MATERIALIZED VIEW numbers AS SELECT id, nextval('counted') AS n FROM c;
         CREATE MATERIALIZED VIEW of_numbers AS SELECT count(*) FROM numbers;
         CREATE FUNCTION ticks(a int) RETURNS boolean LANGUAGE sql AS 'SELECT nextval(''public.counted'') > 0';
         CREATE TABLE ticking (id int CHECK (ticks(id))); INSERT INTO ticking SELECT generate_series(1, 50);
         ALTER TABLE b OWNER TO {role};
         DO $$ DECLARE setting text; BEGIN
           FOREACH setting IN ARRAY ARRAY['default_transaction_read_only = on', 'search_path = nowhere',
             'statement_timeout = ''1s'''] LOOP
             EXECUTE format('ALTER DATABASE %I SET %s', current_database(), setting);
           END LOOP;
           EXECUTE format('COMMENT ON DATABASE %I IS ''minds''', current_database());
           EXECUTE format('GRANT CREATE ON DATABASE %I TO {role}', current_database()); END $$"
    ));
    succeed(&mut site.backup(&database.url()));
    for jobs in ["1", "8", "1", "8", "3", "8"] {
        let report = succeed(drill(&site).env("BACKUP_JOBS", jobs)).json();
        assert_eq!(report["drill"]["status"], "ok", "{jobs}: {report:#}");
        assert_eq!(report["drill"]["partly"], false, "{jobs}: {report:#}");
        let lefts = report["drill"]["not_proved"].as_array().unwrap();
        let lefts: Vec<&str> = lefts.iter().map(|left| left["what"].as_str().unwrap()).collect();
        let expected = ["settings", "comment", "grants"].map(|what| format!("the database's own {what}"));
        assert_eq!(lefts, expected, "{jobs}: {report:#}");
        let results = results(&report);
        assert_eq!(results.len(), 5);
        assert!(
            results.iter().all(|(_, result)| result == "equal"),
            "{jobs}: {results:?}"
        );
    }
    site.assert_nothing_runs();
}

on_majors! { a_database_that_minds_every_order_has_one_verdict: 15 18 }

#[test]
fn numbers_that_the_restore_itself_takes_are_no_damage_and_others_are() {
    let database = Database::fresh(17);
    database.sql(
        "CREATE SEQUENCE of_view; CREATE SEQUENCE of_index INCREMENT -2; CREATE SEQUENCE left_alone;
         SELECT setval('of_view', 7), setval('of_index', -9, false), setval('left_alone', 7);
         CREATE FUNCTION taken(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
           'BEGIN PERFORM nextval(''public.of_index''); RETURN a; END';
         CREATE TABLE t (a int); INSERT INTO t SELECT generate_series(1, 5);
         CREATE INDEX taking ON t (taken(a));
         CREATE MATERIALIZED VIEW numbered AS SELECT nextval('of_view') AS n FROM t",
    );
    for format in ["custom", "plain"] {
        let site = Site::new();
        succeed(site.backup(&database.url()).args(["--format", format]));
        let report = succeed(&mut drill(&site)).json();
        assert_eq!(report["drill"]["status"], "ok", "{format}: {report:#}");
        assert_eq!(report["drill"]["sequences"], 3, "{format}: {report:#}");
        if format == "plain" {
            continue;
        }
        // As it were if a position had not been set.
        let undone = "SELECT setval('public.left_alone', 1, false);";
        let bin = meddling(&site, 17, "positions", undone);
        let mut command = drill(&site);
        command.env(
            "BACKUP_PG_BIN",
            format!("{}:{}", bin.display(), postgres_bin(17).display()),
        );
        let report = run(&mut command).json();
        let problems = report["drill"]["problems"].as_array().unwrap();
        assert_eq!(problems.len(), 1, "{report:#}");
        assert_eq!(problems[0]["table"], "SEQUENCE SET public.left_alone", "{report:#}");
    }
}

/// A foreign key or a trigger would come after all rows.
#[test]
fn a_script_whose_check_looks_for_later_rows_is_told_so() {
    let (site, database) = (Site::new(), Database::fresh(17));
    database.sql(
        "CREATE TABLE z (id int PRIMARY KEY); INSERT INTO z VALUES (1);
         CREATE FUNCTION in_z(a int) RETURNS boolean LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM public.z WHERE id = a)';
         CREATE TABLE c (id int CONSTRAINT \"looks for\" CHECK (in_z(id))); INSERT INTO c VALUES (1)",
    );
    succeed(site.backup(&database.url()).args(["--format", "plain"]));
    let run = run(&mut drill(&site));
    assert_eq!(run.status.code(), Some(40), "{}", run.stderr);
    let report = run.json();
    let advice = report["drill"]["advice"].as_str().unwrap();
    assert!(
        advice.contains("in its own order") && advice.contains("foreign key"),
        "{report:#}"
    );
}
