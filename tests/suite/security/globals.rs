//! `globals.sql`, in the hands of somebody who can write to the store.

use serde_json::Value;

use crate::job::restore::place::Backed;
use crate::security::forging::{Marker, content, forge_whole};
use crate::support::database::{Database, psql};
use crate::support::program::{pgstow, succeed};
use crate::support::server::OwnServer;
use crate::support::wreck::Site;

fn source(major: u32) -> Database {
    let source = Database::fresh(major);
    source.sql("CREATE TABLE t AS SELECT 1 AS n");
    source
}

/// What somebody else has written, behind what pg_dumpall did.
fn poison(backed: &Backed, honest: &[u8], more: &str) {
    forge_whole(backed, "globals", &[honest, more.as_bytes()].concat());
}

fn left_out(report: &Value) -> String {
    let all = report["left_out"].as_array().cloned().unwrap_or_default();
    let each = all.iter().map(|one| one["what"].as_str().unwrap().to_owned());
    each.collect::<Vec<_>>().join("\n")
}

/// What the roles of a server may do, and under which settings.
const POWER: &str = "SELECT rolname, rolsuper, rolcreaterole, rolreplication, rolbypassrls, rolcanlogin, rolpassword,
    (SELECT string_agg(setconfig::text, ' ') FROM pg_db_role_setting s WHERE s.setrole = r.oid),
    (SELECT string_agg(g.rolname, ' ' ORDER BY 1) FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid)
    FROM pg_authid r WHERE rolname IN ('postgres', 'app', 'evil', 'other') ORDER BY 1";

fn hostile(marker: &Marker) -> Vec<String> {
    let program = format!("COPY (SELECT 1) TO PROGRAM '{}'", marker.command());
    vec![
        format!("DO $$ BEGIN EXECUTE '{}'; END $$;", program.replace('\'', "''")),
        format!("{program};"),
        format!("CREATE ROLE other; {program};"),
        format!("CREATE ROLE other -- \r; {program}\n;"),
        format!("CREATE ROLE other /* /* */ ; */ ; {program};"),
        format!("COMMENT ON ROLE other IS 'a\\'; {program}; --';"),
        format!("COMMENT ON ROLE other IS E'a\\''; {program}; --';"),
        format!("COMMENT ON ROLE other IS $$a$$; {program};"),
        format!(
            "ALTER ROLE other SET search_path TO U&'a\\0027; {};';",
            program.replace('\'', "''")
        ),
        format!("\\! {}\n", marker.command()),
        format!("SELECT 1 \\g |{}\n;", marker.command()),
        "ALTER ROLE other SET role = 'postgres';".into(),
        "ALTER ROLE other SET session_preload_libraries = 'evil';".into(),
        "ALTER ROLE ALL SET search_path = 'evil';".into(),
        "ALTER DATABASE postgres SET search_path = 'evil';".into(),
        "ALTER SYSTEM SET archive_command = 'evil';".into(),
        "GRANT SET ON PARAMETER session_preload_libraries TO app;".into(),
        "ALTER ROLE app RENAME TO gone;".into(),
        "ALTER USER app SUPERUSER;".into(),
        "DROP ROLE app;".into(),
        "CREATE ROLE third SUPERUSER LOGIN PASSWORD 'x';".into(),
        "CREATE ROLE third IN ROLE postgres;".into(),
    ]
}

