//! Roles that may not do everything: a managed service's master user, a database's owner, a plain reader.

use serde_json::Value;

use crate::job::restore::place::{Backed, untouched};
use crate::support::database::{Database, psql, quoted, unique_word};
use crate::support::program::succeed;
use crate::support::role::Role;
use crate::support::server::OwnServer;
use crate::support::services::postgres_url;

/// Just what the master user of RDS has.
pub const MASTER: &str = "CREATE ROLE rds_superuser NOLOGIN;
    GRANT pg_monitor, pg_signal_backend, pg_read_all_data, pg_write_all_data TO rds_superuser WITH ADMIN OPTION;
    CREATE ROLE master LOGIN CREATEDB CREATEROLE PASSWORD 'its secret' IN ROLE rds_superuser;
    CREATE ROLE plain LOGIN PASSWORD 'its secret'";

/// By a superuser, as is usual where a database comes from elsewhere.
fn source(major: u32, app: &str, reader: &str) -> Database {
    let source = Database::fresh(major);
    source.sql(&format!(
        "CREATE ROLE {app} LOGIN CREATEDB; CREATE ROLE {reader} LOGIN; GRANT {reader} TO {app};
         GRANT CREATE ON SCHEMA public TO {app}; COMMENT ON SCHEMA public IS 'our own';
         CREATE EXTENSION citext; COMMENT ON EXTENSION citext IS 'our comment';
         CREATE SCHEMA own AUTHORIZATION {app}; COMMENT ON SCHEMA own IS 'of the app';
         CREATE TABLE t (id int PRIMARY KEY, name citext, who name DEFAULT current_user);
         INSERT INTO t SELECT n, 'Name ' || n FROM generate_series(1, 100) n;
         ALTER TABLE t OWNER TO {app}; GRANT SELECT ON t TO {reader}; COMMENT ON TABLE t IS 'ours';
         ALTER TABLE t ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON t FOR SELECT TO {reader} USING (who = current_user);
         CREATE TABLE own.u (id int REFERENCES public.t); INSERT INTO own.u VALUES (1); ALTER TABLE own.u OWNER TO {app};
         CREATE MATERIALIZED VIEW own.m AS SELECT count(*) FROM own.u; ALTER MATERIALIZED VIEW own.m OWNER TO {app};
         CREATE PUBLICATION few FOR TABLE t; ALTER DEFAULT PRIVILEGES FOR ROLE {app} GRANT SELECT ON TABLES TO {reader};
         GRANT CREATE ON DATABASE {name} TO {app}; ALTER PUBLICATION few OWNER TO {app};
         SELECT lo_create(4711); ALTER LARGE OBJECT 4711 OWNER TO {app}",
        name = quoted(&source.name)
    ));
    source
}

const ABOUT: &str = "SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM own.u), (SELECT count FROM own.m),
    (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 't'::regclass), (SELECT nspacl FROM pg_namespace WHERE nspname = 'own'),
    (SELECT polroles::regrole[]::text FROM pg_policy),
    (SELECT count(*) FROM pg_default_acl), (SELECT count(*) FROM pg_largeobject_metadata)";

