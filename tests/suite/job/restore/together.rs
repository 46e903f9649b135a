//! A restore that is one transaction: all of the backup, or the target as it was.

use std::time::Duration;

use rustix::process::Signal;

use crate::job::restore::place::{Backed, untouched};
use crate::job::restore::stopping::{gone, midway, slow};
use crate::support::contents::Contents;
use crate::support::database::{Database, quoted};
use crate::support::program::succeed;
use crate::support::server::OwnServer;

/// An index that a setting of the database keeps from being made: last of all.
fn source(major: u32) -> Database {
    let source = Database::fresh(major);
    source.sql(
        "CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent SELECT generate_series(1, 50);
         CREATE TABLE child (id serial PRIMARY KEY, n int REFERENCES parent, word text);
         INSERT INTO child (n, word) SELECT n % 50 + 1, 'word' || n FROM generate_series(1, 5000) n;
         CREATE FUNCTION picky(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
           'BEGIN IF current_setting(''app.fails'', true) = ''on'' THEN RAISE EXCEPTION ''picky''; END IF; RETURN n; END';
         CREATE INDEX by_picky ON child (picky(n));
         CREATE MATERIALIZED VIEW many AS SELECT count(*) FROM child;
         CREATE TABLE sale (at int) PARTITION BY RANGE (at); CREATE TABLE sale_1 PARTITION OF sale FOR VALUES FROM (0) TO (100);
         INSERT INTO sale SELECT generate_series(0, 99); CREATE PUBLICATION p FOR TABLE parent;
         SELECT lo_from_bytea(4711, decode(repeat('00ff', 300000), 'hex')); SELECT lo_from_bytea(4712, '');
         COMMENT ON LARGE OBJECT 4711 IS 'long'; GRANT SELECT ON LARGE OBJECT 4711 TO PUBLIC; GRANT SELECT ON child TO PUBLIC;
         CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
         CREATE EVENT TRIGGER e ON sql_drop EXECUTE FUNCTION e(); COMMENT ON EVENT TRIGGER e IS 'quiet'",
    );
    source
}

fn a_restore_leaves_all_of_the_backup_or_the_target_as_it_was(major: u32) {
    let backed = Backed::up(source(major), &[]);
    let target = backed.source.copy();
    // What has changed since, and what points at it from outside.
    target.sql(
        "DELETE FROM child WHERE id > 9; UPDATE child SET word = 'newer'; DROP EVENT TRIGGER e; DROP INDEX by_picky;
         SELECT lo_put(4711, 0, 'changed'), lo_create(4713), setval('child_id_seq', 7000);
         CREATE TABLE outside (id int REFERENCES parent); INSERT INTO outside VALUES (1); REFRESH MATERIALIZED VIEW many",
    );
    let fails = format!("ALTER DATABASE {} SET app.fails = 'on'", quoted(&target.name));
    let ways = [&["--clean"][..], &["--clean", "--single-transaction"]];
    for way in ways {
        // While rows are loaded.
        backed.damage("sale_1");
        untouched(&target, || {
            let failure = backed.refused(&target.url(), &[way, &["--no-verify"]].concat(), "INTEGRITY", 40);
            for word in ["sale_1", "was rolled back: the target is as it was"] {
                assert!(failure.message.contains(word), "{word}: {}", failure.message);
            }
        });
        backed.damage("sale_1");
        // And when all of them are there.
        target.sql(&fails);
        untouched(&target, || {
            let failure = backed.refused(&target.url(), way, "RESTORE_ERR", 41);
            for word in ["picky", "was rolled back: the target is as it was"] {
                assert!(failure.message.contains(word), "{word}: {}", failure.message);
            }
        });
        target.sql(&format!("ALTER DATABASE {} RESET app.fails", quoted(&target.name)));
        let planned = succeed(&mut backed.restore(&target.url(), &[way, &["--dry-run"]].concat())).json();
        assert!(planned["steps"].to_string().contains("commit: until then"), "{planned}");
    }
    for way in ways {
        let report = backed.restored(&target, &[way, &["--check"]].concat());
        assert!(report.get("not_proved").is_none(), "{report}");
        let kept = "SELECT (SELECT count(*) FROM outside), (SELECT count(*) FROM pg_constraint
            WHERE conrelid = 'outside'::regclass AND contype = 'f')";
        assert_eq!(target.sql(kept), "1|1");
        assert_eq!(target.sql("SELECT nextval('child_id_seq')"), "5001");
    }
    target.sql("SELECT lo_unlink(4713), setval('child_id_seq', 5000); DROP TABLE outside");
    Contents::of(&backed.source).assert_equals(&Contents::of(&target));
    // With several jobs rows are loaded by several sessions.
    let planned = succeed(&mut backed.restore(&target.url(), &["--clean", "--jobs", "2", "--dry-run"])).json();
    assert!(
        !planned["steps"].to_string().contains("commit: until then"),
        "{planned}"
    );
}

on_majors! { a_restore_leaves_all_of_the_backup_or_the_target_as_it_was: 15 18 }

fn an_empty_database_stays_empty_or_gets_all_of_it(major: u32) {
    let backed = Backed::up(source(major), &[]);
    let target = Database::fresh(major);
    let name = quoted(&target.name);
    target.sql(&format!("ALTER DATABASE {name} SET app.fails = 'on'"));
    untouched(&target, || {
        let failure = backed.refused(&target.url(), &["--single-transaction"], "RESTORE_ERR", 41);
        for word in ["picky", "was rolled back: the target is as it was"] {
            assert!(failure.message.contains(word), "{word}: {}", failure.message);
        }
    });
    target.sql(&format!("ALTER DATABASE {name} RESET app.fails"));
    let single = ["--table", "public.sale", "--single-transaction"];
    backed.restored(&target, &single);
    assert_eq!(target.sql("SELECT count(*) FROM sale"), "100");
    target.sql("DROP TABLE sale");
    backed.restored(&target, &["--single-transaction", "--check"]);
    Contents::of(&backed.source).assert_equals(&Contents::of(&target));
}

