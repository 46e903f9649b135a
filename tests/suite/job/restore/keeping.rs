//! What `--clean` leaves as it is: objects that are left out, with all that belongs to them, and schemas in which
//! something stays. Also the rights on the objects that it makes.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::job::restore::place::{Backed, untouched};
use crate::support::database::{Database, psql, quoted, unique_word};
use crate::support::program::succeed;
use crate::support::server::OwnServer;
use crate::support::services::postgres_url;

const KEPT: &str = "CREATE TABLE lone (a int); INSERT INTO lone VALUES (5); CREATE INDEX li ON lone (a);
    GRANT SELECT ON lone TO PUBLIC; CREATE SEQUENCE sq; SELECT setval('sq', 10);
    CREATE SCHEMA sc; CREATE TABLE sc.x (a int); INSERT INTO sc.x VALUES (1); CREATE TABLE sc.y (a int);
    CREATE TABLE t (a int); INSERT INTO t VALUES (1); CREATE VIEW on_t AS SELECT a FROM t;
    CREATE TABLE par (id int PRIMARY KEY, v text); INSERT INTO par VALUES (1, 'old');
    CREATE TABLE kid (id serial, p int CONSTRAINT kfk REFERENCES par); INSERT INTO kid (p) VALUES (1);
    CREATE MATERIALIZED VIEW mv AS SELECT count(*) AS c FROM kid;
    CREATE TABLE pt (a int PRIMARY KEY) PARTITION BY RANGE (a);
    CREATE TABLE p1 PARTITION OF pt FOR VALUES FROM (0) TO (10); CREATE TABLE p2 PARTITION OF pt DEFAULT;
    INSERT INTO pt VALUES (1), (11); SELECT lo_from_bytea(77, 'abc');
    CREATE TYPE e AS ENUM ('a'); CREATE FUNCTION f(a e) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
    CREATE TABLE typed (a e CHECK (f(a) > 0), n int GENERATED ALWAYS AS IDENTITY); INSERT INTO typed VALUES ('a');
    CREATE EXTENSION citext WITH SCHEMA sc";

/// Since the backup; and what of it is still there.
const SINCE: &str = "UPDATE lone SET a = 6; DROP INDEX li; REVOKE ALL ON lone FROM PUBLIC; SELECT setval('sq', 500);
    UPDATE sc.x SET a = 7; INSERT INTO t VALUES (2); UPDATE par SET v = 'new'; INSERT INTO kid (p) VALUES (1);
    INSERT INTO pt VALUES (2), (12); SELECT lo_put(77, 0, 'zzz'); INSERT INTO typed VALUES ('a')";
const SHOWN: &str = "SELECT (SELECT string_agg(a::text, '+') FROM lone), to_regclass('li'),
    (SELECT last_value FROM sq), (SELECT string_agg(a::text, '+') FROM sc.x), (SELECT count(*) FROM t),
    (SELECT v FROM par), (SELECT count(*) FROM kid), (SELECT c FROM mv),
    (SELECT string_agg(a::text, '+' ORDER BY a) FROM pt), convert_from(lo_get(77), 'UTF8'), (SELECT count(*) FROM typed),
    (SELECT count(*) FROM pg_constraint WHERE conname = 'kfk'), (SELECT count(*) FROM pg_inherits)";