fn master_restores_all_that_it_may(major: u32) {
    let (app, reader) = (format!("app_{}", unique_word()), format!("reader_{}", unique_word()));
    let backed = Backed::up(source(major, &app, &reader), &[]);
    let server = OwnServer::start(major);
    psql(major, &server.url(), MASTER);
    let report_of = |target: &Database, options: &[&str]| -> Value {
        let url = target.url_as(Some(("master", "its secret")));
        succeed(&mut backed.restore(&url, options)).json()
    };

    // A new database, with its roles.
    let target = server.database("made");
    psql(major, &server.url(), &format!("DROP DATABASE {}", quoted(&target.name)));
    let report = report_of(&target, &["--create", "--globals"]);
    assert_eq!(target.sql(ABOUT), backed.source.sql(ABOUT), "{report:#}");
    let role = format!(
        "SELECT rolcanlogin, rolcreatedb, pg_has_role('{app}', '{reader}', 'MEMBER') FROM pg_roles WHERE rolname = '{app}'"
    );
    assert_eq!(target.sql(&role), "t|t|t", "{report:#}");
    let comments =
        "SELECT obj_description(e.oid, 'pg_extension'), obj_description('public'::regnamespace) FROM pg_extension e
        WHERE extname = 'citext'";
    if major >= 15 {
        assert_eq!(target.sql(comments), "our comment|our own", "{report:#}");
    }

    // One that a superuser has prepared: what is not the master's stays as it is.
    let target = server.database("prepared");
    target.sql(&format!(
        "CREATE EXTENSION citext; ALTER DATABASE {} OWNER TO master; ALTER SCHEMA public OWNER TO postgres;
         GRANT ALL ON SCHEMA public TO master WITH GRANT OPTION",
        quoted(&target.name)
    ));
    untouched(&target, || {
        let url = target.url_as(Some(("master", "its secret")));
        let refused = backed.refused(&url, &[], "PERMISSION", 13);
        assert!(refused.hint.contains("GRANT CREATE ON DATABASE"), "{}", refused.hint);
    });
    target.sql(&format!("GRANT CREATE ON DATABASE {} TO {app}", quoted(&target.name)));
    for options in [&["--jobs", "2"][..], &["--clean"]] {
        let report = report_of(&target, options);
        assert_eq!(target.sql(ABOUT), backed.source.sql(ABOUT), "{report:#}");
        let warnings = report["warnings"].to_string();
        assert!(warnings.contains("the comment on EXTENSION citext"), "{warnings}");
        assert!(warnings.contains("the comment on SCHEMA public"), "{warnings}");
    }

    // What it may not, before anything is changed.
    backed.source.sql(&format!(
        "CREATE PUBLICATION everything FOR ALL TABLES;
         CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
         ALTER FUNCTION e() OWNER TO {app};
         CREATE EVENT TRIGGER e ON sql_drop EXECUTE FUNCTION e();
         CREATE SUBSCRIPTION s CONNECTION 'dbname=nowhere password=x' PUBLICATION p
           WITH (connect = false, slot_name = NONE, enabled = false, create_slot = false);
         CREATE POLICY q ON own.u TO {app}; COMMENT ON POLICY q ON own.u IS 'a policy'"
    ));
    let mut backup = backed.site.backup(&backed.source.url());
    let id = succeed(&mut backup).json()["id"].clone();
    backed.source.sql("DROP SUBSCRIPTION s");
    let again = Backed {
        report: serde_json::json!({ "id": id }),
        ..backed
    };
    let target = server.database("again");
    target.sql(&format!(
        "ALTER DATABASE {0} OWNER TO master; GRANT CREATE ON DATABASE {0} TO {app}",
        quoted(&target.name)
    ));
    let url = target.url_as(Some(("master", "its secret")));
    let mut options: Vec<&str> = Vec::new();
    for (lacking, option) in [
        ("publications of all tables", "--no-publications"),
        ("may not make subscriptions", "--no-subscriptions"),
        ("may not make event triggers", "--exclude=event-trigger"),
    ] {
        untouched(&target, || {
            let refused = again.refused(&url, &options, "PERMISSION", 13);
            assert!(refused.message.contains(lacking), "{}", refused.message);
            let named = option.to_lowercase().replace('=', " ");
            assert!(
                refused.hint.to_lowercase().contains(&named),
                "{named}: {}",
                refused.hint
            );
        });
        options.push(option);
    }
    options.extend(["--no-comments", "--exclude", "policy:own.u q"]);
    let report = succeed(&mut again.restore(&url, &options)).json();
    assert_eq!(target.sql("SELECT count(*) FROM t"), "100");
    assert_eq!(
        target.sql("SELECT (SELECT count(*) FROM pg_policy), (SELECT count(*) FROM pg_publication), obj_description('t'::regclass)"),
        "1|0|"
    );
    let left = report["left_out"].to_string();
    for what in [
        "PUBLICATION everything",
        "EVENT TRIGGER e",
        "SUBSCRIPTION s",
        "POLICY own.u q",
    ] {
        assert!(left.contains(what), "{what}: {left}");
    }
    let refused = again.refused(&url, &["--clean", "--exclude", "policy:nothing"], "NOT_FOUND", 42);
    assert!(refused.hint.contains("own.u q"), "{}", refused.hint);
    again.refused(&url, &["--clean", "--exclude", "polcy"], "CONFIG", 2);

    // Somebody who may only read.
    let target = server.database("plain");
    let url = target.url_as(Some(("plain", "its secret")));
    untouched(&target, || {
        let refused = again.refused(&url, &["--no-owner", "--no-privileges"], "PERMISSION", 13);
        assert!(refused.hint.contains("GRANT CREATE"), "{}", refused.hint);
    });
    let name = quoted(&again.source.name);
    psql(
        major,
        &postgres_url(major),
        &format!("DROP DATABASE {name}; CREATE DATABASE {name}; DROP ROLE {app}; DROP ROLE {reader}"),
    );
}

