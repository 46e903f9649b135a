//! What the source itself does not keep to is named as its fault, all of it at once; and what another major says
//! proves nothing of the source's.

use serde_json::Value;

use super::{drill, results, verification};
use crate::safe_hands::drill::as_nameless;
use crate::support::database::Database;
use crate::support::program::{pgstow, run, succeed};
use crate::support::services::postgres_bin;
use crate::support::wreck::Site;

fn rows_that_the_source_itself_should_not_hold_are_named_all_in_one_drill(major: u32) {
    let (site, database) = (Site::new(), Database::fresh(major));
    database.sql(
        "CREATE TABLE parent (a int PRIMARY KEY); CREATE TABLE child (a int CONSTRAINT known REFERENCES parent);
         ALTER TABLE child DISABLE TRIGGER ALL; INSERT INTO child VALUES (7);
         CREATE FUNCTION ok(a int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
         CREATE TABLE checked (a int CHECK (ok(a))); INSERT INTO checked VALUES (1);
         CREATE OR REPLACE FUNCTION ok(a int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT a > 1';
         CREATE TABLE doubled (a int); CREATE UNIQUE INDEX once ON doubled (a); INSERT INTO doubled VALUES (1);
         UPDATE pg_index SET indisready = false, indisvalid = false WHERE indexrelid = 'once'::regclass;
         INSERT INTO doubled VALUES (1);
         UPDATE pg_index SET indisready = true, indisvalid = true WHERE indexrelid = 'once'::regclass;
         CREATE TABLE late (a int); INSERT INTO late VALUES (-1);
         ALTER TABLE late ADD CONSTRAINT positive CHECK (a > 0) NOT VALID;
         CREATE TABLE fine (a int PRIMARY KEY); INSERT INTO fine SELECT generate_series(1, 100)",
    );
    succeed(&mut site.backup(&database.url()));
    let verdict = |jobs: &str| {
        let run = run(drill(&site).env("BACKUP_JOBS", jobs));
        assert_eq!(run.status.code(), Some(40), "{}", run.stderr);
        let report = run.json();
        let hint = report["error"]["hint"].as_str().unwrap();
        assert!(
            hint.contains("source") && !hint.contains("use the one before"),
            "{hint}"
        );
        let problems = report["drill"]["problems"].as_array().unwrap();
        let mut named: Vec<String> = problems
            .iter()
            .map(|one| one["table"].as_str().unwrap().to_owned())
            .collect();
        named.sort();
        (named, results(&report))
    };
    let (named, results) = verdict("1");
    assert_eq!(
        named,
        [
            "FK CONSTRAINT public.child known",
            "INDEX public.once",
            "TABLE DATA public.checked"
        ]
    );
    let result = |name: &str| &results.iter().find(|(table, _)| table == name).unwrap().1;
    assert_eq!(result("public.checked"), "not_proved");
    for equal in [
        "public.parent",
        "public.child",
        "public.doubled",
        "public.late",
        "public.fine",
    ] {
        assert_eq!(result(equal), "equal");
    }
    assert_eq!(verdict("8"), (named, results));
    let written = verification(&site);
    assert_eq!(written["drill"]["status"], "failed");
    assert!(written["drill"]["advice"].as_str().unwrap().contains("source"));
    site.assert_nothing_runs();
}

on_majors! { rows_that_the_source_itself_should_not_hold_are_named_all_in_one_drill: 15 18 }

#[test]
fn a_drill_on_another_major_says_so_and_is_no_proof() {
    let (site, database) = (Site::new(), Database::fresh(15));
    database.sql("CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES (1)");
    succeed(&mut site.backup(&database.url()));
    let drilled = || -> Value {
        let mut list = pgstow();
        list.args(["list", "--json", "--store"]).arg(site.store());
        succeed(&mut list).json()["backups"][0]["drilled"].clone()
    };
    let report = succeed(drill(&site).env("BACKUP_PG_BIN", postgres_bin(17))).json();
    assert_eq!(report["drill"]["status"], "ok", "{report:#}");
    assert_eq!(report["drill"]["not_proved"][0]["what"], "PostgreSQL 15", "{report:#}");
    assert_eq!(
        (&report["drill"]["major"], &report["drill"]["source_major"]),
        (&17.into(), &15.into())
    );
    let written = verification(&site);
    assert_eq!(
        (&written["drill"]["major"], &written["drill"]["source_major"]),
        (&17.into(), &15.into())
    );
    assert_eq!(drilled(), Value::Null);
    succeed(&mut drill(&site));
    assert_eq!(drilled()["status"], "ok");
    // And takes nothing back.
    succeed(drill(&site).env("BACKUP_PG_BIN", postgres_bin(17)));
    assert_eq!(drilled()["status"], "ok");
    assert_eq!(verification(&site)["drill"]["major"], 15);
}

#[test]
fn a_doctors_tick_means_that_a_server_ran_also_for_a_user_without_a_name() {
    let (site, database) = (Site::new(), Database::fresh(17));
    let store = site.store();
    std::fs::create_dir_all(&store).unwrap();
    let mut command = as_nameless(&site);
    command
        .args(["doctor", "--json", "--store"])
        .arg(&store)
        .env("DATABASE_URL", database.url())
        .env("TMPDIR", site.path().join("tmp"))
        .current_dir(site.path());
    let report = run(&mut command).json();
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == "drill").unwrap();
    assert_eq!(check["state"], "ok", "{check:#}");
    assert!(
        check["detail"].as_str().unwrap().contains("started and ended"),
        "{check:#}"
    );
    site.assert_nothing_runs();
    // Where it cannot run, there is no tick.
    let disk = crate::support::disk::Disk::mount("size=20m");
    let mut command = pgstow();
    command
        .args(["doctor", "--json", "--store"])
        .arg(&store)
        .env("DATABASE_URL", database.url());
    let report = run(command.env("TMPDIR", disk.path()).current_dir(site.path())).json();
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == "drill").unwrap();
    assert_eq!(check["state"], "warning", "{check:#}");
    assert!(check["hint"].as_str().unwrap().contains("TMPDIR"), "{check:#}");
}