fn what_is_left_out_stays_as_it_is_under_clean(major: u32) {
    let source = Database::fresh(major);
    source.sql(KEPT);
    let backed = Backed::up(source, &[]);
    let now = |column: usize, kept: &str| {
        let whole = "5|li|10|1|1|old|1|1|1+11|abc|1|1|4";
        let mut columns: Vec<String> = whole.split('|').map(str::to_owned).collect();
        kept.clone_into(&mut columns[column]);
        columns
    };
    let lone = || {
        let mut columns = now(0, "6");
        columns[1].clear();
        columns
    };
    for (option, expected) in [
        ("TABLE:public.lone", lone()),
        ("TABLE-DATA:public.lone", lone()),
        ("SEQUENCE:public.sq", now(2, "500")),
        ("SEQUENCE-SET:public.sq", now(2, "500")),
        ("TABLE:sc.x", now(3, "7")),
        ("SCHEMA:sc", now(3, "7")),
        ("EXTENSION:citext", now(3, "1")),
        ("TABLE-DATA:public.t", now(4, "2")),
        ("TABLE:public.par", now(5, "new")),
        ("SEQUENCE:public.kid_id_seq", now(6, "1")),
        ("TABLE:public.p1", now(8, "1+2+11")),
        ("TABLE:public.pt", now(8, "1+2+11+12")),
        ("BLOBS", now(9, "zzz")),
        ("TABLE:public.typed", now(10, "2")),
    ] {
        for jobs in ["1", "4"] {
            let target = backed.source.copy();
            target.sql(SINCE);
            let options = ["--clean", "--jobs", jobs, "--exclude", option];
            let report = backed.restored(&target, &options);
            assert_eq!(target.sql(SHOWN), expected.join("|"), "{option}: {report:#}");
        }
    }
    // With an index that is made again, and the key that its own needs.
    let target = backed.source.copy();
    target.sql("ALTER TABLE par DROP CONSTRAINT par_pkey CASCADE");
    let report = backed.restored(&target, &["--clean", "--exclude", "TABLE:public.par"]);
    assert_eq!(target.sql("SELECT count(*) FROM par"), "1");
    let left = report["left_out"].to_string();
    assert!(left.contains("FK CONSTRAINT public.kid kfk"), "{left}");
    assert!(left.contains("with what is left out"), "{left}");

    // What it needs stays too, and is told.
    let target = backed.source.copy();
    let report = backed.restored(&target, &["--clean", "--exclude", "TABLE:public.typed"]);
    let left = report["left_out"].to_string();
    for what in ["TYPE public.e", "FUNCTION public.f(", "which is left out, needs it"] {
        assert!(left.contains(what), "{what}: {left}");
    }
    // What cannot stay is found before.
    for (option, what) in [
        ("VIEW:public.on_t", "TABLE public.t"),
        ("MATERIALIZED-VIEW:public.mv", "TABLE public.kid"),
        ("SEQUENCE:public.typed_n_seq", "TABLE public.typed"),
    ] {
        untouched(&target, || {
            let refused = backed.refused(&target.url(), &["--clean", "--exclude", option], "RESTORE_ERR", 41);
            assert!(refused.message.contains(what), "{}", refused.message);
            assert!(refused.hint.contains("--exclude 'TABLE:public."), "{}", refused.hint);
            assert!(refused.message.contains("nothing was changed"), "{}", refused.message);
        });
    }
    untouched(&target, || {
        let both = ["--clean", "--table", "public.t", "--exclude", "TABLE:public.t"];
        backed.refused(&target.url(), &both, "CONFIG", 2);
    });
    // A partition of a table that is named.
    target.sql(SINCE);
    let options = ["--clean", "--table", "public.pt", "--exclude", "TABLE:public.p1"];
    backed.restored(&target, &options);
    assert_eq!(
        target.sql("SELECT string_agg(a::text, '+' ORDER BY a) FROM pt"),
        "1+2+11"
    );
}

on_majors! { what_is_left_out_stays_as_it_is_under_clean: 15 18 }

fn a_schema_in_which_something_stays_is_left_as_it_is(major: u32) {
    let source = Database::fresh(major);
    source.sql(
        "CREATE SCHEMA app; COMMENT ON SCHEMA app IS 'before'; CREATE TABLE app.t (a int); INSERT INTO app.t VALUES (1);
         CREATE TYPE app.r AS RANGE (subtype = int); CREATE AGGREGATE app.agg(*) (sfunc = int8inc, stype = int8, initcond = '0');
         CREATE FUNCTION app.f(a int, b text) RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE TABLE app.ids (id int GENERATED ALWAYS AS IDENTITY, s serial); CREATE SCHEMA \"Other one\"",
    );
    let backed = Backed::up(source, &[]);
    let target = backed.source.copy();
    // What the backup has all of is made anew.
    target.sql("COMMENT ON SCHEMA app IS 'since'; INSERT INTO app.t VALUES (2)");
    let report = backed.restored(&target, &["--clean"]);
    assert_eq!(report["left_out"], Value::Null, "{report:#}");
    let comment = "SELECT obj_description('app'::regnamespace)";
    assert_eq!(target.sql(comment), "before");

    for thing in [
        "TABLE app.since AS SELECT 1 AS a",
        "FUNCTION app.f(a text) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "TYPE app.since AS (a int)",
        "SEQUENCE app.since OWNED BY app.t.a",
    ] {
        let target = backed.source.copy();
        target.sql(&format!(
            "CREATE {thing}; COMMENT ON SCHEMA app IS 'since'; INSERT INTO app.t VALUES (2)"
        ));
        let report = backed.restored(&target, &["--clean"]);
        assert_eq!(target.sql("SELECT count(*) FROM app.t"), "1");
        assert_eq!(target.sql(comment), "since");
        let left = report["left_out"].to_string();
        assert!(left.contains("SCHEMA app") && !left.contains("SCHEMA Other"), "{left}");
        assert!(
            left.contains("since it contains objects that are not replaced"),
            "{left}"
        );
    }
}