on_majors! { master_restores_all_that_it_may: 15 18 }

/// What lies in `public` belongs to owners who may make things there as the database's owners alone.
fn a_new_database_is_its_owners_before_anything_is_made_in_it(major: u32) {
    let (app, other) = (format!("app_{}", unique_word()), format!("other_{}", unique_word()));
    let source = Database::fresh(major);
    source.sql(&format!(
        "CREATE ROLE {app} LOGIN; CREATE ROLE {other}; ALTER DATABASE {name} OWNER TO {app};
         CREATE TABLE t AS SELECT 1 AS n; ALTER TABLE t OWNER TO {app};
         CREATE TABLE u AS SELECT 2 AS n; ALTER TABLE u OWNER TO {other}",
        name = quoted(&source.name)
    ));
    let backed = Backed::up(source, &[]);
    let server = OwnServer::start(major);
    psql(major, &server.url(), MASTER);
    let target = server.database("made");
    let name = quoted(&target.name);
    psql(major, &server.url(), &format!("DROP DATABASE {name}"));
    let url = target.url_as(Some(("master", "its secret")));

    // Who becomes a member of whom is planned.
    let planned = succeed(&mut backed.restore(&url, &["--create", "--globals", "--dry-run"])).json();
    let steps = planned["steps"].to_string();
    for role in [&app, &other] {
        let joins = format!("GRANT \\\"{role}\\\" TO \\\"master\\\"");
        assert!(steps.contains(&joins), "{joins}: {steps}");
    }
    // Roles that are made may be members of others: what then fails leaves them, and says so.
    let failed = backed.refused(&url, &["--create", "--globals"], "RESTORE_ERR", 41);
    let (_, roles) = failed.message.split_once("the roles that were made stay: ").unwrap();
    assert!(!roles.is_empty(), "{}", failed.message);
    // Of those that are there it is known before.
    for more in [&[][..], &["--dry-run"]] {
        let options = [&["--create", "--clean"][..], more].concat();
        let refused = backed.refused(&url, &options, "PERMISSION", 13);
        assert!(refused.message.contains("nothing was changed"), "{}", refused.message);
        assert!(refused.message.contains(&other), "{}", refused.message);
        let grant = format!("GRANT CREATE ON SCHEMA public TO \"{app}\", \"{other}\"");
        assert!(
            refused.hint.contains(&grant) && refused.hint.contains("--no-owner"),
            "{}",
            refused.hint
        );
    }
    // The owner's own is made as pg_restore makes it.
    let without = ["--create", "--clean", "--exclude", "table:public.u"];
    succeed(&mut backed.restore(&url, &without));
    let owners = "SELECT pg_get_userbyid(datdba), (SELECT string_agg(pg_get_userbyid(relowner), ' ' ORDER BY relname)
        FROM pg_class WHERE relname IN ('t', 'u')) FROM pg_database WHERE datname = current_database()";
    assert_eq!(target.sql(owners), format!("{app}|{app}"));
    // The hint helps.
    let by_hand = format!("DROP DATABASE {name}; CREATE DATABASE {name} OWNER master");
    psql(major, &server.url(), &by_hand);
    target.sql(&format!("GRANT CREATE ON SCHEMA public TO \"{app}\", \"{other}\""));
    succeed(&mut backed.restore(&url, &[]));
    assert_eq!(target.sql(owners), format!("master|{app} {other}"));

    let name = quoted(&backed.source.name);
    psql(
        major,
        &postgres_url(major),
        &format!("DROP DATABASE {name}; CREATE DATABASE {name}; DROP ROLE {app}; DROP ROLE {other}"),
    );
}

on_majors! { a_new_database_is_its_owners_before_anything_is_made_in_it: 15 18 }

