//! `--clean`: what is removed is gone only when the backup's is in its place, whatever has changed since.

use crate::job::restore::place::{Backed, untouched};
use crate::support::contents::Contents;
use crate::support::database::{Database, psql, quoted, unique_word};
use crate::support::lock::Lock;
use crate::support::program::succeed;
use crate::support::services::postgres_url;

fn what_is_removed_is_gone_only_when_the_new_is_there(major: u32) {
    let source = Database::fresh(major);
    source.sql(
        "CREATE TABLE t (id serial PRIMARY KEY, a int UNIQUE); INSERT INTO t (a) SELECT generate_series(1, 20);
         CREATE TABLE z_known (id int PRIMARY KEY, f int); INSERT INTO z_known SELECT n, 10 * n FROM generate_series(1, 5) n;
         CREATE FUNCTION look(a int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT f FROM public.z_known WHERE id = a';
         CREATE TABLE a_comp (id int, f int GENERATED ALWAYS AS (look(id)) STORED); INSERT INTO a_comp VALUES (1), (2);
         CREATE TABLE ref (n int REFERENCES t); CREATE SCHEMA a; CREATE SCHEMA \"a.b\"; CREATE TABLE a.\"b.c\" (n int); CREATE TABLE \"a.b\".c (n int);",
    );
    let backed = Backed::up(source, &[]);
    let target = backed.source.copy();
    // From 17 on a superuser's restore runs no event trigger; from 18 on such a function is looked into too early.
    if major < 17 {
        target.sql(
            "CREATE TABLE ddl_log (what text);
             CREATE FUNCTION log_it() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO ddl_log VALUES (tg_tag); END';
             CREATE EVENT TRIGGER log_it ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION log_it()",
        );
    }
    if major != 17 {
        let three = [
            "--clean",
            "--table",
            "public.t",
            "--table",
            "public.a_comp",
            "--table",
            "public.z_known",
        ];
        let tables = &three[..if major < 17 { 3 } else { 7 }];
        untouched(&target, || {
            let failure = backed.refused(&target.url(), tables, "RESTORE_ERR", 41);
            assert!(
                failure.message.contains("the target is as it was"),
                "{}",
                failure.message
            );
            let named = if major < 17 { "ddl_log" } else { "TABLE public.a_comp" };
            assert!(failure.message.contains(named), "{}", failure.message);
        });
    }
    if major < 17 {
        target.sql("DROP EVENT TRIGGER log_it; DROP TABLE ddl_log; DROP FUNCTION log_it()");
    }

    // Names that are taken.
    let single = &["--table", "public.t", "--clean"][..];
    let sequence = (
        "ALTER SEQUENCE t_id_seq OWNED BY NONE",
        "ALTER SEQUENCE t_id_seq OWNED BY t.id",
    );
    let renamed = ("ALTER TABLE t RENAME TO t_old", "ALTER TABLE t_old RENAME TO t");
    for ((change, back), named, runs) in [
        (sequence, "the sequence public.t_id_seq", &[single][..]),
        (
            renamed,
            "the index public.t_",
            &[single, &["--clean"], &["--clean", "--dry-run"]],
        ),
    ] {
        target.sql(change);
        for options in runs {
            untouched(&target, || {
                let failure = backed.refused(&target.url(), options, "RESTORE_ERR", 41);
                assert!(failure.message.contains(named), "{}", failure.message);
            });
        }
        target.sql(back);
    }

    // Another session's lock on an object that the restore does not touch.
    target.sql(
        "CREATE TABLE r (n int) PARTITION BY RANGE (n); CREATE TABLE r1 PARTITION OF r FOR VALUES FROM (0) TO (9)",
    );
    let lock = Lock::hold(&target, "ONLY r1");
    let mut restore = backed.restore(&target.url(), &["--table", "public.t", "--clean"]);
    restore.env("BACKUP_LOCK_WAIT_SECONDS", "2");
    succeed(&mut restore);
    drop(lock);
    assert_eq!(
        target.sql("SELECT count(*), max(a), (SELECT last_value FROM t_id_seq) FROM t"),
        "20|20|20"
    );

    // And on what it needs, at a step of pg_restore's own.
    target.sql("DROP TABLE ref");
    let lock = Lock::hold(&target, "t");
    let mut restore = backed.restore(&target.url(), &["--table", "public.ref"]);
    restore.env("BACKUP_LOCK_WAIT_SECONDS", "1");
    let failure = crate::support::wreck::fail(&mut restore, "RESTORE_ERR", 41);
    for word in ["within 1 s", "session ", "psql"] {
        assert!(failure.message.contains(word), "{word}: {}", failure.message);
    }
    drop(lock);

    let failure = backed.refused(&target.url(), &["--table", "a.b.c", "--clean"], "CONFIG", 2);
    assert!(
        failure.message.contains("\"a\".\"b.c\", \"a.b\".\"c\""),
        "{}",
        failure.message
    );
    backed.restored(&target, &["--table", "\"a.b\".\"c\"", "--clean"]);
}

on_majors! { what_is_removed_is_gone_only_when_the_new_is_there: 15 18 }

fn what_has_changed_since_is_replaced(major: u32) {
    let source = Database::fresh(major);
    source.sql(&format!(
        "CREATE TABLE z_orders (id int PRIMARY KEY); INSERT INTO z_orders SELECT generate_series(1, 9);
         CREATE VIEW a_report AS SELECT 1 AS id; CREATE MATERIALIZED VIEW a_mat AS SELECT 1 AS id;
         CREATE FUNCTION a_count() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint';
         CREATE SEQUENCE z_seq; CREATE TABLE a_user (n int); CREATE TABLE a_row (n int); CREATE TABLE a_rule (n int);
         CREATE TABLE a_root (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE z_p (id int PRIMARY KEY);
         CREATE TABLE chi (n int); CREATE TABLE par (n int);
         CREATE TABLE t (n int); CREATE INDEX i ON t (n);
         CREATE TABLE turning (n bigint);
         CREATE FUNCTION turn() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM public.turning; END;
         ALTER TABLE turning ALTER n SET DEFAULT turn();
         ALTER DATABASE {0} SET app.one = '1'; ALTER DATABASE {0} SET app.two = '2'",
        quoted(&source.name)
    ));
    let backed = Backed::up(source, &[]);
    let target = backed.source.copy();
    let whole = Contents::of(&target);
    target.sql(&format!(
        "CREATE OR REPLACE VIEW a_report AS SELECT id FROM z_orders;
         DROP MATERIALIZED VIEW a_mat; CREATE MATERIALIZED VIEW a_mat AS SELECT id FROM z_orders;
         CREATE OR REPLACE FUNCTION a_count() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM public.z_orders; END;
         ALTER TABLE a_user ALTER n SET DEFAULT nextval('z_seq'); ALTER TABLE a_row ADD o z_orders;
         CREATE RULE r AS ON INSERT TO a_rule DO ALSO DELETE FROM z_orders;
         ALTER TABLE a_root ATTACH PARTITION z_p FOR VALUES FROM (0) TO (9); ALTER TABLE chi INHERIT par;
         ALTER DATABASE {0} SET app.one = '1'; ALTER DATABASE {0} SET app.two = 'other'",
        quoted(&target.name)
    ));
    let report = backed.restored(&target, &["--clean"]);
    let left = report["left_out"].to_string();
    assert!(left.contains("app.two") && !left.contains("app.one"), "{left}");
    assert!(left.contains("the rule r on public.a_rule"), "{left}");
    whole.assert_equals(&Contents::of(&target));

    // A name of the backup's that another table has by now.
    target.sql("DROP INDEX i; CREATE TABLE mine (b int); CREATE INDEX i ON mine (b)");
    untouched(&target, || {
        let failure = backed.refused(&target.url(), &["--clean"], "RESTORE_ERR", 41);
        assert!(
            failure.message.contains("public.i of public.mine"),
            "{}",
            failure.message
        );
    });
    target.sql("DROP INDEX i; CREATE VIEW theirs AS SELECT id FROM z_orders");
    untouched(&target, || {
        let failure = backed.refused(&target.url(), &["--clean"], "RESTORE_ERR", 41);
        assert!(failure.message.contains("theirs"), "{}", failure.message);
    });
}

on_majors! { what_has_changed_since_is_replaced: 15 18 }

fn a_table_is_replaced_with_its_rows_or_not_at_all(major: u32) {
    let source = Database::fresh(major);
    source.sql(
        "CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent SELECT generate_series(1, 50);
         CREATE TABLE child (id serial PRIMARY KEY, n int REFERENCES parent, word text CHECK (length(word) > 2));
         INSERT INTO child (n, word) SELECT n % 50 + 1, 'word' || n FROM generate_series(1, 5000) n;
         CREATE INDEX child_word ON child (word); CREATE VIEW words AS SELECT word FROM child;
         CREATE MATERIALIZED VIEW many AS SELECT count(*) FROM child; GRANT SELECT ON child TO PUBLIC",
    );
    let backed = Backed::up(source, &[]);
    let target = backed.source.copy();
    let replaced = &["--table", "public.child", "--table", "public.words", "--clean"][..];
    let replaced = [replaced, &["--table", "public.many"]].concat();
    // What fails last: the foreign key, whose rows are there no more; and what fails while rows are loaded.
    target.sql(
        "ALTER TABLE child DROP CONSTRAINT child_n_fkey; DELETE FROM parent WHERE id > 40; DELETE FROM child WHERE id > 9",
    );
    untouched(&target, || {
        let failure = backed.refused(&target.url(), &replaced, "RESTORE_ERR", 41);
        for word in ["child_n_fkey", "the target is as it was"] {
            assert!(failure.message.contains(word), "{word}: {}", failure.message);
        }
    });
    backed.damage("child");
    untouched(&target, || {
        let options = [&replaced[..], &["--no-verify"]].concat();
        let failure = backed.refused(&target.url(), &options, "INTEGRITY", 40);
        for word in ["public.child", "the target is as it was"] {
            assert!(failure.message.contains(word), "{word}: {}", failure.message);
        }
    });
    backed.damage("child");
    let planned = [&replaced[..], &["--dry-run"]].concat();
    let planned = succeed(&mut backed.restore(&target.url(), &planned)).json();
    let steps = planned["steps"].as_array().unwrap();
    assert!(
        steps
            .iter()
            .any(|step| step == "commit: until then everything is as it was"),
        "{planned}"
    );

    target.sql("INSERT INTO parent SELECT generate_series(41, 50)");
    let report = backed.restored(&target, &replaced);
    assert_eq!(report["compared"], 1, "{report}");
    Contents::of(&backed.source).assert_equals(&Contents::of(&target));
    assert_eq!(
        target.sql("INSERT INTO child (n, word) VALUES (1, 'one more') RETURNING id"),
        "5001"
    );
}

on_majors! { a_table_is_replaced_with_its_rows_or_not_at_all: 15 18 }

fn nothing_is_lost_in_silence(major: u32) {
    let reader = format!("reader_{}", unique_word());
    let source = Database::fresh(major);
    source.sql(&format!(
        "CREATE ROLE {reader}; CREATE TABLE orders (id int, at int); CREATE TABLE t (a int, b int);
         CREATE TABLE secret (a int); CREATE FUNCTION open() RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE SCHEMA s; CREATE TABLE s.u (a int); CREATE PUBLICATION own FOR TABLE t;
         ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC; ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC"
    ));
    let backed = Backed::up(source, &[]);
    let target = backed.source.copy();
    target.sql(&format!(
        "ALTER TABLE orders RENAME TO orders_old; CREATE TABLE orders (id int, at int) PARTITION BY RANGE (at);
         CREATE TABLE orders_2025 PARTITION OF orders FOR VALUES FROM (100) TO (200); INSERT INTO orders VALUES (1, 150);
         ALTER TABLE orders ATTACH PARTITION orders_old FOR VALUES FROM (0) TO (100);
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TABLE outside (a int);
         CREATE CONSTRAINT TRIGGER watch AFTER INSERT ON outside FROM t DEFERRABLE FOR EACH ROW EXECUTE FUNCTION f();
         CREATE INDEX newer ON t (a); CREATE STATISTICS counted ON a, b FROM t;
         CREATE TRIGGER late AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
         GRANT SELECT ON t TO {reader}; GRANT UPDATE (b) ON t TO {reader};
         CREATE TABLE mine (n int); ALTER PUBLICATION own ADD TABLE mine;
         CREATE PUBLICATION pu FOR TABLES IN SCHEMA s; ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO {reader}"
    ));
    let public =
        "SELECT count(*) FROM pg_class c, aclexplode(c.relacl) x WHERE c.relname IN ('secret', 't') AND x.grantee = 0";
    let left = |options: &[&str]| backed.restored(&target, options)["left_out"].to_string();
    let told = left(&[
        "--table",
        "public.orders",
        "--table",
        "public.t",
        "--table",
        "public.secret",
        "--clean",
    ]);
    for what in [
        "partition public.orders_2025",
        "partition public.orders_old",
        "the index public.newer",
        "the statistics counted",
        "the trigger late",
        "grants on public.t to ",
        "grants on public.t.b to ",
    ] {
        assert!(told.contains(what), "{what}: {told}");
    }
    let watch = "SELECT tgconstrrelid::regclass FROM pg_trigger WHERE tgname = 'watch'";
    assert_eq!(target.sql(watch), "t");
    assert_eq!(target.sql(public), "0");

    target.sql("ALTER PUBLICATION own SET TABLE t WHERE (a > 0), mine");
    let told = left(&["--clean"]);
    for what in [
        "default privileges of ",
        "in a schema that was replaced",
        "the columns or rows of the membership of public.t in the publication own",
    ] {
        assert!(told.contains(what), "{what}: {told}");
    }
    assert_eq!(target.sql(watch), "t");
    assert_eq!(
        target.sql(
            "SELECT string_agg(pubname || ' ' || tablename, ',' ORDER BY pubname, tablename) FROM pg_publication_tables"
        ),
        "own mine,own t,pu u"
    );
    assert_eq!(target.sql(public), "0");
    assert_eq!(
        target.sql(&format!(
            "SELECT has_function_privilege('{reader}', 'open()', 'EXECUTE')"
        )),
        "t"
    );
    backed
        .source
        .sql("ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC");
    target.sql(&format!("DROP OWNED BY {reader}"));
    backed.source.sql(&format!("DROP ROLE {reader}"));
}

on_majors! { nothing_is_lost_in_silence: 15 18 }

const BARE: &str = "CREATE SCHEMA a; CREATE TABLE a.\"T t\" (id int CONSTRAINT known PRIMARY KEY, w int, n int);
    INSERT INTO a.\"T t\" VALUES (1, 1, 1); CREATE TABLE a.other (id int); CREATE TABLE a.heir () INHERITS (a.other);
    CREATE FUNCTION a.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE FUNCTION a.\"G g\"(\"x y\" int) RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE TYPE a.e AS ENUM ('x'); CREATE DOMAIN a.d AS int; SELECT lo_create(77); SELECT lo_create(78);
    CREATE FOREIGN DATA WRAPPER wrapper; CREATE SERVER far FOREIGN DATA WRAPPER wrapper;";

/// What there is of each kind, on what [`BARE`] makes.
fn adorned(major: u32, reader: &str) -> String {
    let named = if major < 18 {
        "ALTER n SET NOT NULL"
    } else {
        "ADD CONSTRAINT must NOT NULL n"
    };
    format!(
        "GRANT USAGE ON SCHEMA a TO {reader}; GRANT EXECUTE ON FUNCTION a.f() TO {reader};
         REVOKE EXECUTE ON FUNCTION a.\"G g\"(int) FROM PUBLIC; GRANT USAGE ON TYPE a.e, a.d TO {reader};
         GRANT SELECT ON LARGE OBJECT 77 TO {reader}; GRANT USAGE ON FOREIGN SERVER far TO {reader};
         COMMENT ON FUNCTION a.f() IS 'what it does'; COMMENT ON SCHEMA a IS 'what is in it';
         GRANT SELECT ON a.\"T t\" TO {reader}; GRANT UPDATE (w) ON a.\"T t\" TO {reader};
         ALTER TABLE a.\"T t\" ADD CONSTRAINT \"C h\" CHECK (w < 100), ADD CONSTRAINT later CHECK (w < 90) NOT VALID,
           ADD COLUMN \"M m\" text DEFAULT 'more', {named}, ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY,
           REPLICA IDENTITY FULL, CLUSTER ON known, SET (fillfactor = 50), ALTER w SET STATISTICS 77, ALTER w SET (n_distinct = 5);
         COMMENT ON TABLE a.\"T t\" IS 'x'; COMMENT ON COLUMN a.\"T t\".w IS 'y';
         ALTER TABLE a.other OWNER TO {reader}, ALTER id SET NOT NULL, ADD CHECK (id > 0)"
    )
}

fn what_hangs_on_what_is_replaced_is_told(major: u32) {
    let reader = format!("reader_{}", unique_word());
    let source = Database::fresh(major);
    source.sql(&format!("CREATE ROLE {reader}; {BARE}"));
    let backed = Backed::up(source, &[]);
    let target = backed.source.copy();
    target.sql(&adorned(major, &reader));
    let told = |options: &[&str]| {
        let report = backed.restored(&target, options);
        let left = report["left_out"].as_array().cloned().unwrap_or_default();
        let line =
            |one: &serde_json::Value| format!("{}; {}", one["what"].as_str().unwrap(), one["why"].as_str().unwrap());
        left.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    let of_table = told(&["--table", "a.\"T t\"", "--clean"]);
    for what in [
        "the constraint C h of a.\"T t\"; ",
        "ALTER TABLE a.\"T t\" ADD CONSTRAINT \"C h\" CHECK ((w < 100))",
        "the constraint later of",
        "the column \"M m\" of a.\"T t\"; ",
        "its values are lost",
        "NOT NULL of the column \"n\" of",
        "the row security of",
        "FORCE ROW LEVEL SECURITY of",
        "the replica identity of",
        "the order of a.\"T t\" for CLUSTER",
        "the option fillfactor of",
        "the statistics target of a.\"T t\".w",
        "the options of a.\"T t\".w",
        "the comment on a.\"T t\"; ",
        "the comment on a.\"T t\".w; ",
        "GRANT UPDATE (w) ON a.\"T t\" TO reader_",
    ] {
        assert!(of_table.contains(what), "{what}: {of_table}");
    }
    assert!(!of_table.contains("SCHEMA a"), "{of_table}");

    let of_all = told(&["--clean"]);
    for what in [
        "GRANT USAGE ON SCHEMA a TO reader_",
        "grants on ROUTINE a.f() to reader_",
        "REVOKE EXECUTE ON ROUTINE a.\"G g\"(integer) FROM PUBLIC",
        "grants on TYPE a.e to reader_",
        "grants on TYPE a.d to reader_",
        "grants on the large object 77 to reader_",
        "grants on FOREIGN SERVER far to reader_",
        "the comment on ROUTINE a.f(); ",
        "the comment on SCHEMA a; ",
        "as the owner of TABLE a.other; ",
        "NOT NULL of the column \"id\" of a.other",
        "the constraint other_id_check of a.other",
    ] {
        assert!(of_all.contains(what), "{what}: {of_all}");
    }
    // What is no more there is not lost again.
    assert_eq!(told(&["--clean"]), "");
    target.sql(&format!("DROP OWNED BY {reader}"));
    backed.source.sql(&format!("DROP ROLE {reader}"));
}

on_majors! { what_hangs_on_what_is_replaced_is_told: 15 18 }

fn what_the_backup_has_too_is_not_told(major: u32) {
    let reader = format!("reader_{}", unique_word());
    let source = Database::fresh(major);
    source.sql(&format!("CREATE ROLE {reader}; {BARE} {}", adorned(major, &reader)));
    let backed = Backed::up(source, &[]);
    let target = backed.source.copy();
    for options in [&["--table", "a.\"T t\"", "--clean"][..], &["--clean"]] {
        let report = backed.restored(&target, options);
        assert!(report.get("left_out").is_none(), "{report:#}");
    }
    // Another value of it is.
    for options in [&["--table", "a.\"T t\"", "--clean"][..], &["--clean"]] {
        target.sql(
            "ALTER TABLE a.\"T t\" SET (fillfactor = 55), ALTER w SET STATISTICS 7, ALTER w SET (n_distinct = 50)",
        );
        let left = backed.restored(&target, options)["left_out"].to_string();
        for what in [
            "the option fillfactor of a.",
            "SET (fillfactor='55')",
            "SET STATISTICS 7\"",
            "SET (n_distinct=50)",
            "another value",
        ] {
            assert!(left.contains(what), "{what}: {left}");
        }
    }
    for database in [&target, &backed.source] {
        database.sql(&format!("DROP OWNED BY {reader} CASCADE"));
    }
    psql(major, &postgres_url(major), &format!("DROP ROLE {reader}"));
}

on_majors! { what_the_backup_has_too_is_not_told: 15 18 }

fn what_only_others_may_do_is_found_before(major: u32) {
    let app = format!("app_{}", unique_word());
    let source = Database::fresh(major);
    source.sql(&format!(
        "CREATE ROLE {app} LOGIN PASSWORD 'its secret'; CREATE SCHEMA x AUTHORIZATION {app};
         CREATE TABLE x.p (n int PRIMARY KEY); ALTER TABLE x.p OWNER TO {app}; INSERT INTO x.p VALUES (1), (2);
         CREATE FUNCTION x.trusted() RETURNS int LANGUAGE sql LEAKPROOF AS 'SELECT 1'; ALTER FUNCTION x.trusted() OWNER TO {app};
         CREATE FUNCTION x.loud() RETURNS int LANGUAGE sql SET log_min_messages TO 'fatal' AS 'SELECT 1'; ALTER FUNCTION x.loud() OWNER TO {app};
         CREATE SUBSCRIPTION sub CONNECTION 'dbname=nowhere password=x' PUBLICATION p
           WITH (connect = false, slot_name = NONE, enabled = false, create_slot = false)"
    ));
    let backed = Backed::up(source, &[]);
    backed.source.sql("DROP SUBSCRIPTION sub");
    let target = backed.source.copy();
    let name = quoted(&target.name);
    let url = target.url_as(Some((&app, "its secret")));
    target.sql("TRUNCATE x.p");
    succeed(&mut backed.restore(&url, &["--table", "x.p", "--clean"]));
    assert_eq!(target.sql("SELECT count(*) FROM x.p"), "2");

    // With these in it the schema would stay, and need no right to make one.
    target.sql("DROP FUNCTION x.trusted(), x.loud()");
    let (trusted, loud) = ("function:x.trusted", "function:x.loud");
    let options = ["--clean", "--no-subscriptions", "--exclude", trusted, "--exclude", loud];
    let refused = backed.refused(&url, &options, "PERMISSION", 13);
    assert!(refused.hint.contains("GRANT CREATE ON DATABASE"), "{}", refused.hint);
    target.sql(&format!("GRANT CREATE ON DATABASE {name} TO {app}"));
    untouched(&target, || {
        let options = ["--clean", "--no-subscriptions", "--dry-run"];
        let refused = backed.refused(&url, &options, "PERMISSION", 13);
        assert!(refused.message.contains("FUNCTION x.loud()"), "{}", refused.message);
        let options = ["--clean", "--no-subscriptions", "--exclude", loud];
        let refused = backed.refused(&url, &options, "PERMISSION", 13);
        assert!(refused.message.contains("FUNCTION x.trusted()"), "{}", refused.message);
    });
    succeed(&mut backed.restore(&url, &options));

    target.sql(
        "CREATE SUBSCRIPTION sub CONNECTION 'dbname=nowhere password=x' PUBLICATION p
           WITH (connect = false, slot_name = 'a_slot', enabled = false, create_slot = false)",
    );
    let refused = backed.refused(&target.url(), &["--clean"], "RESTORE_ERR", 41);
    assert!(refused.hint.contains("--no-subscriptions"), "{}", refused.hint);
    backed.restored(&target, &["--clean", "--no-subscriptions"]);
    target.sql("ALTER SUBSCRIPTION sub SET (slot_name = NONE)");
    target.sql("DROP SUBSCRIPTION sub");
    for database in [&target, &backed.source] {
        database.sql(&format!("DROP OWNED BY {app} CASCADE"));
    }
    psql(major, &postgres_url(major), &format!("DROP ROLE {app}"));
}

on_majors! { what_only_others_may_do_is_found_before: 15 18 }