on_majors! { a_schema_in_which_something_stays_is_left_as_it_is: 15 18 }

/// Of tables, sequences, functions and types in `public`, one a line.
const GRANTS: &str = "WITH object AS (
       SELECT relname AS name, coalesce(relacl, acldefault((CASE relkind WHEN 'S' THEN 's' ELSE 'r' END)::\"char\", relowner)) AS acl
         FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S', 'v')
       UNION ALL SELECT proname, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace
       UNION ALL SELECT typname, coalesce(typacl, acldefault('T', typowner)) FROM pg_type
        WHERE typnamespace = 'public'::regnamespace AND typtype = 'e')
    SELECT o.name, x.grantee::regrole, x.privilege_type FROM object o, aclexplode(o.acl) x ORDER BY 1, 2, 3";

fn what_is_made_has_the_backups_grants_alone(major: u32) {
    let role = format!("ro_{}", unique_word());
    let source = Database::fresh(major);
    source.sql(&format!(
        "CREATE ROLE {role}; ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO {role};
         ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC; ALTER DEFAULT PRIVILEGES REVOKE USAGE ON TYPES FROM PUBLIC;
         ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO {role};
         CREATE FUNCTION sd() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'; REVOKE ALL ON FUNCTION sd() FROM {role};
         CREATE FUNCTION pubf() RETURNS int LANGUAGE sql AS 'SELECT 1'; GRANT EXECUTE ON FUNCTION pubf() TO PUBLIC;
         CREATE SEQUENCE sq; REVOKE ALL ON SEQUENCE sq FROM {role};
         CREATE TYPE ty AS ENUM ('a'); GRANT USAGE ON TYPE ty TO PUBLIC; SELECT lo_create(7001);
         CREATE TABLE uses (a int DEFAULT sd(), b int DEFAULT pubf(), c int DEFAULT nextval('sq'), d ty);
         CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, s serial); REVOKE ALL ON SEQUENCE t_id_seq, t_s_seq FROM {role}"
    ));
    let backed = Backed::up(source, &[]);
    let exact = backed.source.sql(GRANTS);
    // Prerequisites of a table that is brought back.
    let target = backed.source.copy();
    target.sql("DROP TABLE uses; DROP FUNCTION sd(); DROP FUNCTION pubf(); DROP SEQUENCE sq; DROP TYPE ty");
    backed.restored(&target, &["--table", "public.uses"]);
    assert_eq!(target.sql(GRANTS), exact);
    target.sql("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC; DROP TABLE t");
    backed.restored(&target, &["--table", "public.t"]);
    assert_eq!(target.sql(GRANTS), exact);

    // The sequence of an identity column.
    target.sql("ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC");
    for options in [
        &["--table", "public.t", "--clean"][..],
        &["--clean"],
        &["--clean", "--jobs", "2"],
    ] {
        backed.restored(&target, options);
        assert_eq!(target.sql(GRANTS), exact, "{options:?}");
    }
    if major >= 18 {
        let objects =
            "SELECT x.grantee::regrole, x.privilege_type FROM pg_largeobject_metadata m, aclexplode(m.lomacl) x
            WHERE x.grantee <> m.lomowner";
        target.sql("ALTER DEFAULT PRIVILEGES GRANT SELECT ON LARGE OBJECTS TO PUBLIC");
        for options in [
            &["--clean"][..],
            &["--clean", "--jobs", "2"],
            &["--clean", "--keep-going"],
        ] {
            backed.restored(&target, options);
            assert_eq!(target.sql(objects), "", "{options:?}");
        }
    }
    // A whole restore without --clean leaves it to the target, and says so.
    let fresh = Database::fresh(major);
    fresh.sql(&format!(
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC, {role}"
    ));
    let report = succeed(&mut backed.restore(&fresh.url(), &[])).json();
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains(&format!("tables to PUBLIC, {role}")), "{warnings}");
    for database in [&target, &fresh, &backed.source] {
        database.sql(&format!("DROP OWNED BY {role} CASCADE"));
    }
    psql(major, &postgres_url(major), &format!("DROP ROLE {role}"));
}