#[test]
fn roles_that_policies_and_mappings_name_are_found_missing() {
    let (app, reader) = (format!("app_{}", unique_word()), format!("reader_{}", unique_word()));
    let source = Database::fresh(17);
    source.sql(&format!(
        "CREATE ROLE {app}; CREATE ROLE {reader};
         CREATE TABLE t (a text); CREATE POLICY p ON t TO {reader} USING (a IN (SELECT 'x' FROM t AS s));
         CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;
         CREATE USER MAPPING FOR {app} SERVER far OPTIONS (password 'x')"
    ));
    let backed = Backed::up(source, &[]);
    let server = OwnServer::start(17);
    let target = server.database("strange");
    untouched(&target, || {
        let refused = backed.refused(&target.url(), &[], "RESTORE_ERR", 41);
        assert!(
            refused.message.contains(&app) && refused.message.contains(&reader),
            "{}",
            refused.message
        );
        assert!(refused.hint.contains("--exclude POLICY"), "{}", refused.hint);
    });
    backed.restored(&target, &["--exclude", "POLICY", "--exclude", "user-mapping"]);
    assert_eq!(target.sql("SELECT count(*) FROM pg_policy"), "0");
    backed.source.sql(&format!(
        "DROP POLICY p ON t; DROP USER MAPPING FOR {app} SERVER far; DROP ROLE {app}; DROP ROLE {reader}"
    ));
}

/// Whatever it is that cannot be made: a database that is replaced goes when the definitions of the new one are there.
fn a_definition_that_is_refused_costs_no_database(major: u32) {
    let source = Database::fresh(major);
    source.sql(
        "CREATE TABLE t AS SELECT 1 AS n; CREATE EXTENSION pg_stat_statements;
         GRANT EXECUTE ON FUNCTION pg_stat_statements_reset TO pg_monitor",
    );
    let backed = Backed::up(source, &[]);
    let server = OwnServer::start(major);
    psql(major, &server.url(), MASTER);
    let target = server.database("kept");
    let name = quoted(&target.name);
    psql(major, &server.url(), &format!("ALTER DATABASE {name} OWNER TO master"));
    target.sql("CREATE TABLE precious AS SELECT 2 AS n");
    let url = target.url_as(Some(("master", "its secret")));
    untouched(&target, || {
        for options in [&["--clean"][..], &["--create", "--clean"]] {
            for more in [&["--dry-run"][..], &[]] {
                let refused = backed.refused(&url, &[options, &["--no-owner"], more].concat(), "PERMISSION", 13);
                assert!(
                    refused.message.contains("may not make an extension")
                        && refused.message.contains("nothing was changed"),
                    "{options:?}: {}",
                    refused.message
                );
                assert!(refused.hint.contains("--exclude EXTENSION:NAME"), "{}", refused.hint);
            }
        }
    });

    // What no question finds: pg_dump writes this language without its handler.
    backed
        .source
        .sql("CREATE LANGUAGE strange HANDLER plpgsql_call_handler");
    let mut backup = backed.site.backup(&backed.source.url());
    let report = serde_json::json!({ "id": succeed(&mut backup).json()["id"] });
    let strange = Backed { report, ..backed };
    untouched(&target, || {
        let refused = strange.refused(&target.url(), &["--create", "--clean"], "RESTORE_ERR", 41);
        assert!(
            refused.message.contains("strange") && refused.message.contains("nothing was changed"),
            "{}",
            refused.message
        );
    });
    let databases = format!(
        "SELECT count(*) FROM pg_database WHERE starts_with(datname, '{}')",
        target.name
    );
    assert_eq!(psql(major, &server.url(), &databases), "1");

    // As the hint says; with what hangs on the extension's members.
    let without = [
        "--create",
        "--clean",
        "--no-owner",
        "--exclude",
        "EXTENSION:pg_stat_statements",
        "--exclude",
        "procedural-language",
    ];
    let report = succeed(&mut strange.restore(&url, &without)).json();
    assert_eq!(target.sql("SELECT n, to_regclass('precious') IS NULL FROM t"), "1|t");
    let left = report["left_out"].to_string();
    assert!(left.contains("FUNCTION pg_stat_statements_reset"), "{left}");
}

on_majors! { a_definition_that_is_refused_costs_no_database: 15 18 }