#[test]
fn only_roles_that_are_not_there_are_made_and_without_power() {
    let marker = Marker::new();
    let backed = Backed::up(source(17), &[]);
    let honest = content(&backed, "globals");
    let server = OwnServer::start(17);
    let target = server.database("hands");
    target.sql("CREATE ROLE app LOGIN PASSWORD 'mine'; ALTER ROLE app SET work_mem = '5MB'; CREATE ROLE team");
    let before = target.sql(POWER);
    let power = "CREATE ROLE evil;
        ALTER ROLE evil WITH SUPERUSER INHERIT CREATEROLE CREATEDB LOGIN REPLICATION BYPASSRLS PASSWORD 'known';
        ALTER ROLE evil SET search_path TO 'a', 'b';
        GRANT postgres TO evil; GRANT pg_execute_server_program TO evil; GRANT evil TO app; GRANT team TO app;
        ALTER ROLE app WITH SUPERUSER NOLOGIN PASSWORD 'known';
        ALTER ROLE app SET search_path TO 'evil';
        ALTER ROLE postgres SET search_path TO 'evil';
        ALTER ROLE postgres WITH PASSWORD 'known';\n";
    let attacks = hostile(&marker);
    poison(&backed, &honest, &format!("{power}{}\n", attacks.join("\n")));

    let planned = succeed(&mut backed.restore(&target.url(), &["--globals", "--dry-run"])).json();
    let steps = planned["steps"].to_string();
    assert!(steps.contains("CREATE ROLE") && steps.contains("evil"), "{steps}");
    assert!(!steps.contains("SUPERUSER") && !steps.contains("PROGRAM"), "{steps}");
    for what in [
        "DO…",
        "SUPERUSER",
        "GRANT postgres TO evil",
        "COPY (SELECT 1) TO PROGRAM…",
        "\\\\! touch",
    ] {
        assert!(
            planned["left_out"].to_string().contains(what),
            "{what}: {:#}",
            planned["left_out"]
        );
    }
    assert_eq!(target.sql(POWER), before, "a dry run changes nothing");

    let report = succeed(&mut backed.restore(&target.url(), &["--globals"])).json();
    assert!(!marker.was_made());
    let made = target.sql(POWER);
    let lines: Vec<&str> = made.lines().collect();
    let evil = "evil|f|f|f|f|t|||";
    assert!(lines.iter().any(|line| line.starts_with("evil|f|f|f|f|t||{")), "{made}");
    assert!(!lines.contains(&evil), "its search path came along: {made}");
    let other = lines.iter().find(|line| line.starts_with("other|")).unwrap();
    assert_eq!(*other, "other|f|f|f|f|f|||");
    for line in before.lines() {
        assert!(lines.contains(&line), "{line} in {made}");
    }
    let told = left_out(&report);
    assert!(told.contains("GRANT evil TO app"), "{told}");
    for attack in &attacks[1..] {
        let start: String = attack.chars().take(12).collect();
        let start = start.trim_end_matches(['\'', ' ', ';']);
        assert!(
            told.contains(start) || start.starts_with("CREATE ROLE o"),
            "{start} in {told}"
        );
    }
    assert!(!told.contains("known"), "{told}");
    assert_eq!(
        target.sql("SELECT count(*) FROM pg_db_role_setting WHERE setrole = 0"),
        "0"
    );

    // Where it is asked for, and told again.
    let second = OwnServer::start(17);
    let target = second.database("hands");
    target.sql("CREATE ROLE app LOGIN; CREATE ROLE team");
    let report = succeed(&mut backed.restore(&target.url(), &["--globals", "--globals-privileged"])).json();
    assert!(!marker.was_made());
    let made = target.sql(POWER);
    assert!(made.contains("evil|t|t|t|t|t||"), "{made}");
    assert!(made.contains("|pg_execute_server_program postgres"), "{made}");
    let warned = report["warnings"].to_string();
    assert!(warned.contains("ALTER ROLE \\\"evil\\\" SUPERUSER"), "{warned}");
    assert_eq!(
        target.sql("SELECT rolsuper, rolcanlogin, rolpassword FROM pg_authid WHERE rolname = 'app'"),
        "f|t|"
    );
    backed.refused(&target.url(), &["--globals-privileged"], "CONFIG", 2);
}

