//! `globals.sql`, in the hands of somebody who can write to the store.

use serde_json::Value;

use crate::restore::place::Backed;
use crate::safe_hands::forging::{Marker, content, forge_whole};
use crate::support::database::Database;
use crate::support::program::{pgstow, succeed};
use crate::support::server::OwnServer;

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
        let line = if line.starts_with("app|") {
            format!("{line}evil")
        } else {
            line.to_owned()
        };
        assert!(lines.contains(&line.as_str()), "{line} in {made}");
    }
    let told = left_out(&report);
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
        told.contains("COPY (SELECT 1) TO PROGRAM…: is none of the statements that make roles"),
        "{told}"
    );
}

on_majors! { a_drill_runs_nothing_that_globals_hold_beside_roles: 15 18 }