fn what_only_a_superuser_makes_or_reads_is_found_before(major: u32) {
    let source = Database::fresh(major);
    source.sql(
        "CREATE TABLE t AS SELECT 1 AS n;
         CREATE CAST (point AS text) WITH INOUT;
         CREATE AGGREGATE agg(bigint) (SFUNC = int8_avg_accum, STYPE = internal, FINALFUNC = numeric_poly_avg);
         CREATE FUNCTION f() RETURNS int LANGUAGE sql SUPPORT generate_series_int4_support AS 'SELECT 1';
         CREATE TYPE sh;
         CREATE TRANSFORM FOR int LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal));
         CREATE VIEW v AS SELECT rolname FROM pg_authid;
         CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM v;
         CREATE EXTENSION pageinspect;
         GRANT EXECUTE ON FUNCTION pg_stat_reset() TO pg_monitor; GRANT SELECT ON pg_authid TO pg_monitor",
    );
    let backed = Backed::up(source, &[]);
    let target = Database::fresh(major);
    let role = Role::fresh(&target, "its secret", "");
    let name = quoted(&role.name);
    target.sql(&format!("GRANT CREATE ON SCHEMA public TO {name}"));
    let url = target.url_as(Some((&role.name, &role.password)));
    let found = [
        "cast:CAST (point AS text)",
        "aggregate:agg(bigint)",
        "function:f()",
        "type:sh",
        "transform:TRANSFORM FOR integer LANGUAGE sql",
        "materialized-view-data:m",
        "extension:pageinspect",
    ];
    let without = |kept: &str| {
        let left = found.iter().filter(|one| **one != kept);
        let mut options: Vec<&str> = left.flat_map(|one| ["--exclude", *one]).collect();
        options.push("--no-owner");
        options
    };
    untouched(&target, || {
        for one in found {
            let refused = backed.refused(&url, &[&without(one)[..], &["--dry-run"]].concat(), "PERMISSION", 13);
            let (_, name) = one.split_once(':').unwrap();
            assert!(
                refused.message.contains(&format!("{name};")) && refused.message.contains("nothing was changed"),
                "{one}: {}",
                refused.message
            );
            assert!(refused.hint.contains("--exclude"), "{one}: {}", refused.hint);
        }
    });
    let report = succeed(&mut backed.restore(&url, &without(""))).json();
    let warnings = report["warnings"].to_string();
    assert!(
        warnings.contains("FUNCTION pg_stat_reset()") && warnings.contains("TABLE pg_authid"),
        "{warnings}"
    );
    assert_eq!(target.sql("SELECT n, to_regclass('m') IS NOT NULL FROM t"), "1|t");
    target.sql(&format!("DROP OWNED BY {name}"));
}

on_majors! { what_only_a_superuser_makes_or_reads_is_found_before: 15 18 }

/// Before 16 no other role makes any.
#[test]
fn a_subscription_without_a_password_is_found_before() {
    let source = Database::fresh(18);
    let options = "WITH (connect = false, slot_name = NONE, enabled = false, create_slot = false";
    source.sql(&format!(
        "CREATE TABLE t AS SELECT 1 AS n;
         CREATE SUBSCRIPTION open CONNECTION 'dbname=nowhere password=x' PUBLICATION p {options});
         CREATE SUBSCRIPTION bare CONNECTION 'dbname=nowhere' PUBLICATION p {options});
         CREATE SUBSCRIPTION free CONNECTION 'dbname=nowhere password=x' PUBLICATION p {options}, password_required = false)"
    ));
    let backed = Backed::up(source, &[]);
    backed
        .source
        .sql("DROP SUBSCRIPTION open; DROP SUBSCRIPTION bare; DROP SUBSCRIPTION free");
    let target = Database::fresh(18);
    let role = Role::fresh(&target, "its secret", "CREATEDB IN ROLE pg_create_subscription");
    let name = quoted(&role.name);
    target.sql(&format!(
        "GRANT CREATE ON SCHEMA public TO {name}; GRANT CREATE ON DATABASE {} TO {name}",
        quoted(&target.name)
    ));
    let url = target.url_as(Some((&role.name, &role.password)));
    untouched(&target, || {
        for (kept, other) in [("bare", "free"), ("free", "bare")] {
            let other = format!("SUBSCRIPTION:{other}");
            let refused = backed.refused(&url, &["--no-owner", "--exclude", &other], "PERMISSION", 13);
            assert!(
                refused.message.contains("without a password") && refused.message.contains(kept),
                "{}",
                refused.message
            );
            assert!(refused.hint.contains("--exclude SUBSCRIPTION:NAME"), "{}", refused.hint);
            // The same is known of a database that is yet to be made.
            let options = ["--create", "--dry-run", "--no-owner", "--exclude", &other];
            let refused = backed.refused(&format!("{url}_new"), &options, "PERMISSION", 13);
            assert!(refused.message.contains(kept), "{}", refused.message);
        }
    });
    let without = [
        "--no-owner",
        "--exclude",
        "SUBSCRIPTION:bare",
        "--exclude",
        "SUBSCRIPTION:free",
    ];
    let anew = [&["--create", "--dry-run"][..], &without].concat();
    succeed(&mut backed.restore(&format!("{url}_new"), &anew));
    succeed(&mut backed.restore(&url, &without));
    assert_eq!(target.sql("SELECT string_agg(subname, ' ') FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())"), "open");
    target.sql(&format!("DROP SUBSCRIPTION open; DROP OWNED BY {name}"));
}