on_majors! { what_is_made_has_the_backups_grants_alone: 15 18 }

fn grants_on_what_an_extension_has_made_are_told(major: u32) {
    let role = format!("extra_{}", unique_word());
    let source = Database::fresh(major);
    source.sql("CREATE EXTENSION pg_stat_statements; CREATE EXTENSION citext; CREATE EXTENSION postgres_fdw");
    let backed = Backed::up(source, &[]);
    let target = backed.source.copy();
    assert_eq!(backed.restored(&target, &["--clean"])["left_out"], Value::Null);
    target.sql(&format!(
        "CREATE ROLE {role}; REVOKE SELECT ON pg_stat_statements FROM PUBLIC; GRANT SELECT ON pg_stat_statements TO {role};
         REVOKE EXECUTE ON FUNCTION citext_eq(citext, citext) FROM PUBLIC; REVOKE USAGE ON TYPE citext FROM PUBLIC;
         GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO {role}"
    ));
    let left = backed.restored(&target, &["--clean"])["left_out"].to_string();
    for what in [
        "that PUBLIC has no SELECT on TABLE public.pg_stat_statements".to_owned(),
        format!("grants on TABLE public.pg_stat_statements to {role}"),
        "that PUBLIC has no EXECUTE on ROUTINE public.citext_eq(".to_owned(),
        "that PUBLIC has no USAGE on TYPE public.citext".to_owned(),
        format!("grants on FOREIGN DATA WRAPPER postgres_fdw to {role}"),
    ] {
        assert!(left.contains(&what), "{what}: {left}");
    }
    target.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

on_majors! { grants_on_what_an_extension_has_made_are_told: 15 18 }

/// Of an extension whose trigger changes what comes into its configuration table.
const WATCHED: &str = "CREATE TABLE @extschema@.parent (id int PRIMARY KEY, v text);
    CREATE FUNCTION @extschema@.mark() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.v := 'changed'; RETURN NEW; END$$;
    CREATE TRIGGER mark BEFORE INSERT ON @extschema@.parent FOR EACH ROW EXECUTE FUNCTION @extschema@.mark();
    SELECT pg_catalog.pg_extension_config_dump('@extschema@.parent', '');";

#[test]
fn rows_of_an_extension_come_as_they_are_in_the_backup() {
    let folder = tempfile::tempdir().unwrap();
    let extensions = folder.path().join("extension");
    fs::create_dir(&extensions).unwrap();
    fs::write(
        extensions.join("pgstow_watched.control"),
        "default_version = '1.0'\nrelocatable = false\nschema = watched\n",
    )
    .unwrap();
    fs::write(extensions.join("pgstow_watched--1.0.sql"), WATCHED).unwrap();
    for path in [folder.path(), &extensions] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let place = format!("extension_control_path=$system:{}", folder.path().display());
    let server = OwnServer::start_with(18, &[&place]);
    let source = server.database("source");
    source.sql(
        "CREATE EXTENSION pgstow_watched; INSERT INTO watched.parent VALUES (5); UPDATE watched.parent SET v = 'real';
         CREATE TABLE t AS SELECT 1 AS a",
    );
    let backed = Backed::up(source, &[]);
    for options in [
        &[] as &[&str],
        &["--jobs", "4"],
        &["--keep-going"],
        &["--single-transaction"],
    ] {
        let target = server.database("target");
        backed.restored(&target, options);
        assert_eq!(target.sql("SELECT v FROM watched.parent"), "real", "{options:?}");
        target.sql("INSERT INTO watched.parent VALUES (6)");
        assert_eq!(target.sql("SELECT v FROM watched.parent WHERE id = 6"), "changed");
        for more in [&["--clean"][..], &["--clean", "--jobs", "2"]] {
            backed.restored(&target, more);
            assert_eq!(target.sql("SELECT v FROM watched.parent"), "real", "{more:?}");
        }
    }
    let target = server.database("target");
    let refused = backed.refused(&target.url(), &["--table", "watched.parent"], "NOT_FOUND", 42);
    assert!(
        refused.message.contains("an extension makes the table itself"),
        "{}",
        refused.message
    );
}

fn a_view_waits_for_another_that_its_function_reads(major: u32) {
    let source = Database::fresh(major);
    source.sql(
        "CREATE TABLE t AS SELECT 1 AS a;
         CREATE FUNCTION counted() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM public.z_view); END';
         CREATE MATERIALIZED VIEW z_view AS SELECT a FROM t; CREATE MATERIALIZED VIEW b_view AS SELECT public.counted() AS c;
         CREATE UNIQUE INDEX on_b ON b_view (c)",
    );
    let backed = Backed::up(source, &[]);
    for options in [
        &[] as &[&str],
        &["--jobs", "4"],
        &["--keep-going"],
        &["--clean"],
        &["--clean", "--jobs", "2"],
    ] {
        let target = Database::fresh(major);
        backed.restored(&target, options);
        assert_eq!(target.sql("SELECT c FROM b_view"), "1", "{options:?}");
    }
    let target = Database::fresh(major);
    target.sql("CREATE MATERIALIZED VIEW other AS SELECT 1 AS a");
    backed.restored(&target, &["--clean"]);
    // One that fails for good is the error.
    backed.source.sql("ALTER MATERIALIZED VIEW z_view RENAME TO y_view");
    let mut backup = backed.site.backup(&backed.source.url());
    let id = succeed(&mut backup).json()["id"].clone();
    let again = Backed {
        report: serde_json::json!({ "id": id }),
        ..backed
    };
    for options in [&["--jobs", "2"][..], &["--single-transaction"]] {
        let target = Database::fresh(major);
        let refused = again.refused(&target.url(), options, "RESTORE_ERR", 41);
        assert!(refused.message.contains("b_view"), "{}", refused.message);
    }
}

