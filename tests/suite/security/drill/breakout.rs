//! The honest backup of a database whose owner attacks, in every place in which a restore evaluates what he
//! wrote. If a try leads somewhere, his function fails, and with it the drill; and what he would have left
//! is looked for.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Listener, as_nameless, assert_proved, entries, open_folder};
use crate::support::database::{Database, unique_word};
use crate::support::program::{pgstow, succeed};
use crate::support::wreck::Site;

/// A statement for each way out.
fn tries(marks: &str, port: u16, word: &str) -> Vec<(&'static str, String)> {
    let dblink = |host: &str| {
        format!(
            "PERFORM app.dblink_connect('c_{word}', pg_catalog.format('host=''%s'' port={port} user=postgres password=p \
             dbname=postgres connect_timeout=2', {host}))"
        )
    };
    [
        ("program", format!("COPY (SELECT 1) TO PROGRAM 'touch {marks}/program'")),
        ("copy", format!("COPY (SELECT 1) TO '{marks}/copy'")),
        (
            "read",
            "CREATE TEMP TABLE stolen (line text); COPY stolen FROM '/etc/passwd'".into(),
        ),
        ("file", "PERFORM pg_catalog.pg_read_file('/etc/passwd')".into()),
        ("folder", "PERFORM pg_catalog.pg_ls_dir('/proc')".into()),
        (
            "environment",
            "PERFORM pg_catalog.pg_read_binary_file('/proc/self/environ')".into(),
        ),
        (
            "export",
            format!("PERFORM pg_catalog.lo_from_bytea(815, 'x'); PERFORM pg_catalog.lo_export(815, '{marks}/export')"),
        ),
        ("import", "PERFORM pg_catalog.lo_import('/etc/passwd')".into()),
        ("file_fdw", "CREATE EXTENSION file_fdw".into()),
        ("adminpack", "CREATE EXTENSION adminpack".into()),
        (
            "c",
            "CREATE FUNCTION app.c() RETURNS int LANGUAGE c AS 'libc.so.6', 'getpid'".into(),
        ),
        (
            "internal",
            "CREATE FUNCTION app.i() RETURNS int LANGUAGE internal AS 'pg_backend_pid'".into(),
        ),
        ("load", "LOAD 'libm.so.6'".into()),
        ("superuser", "ALTER ROLE CURRENT_USER SUPERUSER".into()),
        ("another", format!("CREATE ROLE made_{word} SUPERUSER")),
        ("grant", "GRANT pg_execute_server_program TO CURRENT_USER".into()),
        ("catalog", "UPDATE pg_catalog.pg_authid SET rolsuper = true".into()),
        ("replica", "SET session_replication_role = replica".into()),
        ("network", dblink("'127.0.0.1'")),
        (
            "socket",
            dblink("pg_catalog.current_setting('data_directory') || '/../s'"),
        ),
    ]
    .into()
}

/// The body of a function that tries them all, as the role that it runs as.
pub fn attack(marks: &Path, port: u16, word: &str) -> String {
    let tries: String = tries(marks.to_str().unwrap(), port, word)
        .iter()
        .map(|(name, statement)| {
            format!("BEGIN {statement}; won := won || ' {name}'; EXCEPTION WHEN OTHERS THEN NULL; END;\n")
        })
        .collect();
    format!(
        "DECLARE won text := ''; boss text;
         BEGIN
           IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN won := ' is superuser'; END IF;
           FOR boss IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolsuper LOOP
             BEGIN EXECUTE pg_catalog.format('SET LOCAL ROLE %I', boss); won := won || ' role ' || boss;
             EXCEPTION WHEN OTHERS THEN NULL; END;
             BEGIN EXECUTE pg_catalog.format('SET SESSION AUTHORIZATION %I', boss); won := won || ' session ' || boss;
             EXCEPTION WHEN OTHERS THEN NULL; END;
           END LOOP;
           {tries}
           IF won <> '' THEN RAISE EXCEPTION 'broken out as %:%', current_user, won; END IF;
         END"
    )
}