/// One setting of a role takes itself out of the backup, and not all roles; and everybody says so.
#[test]
fn a_setting_of_an_absurd_length_takes_no_role_along() {
    let server = OwnServer::start(17);
    let source = server.database("wordy");
    source.sql(
        "CREATE ROLE wordy; ALTER ROLE wordy SET work_mem = '5MB'; CREATE ROLE plain;
         DO $$ BEGIN EXECUTE format('ALTER ROLE wordy SET app.note = %L', repeat('x', 1100000)); END $$",
    );
    let site = Site::new();
    let told = succeed(&mut site.backup(&source.url())).json();
    let left_out = &told["left_out"][0];
    assert_eq!(
        (&left_out["kind"], &left_out["name"]),
        (&"role_setting".into(), &"ALTER ROLE wordy SET \"app.note\" TO…".into()),
        "{told:#}"
    );
    assert!(
        told["warnings"].to_string().contains("globals.sql does not contain it"),
        "{told:#}"
    );
    let globals = site.store().join(told["id"].as_str().unwrap()).join("globals.sql");
    let globals = std::fs::read_to_string(globals).unwrap();
    assert!(
        globals.contains("CREATE ROLE wordy;") && globals.contains("CREATE ROLE plain;"),
        "{globals}"
    );
    assert!(
        globals.contains("work_mem TO '5MB'") && !globals.contains("app.note"),
        "{globals}"
    );

    let look = |args: &[&str]| {
        let mut command = pgstow();
        command
            .args(args)
            .arg("--store")
            .arg(site.store())
            .env("DATABASE_URL", source.url());
        crate::support::program::run(command.current_dir(site.path()))
    };
    let status = look(&["status", "--json"]).json();
    let last = &status["databases"][0]["last_good"];
    assert_eq!(
        (&last["left_out"]["role_setting"], &last["warnings"]),
        (&1.into(), &1.into()),
        "{status:#}"
    );
    let shown = look(&["status"]).text();
    assert!(
        shown.contains("left out     1 role setting") && shown.contains("warnings     1 "),
        "{shown}"
    );
    let checked = look(&["doctor", "--json"]).json();
    let checks = checked["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == "left_out").unwrap();
    assert!(
        check["objects"].to_string().contains("ALTER ROLE wordy SET app.note"),
        "{check}"
    );
}

/// A server with roles, and the backup of a database of it.
fn with_roles(major: u32, roles: &str) -> Backed {
    let server = OwnServer::start(major);
    let source = server.database("hands");
    source.sql(&format!("CREATE TABLE t AS SELECT 1 AS n; {roles}"));
    Backed::up(source, &[])
}

const SETTINGS: &str =
    "SELECT setconfig FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole WHERE rolname = 'tenant'";

#[test]
fn settings_that_are_notes_or_the_planners_come_and_those_with_power_where_that_was_asked_for() {
    let backed = with_roles(
        17,
        "CREATE ROLE tenant; ALTER ROLE tenant SET app.tenant = 'seven'; ALTER ROLE tenant SET enable_tidscan = off;
         ALTER ROLE tenant SET parallel_tuple_cost = 2; ALTER ROLE tenant SET jit_above_cost = 3;
         ALTER ROLE tenant SET xmlbinary = 'hex'; ALTER ROLE tenant SET log_statement = 'all';
         ALTER ROLE tenant SET auto_explain.log_analyze = 'on'; ALTER ROLE tenant SET plperl.on_init = 'evil';
         ALTER ROLE tenant SET local_preload_libraries = 'evil'",
    );
    let notes = "app.tenant=seven,enable_tidscan=off,parallel_tuple_cost=2,jit_above_cost=3,xmlbinary=hex";
    let server = OwnServer::start(17);
    let target = server.database("hands");
    let report = succeed(&mut backed.restore(&target.url(), &["--globals"])).json();
    assert_eq!(target.sql(SETTINGS), format!("{{{notes}}}"));
    let left = left_out(&report).replace('"', "");
    for setting in [
        "log_statement",
        "auto_explain.log_analyze",
        "plperl.on_init",
        "local_preload_libraries",
    ] {
        assert!(
            left.contains(&format!("ALTER ROLE tenant SET {setting} TO")),
            "{setting}: {left}"
        );
    }

    let server = OwnServer::start(17);
    let target = server.database("hands");
    let report = succeed(&mut backed.restore(&target.url(), &["--globals", "--globals-privileged"])).json();
    let all = format!("{{{notes},log_statement=all,auto_explain.log_analyze=on}}");
    assert_eq!(target.sql(SETTINGS), all);
    let warned = report["warnings"].to_string();
    assert!(
        warned.contains("SET \\\"log_statement\\\" TO…") && !warned.contains("seven"),
        "{warned}"
    );
    assert_eq!(left_out(&report).lines().count(), 2, "{report:#}");
}

const MEMBERSHIPS: &str = "SELECT g.rolname, m.rolname, a.admin_option FROM pg_auth_members a
    JOIN pg_roles g ON g.oid = a.roleid JOIN pg_roles m ON m.oid = a.member
    WHERE g.rolname IN ('a', 'b', 'c') AND m.rolname IN ('a', 'b', 'c') ORDER BY 1, 2";

const OPTIONS: &str = "CREATE ROLE a; CREATE ROLE b; CREATE ROLE c; GRANT a TO b WITH ADMIN OPTION, INHERIT FALSE;
    GRANT b TO c WITH INHERIT TRUE; GRANT a TO c WITH SET FALSE";

#[test]
fn memberships_come_by_a_role_that_may_not_grant_for_another() {
    let backed = with_roles(17, OPTIONS);
    let server = OwnServer::start(17);
    let target = server.database("hands");
    target.sql("CREATE ROLE maker LOGIN CREATEROLE PASSWORD 'pw'");
    target.sql(&format!("ALTER DATABASE {} OWNER TO maker", target.name));
    let url = target.url_as(Some(("maker", "pw")));
    let report = succeed(&mut backed.restore(&url, &["--globals", "--no-owner", "--no-privileges"])).json();
    assert_eq!(target.sql(MEMBERSHIPS), "a|b|t\na|c|f\nb|c|f");
    assert_eq!(report["warnings"], Value::Null, "{report:#}");
    assert_eq!(
        target.sql("SELECT count(*) FROM pg_auth_members WHERE grantor = 'maker'::regrole"),
        "3"
    );
}

/// As a newer pg_dumpall would write them.
#[test]
fn an_older_server_gets_no_membership_that_it_cannot_limit() {
    let backed = with_roles(15, "CREATE ROLE kept");
    let honest = content(&backed, "globals");
    poison(&backed, &honest, &format!("{OPTIONS};\n"));
    let server = OwnServer::start(15);
    let target = server.database("hands");
    let report = succeed(&mut backed.restore(&target.url(), &["--globals"])).json();
    assert_eq!(target.sql(MEMBERSHIPS), "a|b|t\nb|c|f");
    assert_eq!(
        left_out(&report),
        "globals.sql: GRANT a TO c WITH SET FALSE",
        "{report:#}"
    );
    let warnings = report["warnings"].as_array().unwrap();
    assert!(
        warnings.len() == 1 && warnings[0].as_str().unwrap().contains("a superuser"),
        "{report:#}"
    );
}

/// Two letters of LATIN1 that would be one of UTF-8.
#[test]
fn names_are_read_in_the_encoding_in_which_they_were_written() {
    let server = OwnServer::start(17);
    let source = server.database("latin");
    psql(
        17,
        &server.url(),
        &format!(
            "DROP DATABASE {0}; CREATE DATABASE {0} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'",
            source.name
        )
        .replace("; ", ";\n"),
    );
    source.sql(
        "SET client_encoding = 'UTF8'; CREATE ROLE \"Ã©\"; COMMENT ON ROLE \"Ã©\" IS 'Ã©';
         CREATE TABLE t AS SELECT 1 AS n; ALTER TABLE t OWNER TO \"Ã©\"",
    );
    let backed = Backed::up(source, &[]);
    let written = content(&backed, "globals");
    assert!(
        written.windows(4).any(|bytes| bytes == b"\"\xc3\xa9\""),
        "not as LATIN1"
    );
    let other = OwnServer::start(17);
    let target = other.database("hands");
    let report = succeed(&mut backed.restore(&target.url(), &["--globals"])).json();
    let warnings = report["warnings"].as_array().unwrap();
    assert!(
        warnings.len() == 1 && warnings[0].as_str().unwrap().contains("a superuser"),
        "{report:#}"
    );
    let owner =
        "SELECT r.rolname, shobj_description(r.oid, 'pg_authid') FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
        WHERE c.relname = 't'";
    assert_eq!(target.sql(owner), "Ã©|Ã©");
}

fn a_drill_runs_nothing_that_globals_hold_beside_roles(major: u32) {
    let marker = Marker::new();
    let backed = Backed::up(source(major), &[]);
    let honest = content(&backed, "globals");
    poison(&backed, &honest, &format!("{}\n", hostile(&marker).join("\n")));
    let mut drill = pgstow();
    drill
        .args(["verify", backed.id(), "--drill", "--json", "--store", &backed.store])
        .env("TMPDIR", backed.site.path().join("tmp"))
        .current_dir(backed.site.path());
    let report = succeed(&mut drill).json();
    assert!(!marker.was_made());
    let told = report["drill"]["not_proved"].to_string();
    assert!(
        told.contains("COPY (SELECT 1) TO PROGRAM…: is not one of the statements that make roles"),
        "{told}"
    );
}

on_majors! { a_drill_runs_nothing_that_globals_hold_beside_roles: 15 18 }