on_majors! { a_view_waits_for_another_that_its_function_reads: 15 18 }

fn what_goes_with_other_things_is_told(major: u32) {
    let role = format!("extra_{}", unique_word());
    let source = Database::fresh(major);
    source.sql(
        "CREATE TABLE t (id int PRIMARY KEY, v text, w int CHECK (w > 0)); CREATE TABLE kid (p int REFERENCES t);
         CREATE TABLE plain (a int DEFAULT 3, b text COLLATE \"C\" DEFAULT 'x'); CREATE VIEW vv AS SELECT a, b FROM plain; CREATE TABLE loose (a int);
         ALTER VIEW vv ALTER b SET DEFAULT 'known';
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
         CREATE TRIGGER tt BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f(); CREATE DOMAIN d AS int; CREATE INDEX i ON t (v);
         CREATE DOMAIN known AS int DEFAULT 3 NOT NULL CONSTRAINT big CHECK (value > 2);
         CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
         CREATE EVENT TRIGGER evt ON sql_drop EXECUTE FUNCTION e(); CREATE PUBLICATION pu FOR TABLE plain;
         CREATE EXTENSION citext; COMMENT ON EXTENSION citext IS NULL; SELECT lo_from_bytea(7001, 'abc')",
    );
    let backed = Backed::up(source, &[]);
    let target = backed.source.copy();
    assert_eq!(backed.restored(&target, &["--clean"])["left_out"], Value::Null);
    let changes = format!(
        "COMMENT ON LARGE OBJECT 7001 IS 'mine'; COMMENT ON INDEX i IS 'mine'; COMMENT ON CONSTRAINT t_pkey ON t IS 'mine';
         COMMENT ON EVENT TRIGGER evt IS 'mine'; COMMENT ON PUBLICATION pu IS 'mine'; COMMENT ON EXTENSION citext IS 'mine';
         ALTER LARGE OBJECT 7001 OWNER TO {role}; ALTER PUBLICATION pu OWNER TO {role}; ALTER PUBLICATION pu SET (publish = 'insert');
         ALTER EVENT TRIGGER evt ENABLE ALWAYS; ALTER VIEW vv ALTER a SET DEFAULT 5; ALTER TABLE loose SET UNLOGGED;
         ALTER DOMAIN d ADD CONSTRAINT added CHECK (value > 0); ALTER DOMAIN d SET DEFAULT 4; ALTER TABLE t ALTER v SET DEFAULT 'q';
         ALTER TABLE t DISABLE TRIGGER tt; ALTER TABLE kid DISABLE TRIGGER ALL"
    );
    target.sql(&format!(
        "CREATE ROLE {role}; GRANT CREATE ON DATABASE {0} TO {role}",
        quoted(&target.name)
    ));
    target.sql(&changes);
    let report = backed.restored(&target, &["--clean"]);
    let left = report["left_out"].to_string();
    for what in [
        "the comment on LARGE OBJECT 7001",
        "the comment on INDEX public.i",
        "the comment on CONSTRAINT t_pkey ON public.t",
        "the comment on EVENT TRIGGER evt",
        "the comment on PUBLICATION pu",
        "the comment on EXTENSION citext",
        "as the owner of LARGE OBJECT 7001",
        "as the owner of PUBLICATION pu",
        "publish = 'insert'",
        "the state of the event trigger evt",
        "the default of public.vv.a",
        "that public.loose is unlogged",
        "the constraint added of the domain public.d",
        "the default of the domain public.d",
        "the default of public.t.v",
        "the state of the trigger tt",
        "that the triggers of the foreign key kid_p_fkey on public.kid are disabled",
    ] {
        assert!(left.contains(what), "{what}: {report:#}");
    }
    assert!(!left.contains("known") && !left.contains("public.plain.a"), "{left}");
    target.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

on_majors! { what_goes_with_other_things_is_told: 15 18 }

fn what_an_heir_makes_its_own_is_told(major: u32) {
    let source = Database::fresh(major);
    source.sql(
        "CREATE TABLE p (a int, b int); CREATE TABLE c (x int) INHERITS (p); INSERT INTO c VALUES (1, 2, 3);
         CREATE TABLE own (a int) INHERITS (p)",
    );
    let backed = Backed::up(source, &[]);
    let target = backed.source.copy();
    let left = backed.restored(&target, &["--table", "public.p", "--clean"])["left_out"].to_string();
    assert!(
        left.contains("that public.c has these columns from public.p alone: a, b"),
        "{left}"
    );
    assert!(
        left.contains("that public.own has these columns from public.p alone: b"),
        "{left}"
    );
    let whole = backed.restored(&target, &["--clean"]);
    assert_eq!(whole["left_out"], Value::Null, "{whole:#}");
}

on_majors! { what_an_heir_makes_its_own_is_told: 15 18 }

#[test]
fn an_event_trigger_that_may_refuse_is_named() {
    let source = Database::fresh(15);
    source.sql(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1); CREATE TABLE k (id int REFERENCES t)",
    );
    let backed = Backed::up(source, &[]);
    let target = backed.source.copy();
    target.sql(
        "CREATE FUNCTION no() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''% is not for you'', tg_tag; END';
         CREATE EVENT TRIGGER \"No changes\" ON ddl_command_end EXECUTE FUNCTION no()",
    );
    for options in [
        &["--clean"][..],
        &["--clean", "--jobs", "2"],
        &["--clean", "--table", "public.t"],
        &["--clean", "--table", "public.t", "--data-only"],
        &["--table", "public.t", "--into", "y"],
    ] {
        untouched(&target, || {
            let refused = backed.refused(&target.url(), options, "RESTORE_ERR", 41);
            let hint = "ALTER EVENT TRIGGER \"No changes\" DISABLE";
            assert!(refused.hint.contains(hint), "{options:?}: {}", refused.hint);
        });
    }
}
