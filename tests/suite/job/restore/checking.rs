//! What the target holds when all is made, compared with the backup.

use std::time::Duration;

use crate::job::restore::place::{Backed, ended, three};
use crate::support::database::{Database, try_psql};
use crate::support::lock::Lock;
use crate::support::program::{run, succeed};
use crate::support::silent_proxy::{Silence, SilentProxy};

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
        assert!(report.get("not_proved").is_none(), "{report:#}");
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
            one["why"].as_str().unwrap().contains("other sessions have written"),
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
    // Existing objects stay as they are.
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

/// The large object 4713 stays as it is.
fn large_objects_that_changed_or_are_gone_are_an_error_that_names_them(major: u32) {
    let source = Database::fresh(major);
    let name = &source.name;
    source.sql(&format!(
        "SELECT lo_from_bytea(4711, 'abc'), lo_from_bytea(4712, 'def'), lo_from_bytea(4713, convert_to(repeat('ghi', 2000000), 'UTF8')),
                lo_from_bytea(4714, '');
         CREATE TABLE few (n int); INSERT INTO few VALUES (1);
         CREATE FUNCTION spoil(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
           IF current_database() <> '{name}' THEN
             PERFORM pg_catalog.lo_put(4711, 0, '\\x00'), pg_catalog.lo_unlink(4712); END IF;
           RETURN n; END $$"
    ));
    // Without the index that spoils them they are equal.
    let backed = Backed::up(source, &[]);
    let report = backed.restored(&Database::fresh(major), &["--check"]);
    assert!(report.get("not_proved").is_none(), "{report:#}");
    assert_eq!(
        (&report["compared"], &report["large_objects"]),
        (&1.into(), &4.into()),
        "{report:#}"
    );

    backed.source.sql("CREATE INDEX ON few (spoil(n))");
    let backed = Backed::up(backed.source, &[]);
    let failure = backed.refused(&Database::fresh(major).url(), &["--check"], "RESTORE_ERR", 41);
    assert!(
        failure.message.contains("differs in 2 of 4: ")
            && failure.message.contains("4711 (as many bytes, and other ones)")
            && failure.message.contains("4712 (it is not there)"),
        "{}",
        failure.message
    );
    let ended = run(&mut backed.restore(&Database::fresh(major).url(), &["--check", "--keep-going"]));
    assert_eq!(ended.status.code(), Some(4), "{}", ended.stderr);
    assert_eq!(ended.json()["failed"][0]["name"], "large objects", "{}", ended.text());
}

on_majors! { large_objects_that_changed_or_are_gone_are_an_error_that_names_them: 15 18 }

/// Between its rows and the comparison an index takes its time to be made.
fn leisurely() -> Database {
    let source = Database::fresh(17);
    source.sql(
        "CREATE TABLE wanted (n int); INSERT INTO wanted SELECT generate_series(1, 100);
         CREATE TABLE free (n int); INSERT INTO free VALUES (1), (2);
         CREATE FUNCTION slow(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN n; END $$;
         CREATE INDEX slowly ON free (slow(n));
         CREATE OR REPLACE FUNCTION slow(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
           $$ BEGIN PERFORM pg_sleep(2); RETURN n; END $$",
    );
    source
}

#[test]
fn a_table_that_others_hold_during_the_comparison_is_not_proved_and_names_them() {
    let backed = Backed::up(leisurely(), &[]);
    let target = Database::fresh(17);
    let mut command = backed.restore(&target.url(), &["--check", "--jobs", "2"]);
    let mut running = backed.site.start(command.env("BACKUP_LOCK_WAIT_SECONDS", "1"));
    // Its rows are there, and nothing but the comparison asks for it any more.
    let loaded = || try_psql(17, &target.url(), "SELECT count(*) FROM wanted").text().trim() == "100";
    running.until("the rows are loaded", loaded);
    let lock = Lock::hold(&target, "wanted");
    let run = running.end(Duration::from_secs(20));
    drop(lock);
    assert_eq!(run.status.code(), Some(0), "{}", run.stderr);
    let report = run.json();
    assert_eq!(
        (&report["status"], &report["compared"]),
        (&"restored".into(), &1.into()),
        "{report:#}"
    );
    let left = &report["not_proved"][0];
    assert_eq!(left["what"], "public.wanted", "{report:#}");
    let why = left["why"].as_str().unwrap();
    assert!(
        why.contains("could not be locked within 1 s; held by session ") && why.contains("psql"),
        "{why}"
    );
    backed.site.assert_nothing_runs();
}

#[test]
fn a_server_that_falls_silent_during_the_comparison_is_stalled_and_nothing_hangs() {
    let source = Database::fresh(17);
    source.sql("CREATE TABLE t (n int); INSERT INTO t SELECT generate_series(1, 100); SELECT lo_from_bytea(0, 'x')");
    let backed = Backed::up(source, &[]);
    // Nothing but the comparison says these words.
    let (rows, objects) = (&b" TO STDOUT"[..], &b"pg_catalog.lo_lseek64"[..]);
    for (words, of) in [(rows, "the rows"), (objects, "the large objects")] {
        let target = Database::fresh(17);
        let proxy = SilentProxy::start(target.address(), words);
        let mut command = backed.restore(&proxy.before(&target.url()), &["--check"]);
        let running = backed.site.start(command.env("BACKUP_STALL_SECONDS", "3"));
        let run = running.end(Duration::from_secs(20));
        assert!(proxy.was_silent(), "{}", run.stderr);
        let told = ended(&run, "STALLED", 22);
        let silence = format!("has given no byte of {of} for 3 s");
        assert!(told.message.contains(&silence), "{}", told.message);
        assert_eq!(target.sql("SELECT count(*) FROM t"), "100");
        backed.site.assert_nothing_runs();
    }
}

/// A server that stops answering ends every way to load rows, with nothing changed where that is one transaction.
#[test]
fn a_server_that_falls_silent_while_rows_are_loaded_is_stalled_and_nothing_hangs() {
    let source = Database::fresh(17);
    source.sql("CREATE TABLE t (n int); INSERT INTO t SELECT generate_series(1, 100)");
    let backed = Backed::up(source, &[]);
    let table = &["--table", "public.t"][..];
    for (options, whole) in [
        (&[][..], false),
        (&["--create"], false),
        (&[table, &["--clean"]].concat(), true),
        (&[table, &["--data-only", "--clean"]].concat(), true),
        (&[table, &["--into", "apart"]].concat(), true),
    ] {
        let target = match options {
            [] | ["--create"] => Database::fresh(17),
            _ => backed.source.copy(),
        };
        let url = match options {
            ["--create"] => format!("{}/{}_new", target.url().rsplit_once('/').unwrap().0, target.name),
            _ => target.url(),
        };
        let proxy = SilentProxy::of(target.address(), b" FROM stdin", Silence::Server);
        let mut command = backed.restore(&proxy.before(&url), options);
        let running = backed.site.start(command.env("BACKUP_STALL_SECONDS", "2"));
        let run = running.end(Duration::from_secs(30));
        assert!(proxy.was_silent(), "{options:?} {}", run.stderr);
        let told = ended(&run, "STALLED", 22);
        assert!(
            told.message.contains("has answered no question for 2 s"),
            "{options:?} {}",
            told.message
        );
        if whole {
            assert_eq!(target.sql("SELECT count(*) FROM t"), "100", "{options:?}");
        }
        if options == ["--create"] {
            target.sql(&format!("DROP DATABASE {}_new WITH (FORCE)", target.name));
        }
        backed.site.assert_nothing_runs();
    }
}