/// Harmless until it is filled. What a restore evaluates then attacks: with the rights of the one who
/// restores, and with those of the superuser whose function it was in the source.
fn hostile(database: &Database, attack: &str) {
    let owner = format!("owner_{}", unique_word());
    database.sql(&format!(
        "CREATE ROLE {owner} CREATEROLE; CREATE SCHEMA app; ALTER SCHEMA app OWNER TO {owner};
         CREATE EXTENSION dblink SCHEMA app; CREATE EXTENSION postgres_fdw SCHEMA app;
         CREATE SERVER far_{owner} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'x');
         ALTER SERVER far_{owner} OWNER TO {owner};
         CREATE FUNCTION app.attack() RETURNS void LANGUAGE plpgsql AS $$ BEGIN END $$;
         CREATE FUNCTION app.ok(a int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
           $$ BEGIN PERFORM app.attack(); RETURN true; END $$;
         CREATE FUNCTION app.ok_of_owner(a int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER AS
           $$ BEGIN PERFORM app.attack(); RETURN true; END $$;
         CREATE FUNCTION app.same(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
           $$ BEGIN PERFORM app.attack(); RETURN a; END $$;
         ALTER FUNCTION app.attack() OWNER TO {owner};
         ALTER FUNCTION app.ok(int) OWNER TO {owner};
         ALTER FUNCTION app.same(int) OWNER TO {owner};
         CREATE DOMAIN app.checked AS int CHECK (app.ok(VALUE)); ALTER DOMAIN app.checked OWNER TO {owner};
         CREATE TABLE app.t (a int CHECK (app.ok(a)), b app.checked, c int GENERATED ALWAYS AS (app.same(a)) STORED,
           CHECK (app.ok_of_owner(a)));
         ALTER TABLE app.t OWNER TO {owner};
         INSERT INTO app.t VALUES (1, 1), (2, 2);
         CREATE TABLE app.later (a int); ALTER TABLE app.later OWNER TO {owner};
         INSERT INTO app.later VALUES (1), (2);
         ALTER TABLE app.later ADD CONSTRAINT later CHECK (app.ok(a)) NOT VALID;
         CREATE INDEX ON app.t (app.same(a)); CREATE INDEX ON app.t (a) WHERE app.ok(a) AND app.ok_of_owner(a);
         CREATE MATERIALIZED VIEW app.m AS SELECT app.same(a) AS a, app.ok(a) AS b, app.ok_of_owner(a) AS c FROM app.t;
         ALTER MATERIALIZED VIEW app.m OWNER TO {owner};
         CREATE TABLE app.parts (a app.checked) PARTITION BY RANGE (a); ALTER TABLE app.parts OWNER TO {owner};
         CREATE TABLE app.part PARTITION OF app.parts FOR VALUES FROM (1) TO (9);
         ALTER TABLE app.part OWNER TO {owner};
         INSERT INTO app.parts VALUES (3);
         CREATE FOREIGN TABLE app.far (a int, b int GENERATED ALWAYS AS (a + app.same(1)) STORED,
           c app.checked[] DEFAULT '{{1,2}}'::app.checked[]) SERVER far_{owner};
         ALTER FOREIGN TABLE app.far OWNER TO {owner};
         CREATE FUNCTION app.literal(a app.checked[] DEFAULT '{{3}}'::app.checked[]) RETURNS int LANGUAGE sql AS 'SELECT 1';
         ALTER FUNCTION app.literal(app.checked[]) OWNER TO {owner};
         CREATE FUNCTION app.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM app.attack(); END $$;
         ALTER FUNCTION app.on_ddl() OWNER TO {owner};
         COMMENT ON TABLE app.t IS 'said'; GRANT SELECT ON app.t TO PUBLIC;
         CREATE OR REPLACE FUNCTION app.attack() RETURNS void LANGUAGE plpgsql AS $attack${attack}$attack$;
         CREATE EVENT TRIGGER t_{owner} ON ddl_command_end EXECUTE FUNCTION app.on_ddl();
         COMMENT ON EVENT TRIGGER t_{owner} IS 'after all'"
    ));
}

fn assert_held(site: &Site, command: &mut Command, marks: &Path, listener: &Listener) {
    let report: Value = succeed(command).json();
    assert_proved(&report);
    assert_eq!(entries(marks), Vec::<PathBuf>::new());
    assert_eq!(listener.calls(), 0, "it came through the network");
    site.assert_nothing_runs();
}

fn an_owner_who_attacks_gets_nothing_and_his_backup_is_proved(major: u32) {
    let (site, database) = (Site::new(), Database::fresh(major));
    let (marks, listener) = (open_folder("pgstow-marks-"), Listener::start());
    hostile(&database, &attack(marks.path(), listener.port, &unique_word()));
    succeed(&mut site.backup(&database.url()));
    assert_held(&site, &mut site.drill(pgstow()), marks.path(), &listener);
}

on_majors! { an_owner_who_attacks_gets_nothing_and_his_backup_is_proved: 15 18 }

fn he_gets_nothing_of_a_user_without_a_name_either(major: u32) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (site, database) = (Site::new(), Database::fresh(major));
    let (marks, listener) = (open_folder("pgstow-marks-"), Listener::start());
    hostile(&database, &attack(marks.path(), listener.port, &unique_word()));
    succeed(&mut site.backup(&database.url()));
    let mut command = site.drill(as_nameless(&site));
    assert_held(&site, &mut command, marks.path(), &listener);
}

on_majors! { he_gets_nothing_of_a_user_without_a_name_either: 15 18 }