on_majors! { an_empty_database_stays_empty_or_gets_all_of_it: 15 18 }

#[test]
fn one_transaction_is_one_session_and_all_or_nothing() {
    let backed = Backed::up(crate::job::restore::place::three(17), &[]);
    let target = backed.source.copy();
    untouched(&target, || {
        for (others, named) in [
            (&["--jobs", "2", "--clean"][..], "--jobs"),
            (&["--keep-going"], "--keep-going"),
            (&["--create", "--clean"], "--create"),
        ] {
            let options = [others, &["--single-transaction"]].concat();
            let failure = backed.refused(&target.url(), &options, "CONFIG", 2);
            for word in [named, "--single-transaction"] {
                assert!(failure.message.contains(word), "{word}: {}", failure.message);
            }
        }
    });
}

/// Also on a server whose locks do not suffice: it is found before anything is changed.
#[test]
fn a_lock_table_that_is_too_small_is_found_before() {
    let source = Database::fresh(15);
    let tables: String = (0..100)
        .map(|n| format!("CREATE TABLE t{n} AS SELECT {n} AS n;"))
        .collect();
    source.sql(&tables);
    let backed = Backed::up(source, &[]);
    let server = OwnServer::start_with(15, &["max_locks_per_transaction=10", "max_connections=20"]);
    let target = server.database("narrow");
    target.sql("CREATE TABLE t0 AS SELECT -1 AS n");
    for more in [&[][..], &["--dry-run"]] {
        untouched(&target, || {
            let options = [&["--clean", "--single-transaction"][..], more].concat();
            let failure = backed.refused(&target.url(), &options, "RESTORE_ERR", 41);
            for word in ["lock table has room for", "nothing was changed"] {
                assert!(failure.message.contains(word), "{word}: {}", failure.message);
            }
            assert!(failure.hint.contains("max_locks_per_transaction"), "{}", failure.hint);
        });
    }
    let planned = succeed(&mut backed.restore(&target.url(), &["--clean", "--dry-run"])).json();
    assert!(
        !planned["steps"].to_string().contains("commit: until then"),
        "{planned}"
    );
    // There is room for the definitions of these tables, but not for their removal too.
    let tables: Vec<String> = (0..45).map(|n| format!("public.t{n}")).collect();
    let named = tables.iter().flat_map(|table| ["--table", table.as_str()]);
    let named: Vec<&str> = named.chain(["--clean", "--dry-run"]).collect();
    let planned = succeed(&mut backed.restore(&target.url(), &named)).json();
    assert!(
        !planned["steps"].to_string().contains("commit: until then"),
        "{planned}"
    );
    backed.restored(&target, &["--clean"]);
    assert_eq!(target.sql("SELECT (SELECT n FROM t0), (SELECT n FROM t99)"), "0|99");
}

#[test]
fn a_kill_midway_leaves_the_rows_that_were_there() {
    let backed = Backed::up(slow(), &[]);
    let target = Database::fresh(17);
    target.sql(
        "CREATE TABLE big AS SELECT n, 'mine' AS text FROM generate_series(1, 5) n; ALTER TABLE big ADD PRIMARY KEY (n);
         CREATE TABLE small (n int REFERENCES big); INSERT INTO small VALUES (5);
         CREATE TABLE outside (n int REFERENCES big)",
    );
    let before = Contents::of(&target);
    for signal in [Signal::KILL, Signal::TERM] {
        let mut running = backed.site.start(&mut backed.restore(&target.url(), &["--clean"]));
        midway(&mut running, &target);
        running.signal(signal);
        drop(running.end(Duration::from_secs(10)));
        gone(&backed, &target);
        before.assert_equals(&Contents::of(&target));
    }
    let report = backed.restored(&target, &["--clean"]);
    assert!(
        report["left_out"]
            .to_string()
            .contains("the foreign key outside_n_fkey"),
        "{report}"
    );
    assert_eq!(target.sql("SELECT count(*) FROM big"), "1500000");
}

/// Over a Unix socket, which holds few bytes. The function asks for its own warnings, which no setting of the session
/// turns off, and keeps them out of the server's log.
#[test]
fn a_check_that_warns_of_every_row_does_not_stop_the_restore() {
    let function = |body: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION public.warns(int) RETURNS boolean LANGUAGE plpgsql
             SET client_min_messages = 'warning' SET log_min_messages = 'fatal' AS 'BEGIN {body} RETURN true; END'"
        )
    };
    let source = Database::fresh(17);
    source.sql(&format!(
        "{}; CREATE TABLE t (n int CHECK (public.warns(n))); INSERT INTO t SELECT generate_series(1, 100000); {}",
        function(""),
        function("RAISE WARNING ''%'', repeat(''x'', 4096);")
    ));
    let backed = Backed::up(source, &[]);
    let server = OwnServer::start(17);
    let target = server.database("warned");
    target.sql("CREATE TABLE t (n int)");
    let url = format!(
        "postgresql://postgres:{}@/{}?host={}&port={}",
        target.password(),
        target.name,
        server.data().parent().unwrap().display(),
        target.address().1
    );
    let report = succeed(&mut backed.restore(&url, &["--clean"])).json();
    assert_eq!(report["status"], "restored", "{report}");
    assert_eq!(target.sql("SELECT count(*) FROM t"), "100000");
}