/// Each right that is lacking is told before anything is changed, and what the hint says helps.
fn foreign_servers_and_user_mappings_that_the_role_may_not_make_are_told_before(major: u32) {
    let (app, other) = (format!("app_{}", unique_word()), format!("other_{}", unique_word()));
    let source = Database::fresh(major);
    source.sql(&format!(
        "CREATE ROLE {app}; CREATE ROLE {other}; CREATE EXTENSION postgres_fdw;
         GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO {app};
         CREATE SERVER \"Far away\" FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'nowhere.invalid');
         ALTER SERVER \"Far away\" OWNER TO {app};
         CREATE USER MAPPING FOR {other} SERVER \"Far away\" OPTIONS (user 'x', password 'y');
         CREATE USER MAPPING FOR {app} SERVER \"Far away\" OPTIONS (user 'x', password_required 'off');
         CREATE FOREIGN TABLE there (a int) SERVER \"Far away\"; CREATE TABLE here AS SELECT 1 AS a;
         ALTER FOREIGN TABLE there OWNER TO {app}; ALTER TABLE here OWNER TO {app}"
    ));
    let backed = Backed::up(source, &[]);
    let server = OwnServer::start(major);
    let not_inheriting = match major {
        16.. => format!("GRANT {app} TO master WITH INHERIT FALSE"),
        _ => format!("GRANT {app} TO master; ALTER ROLE master NOINHERIT"),
    };
    psql(
        major,
        &server.url(),
        &format!("{MASTER}; CREATE ROLE {app}; CREATE ROLE {other}; {not_inheriting}"),
    );
    let target = server.database("there");
    let name = quoted(&target.name);
    target.sql(&format!(
        "CREATE EXTENSION postgres_fdw; ALTER DATABASE {name} OWNER TO master; GRANT ALL ON SCHEMA public TO master, {app}"
    ));
    let url = target.url_as(Some(("master", "its secret")));
    let inheriting = match major {
        16.. => format!("GRANT {app} TO master WITH INHERIT TRUE"),
        _ => "ALTER ROLE master INHERIT".to_owned(),
    };
    let mut options = vec!["--no-privileges", "--exclude", "comment"];
    let usage = "GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO";
    for (lacking, hint, cure, option) in [
        (
            "may not make the foreign server \"Far away\"",
            format!("{usage} master"),
            format!("{usage} master"),
            None,
        ),
        (
            "cannot be given to",
            format!("{usage} {app}"),
            format!("{usage} {app}"),
            None,
        ),
        (
            "the user mapping of",
            format!("GRANT {app} TO master"),
            inheriting,
            None,
        ),
        (
            "without a password",
            format!("--exclude 'USER-MAPPING:{app} SERVER Far away'"),
            String::new(),
            Some("--exclude=user-mapping"),
        ),
    ] {
        untouched(&target, || {
            let refused = backed.refused(&url, &options, "PERMISSION", 13);
            assert!(refused.message.contains(lacking), "{lacking}: {}", refused.message);
            assert!(refused.message.contains("nothing was changed"), "{}", refused.message);
            let said = refused.hint.replace('"', "");
            assert!(said.contains(&hint), "{hint}: {said}");
        });
        target.sql(&cure);
        options.extend(option);
    }
    let report = succeed(&mut backed.restore(&url, &options)).json();
    let made =
        "SELECT (SELECT pg_get_userbyid(srvowner) FROM pg_foreign_server), (SELECT count(*) FROM pg_user_mappings),
                  (SELECT count(*) FROM here), 'there'::regclass";
    assert_eq!(target.sql(made), format!("{app}|0|1|there"), "{report:#}");
    assert!(report["left_out"].to_string().contains("USER MAPPING"), "{report:#}");

    let name = quoted(&backed.source.name);
    psql(
        major,
        &postgres_url(major),
        &format!("DROP DATABASE {name}; CREATE DATABASE {name}; DROP ROLE {app}; DROP ROLE {other}"),
    );
}

on_majors! { foreign_servers_and_user_mappings_that_the_role_may_not_make_are_told_before: 15 18 }
