//! What the source itself does not keep to is named as its fault, all of it at once; and what another major says
//! proves nothing of the source's.

use serde_json::{Value, json};

use super::{as_older_backup, drill, results, verification};
use crate::security::drill::as_nameless;
use crate::support::database::{Database, unique_word};
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

/// No name makes a fault of the source a refusal, and nothing is made after what answers to every change.
#[test]
fn a_key_is_no_superuser_and_rights_to_the_servers_own_come_before_event_triggers() {
    let (site, database) = (Site::new(), Database::fresh(16));
    let role = format!("reader_{}", unique_word());
    database.sql(&format!(
        "CREATE ROLE {role}; CREATE TABLE people (id int PRIMARY KEY);
         CREATE TABLE superusers (id int CONSTRAINT superusers_fkey REFERENCES people);
         ALTER TABLE superusers DISABLE TRIGGER ALL; INSERT INTO superusers VALUES (7);
         GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO {role};
         CREATE FUNCTION closed() RETURNS event_trigger LANGUAGE plpgsql
           AS 'BEGIN RAISE EXCEPTION ''nothing is made after this''; END';
         CREATE EVENT TRIGGER closing ON ddl_command_end EXECUTE FUNCTION closed()"
    ));
    succeed(&mut site.backup(&database.url()));
    let run = run(&mut drill(&site));
    let report = run.json();
    assert_eq!(run.status.code(), Some(40), "{report:#}");
    let problems = report["drill"]["problems"].as_array().unwrap();
    let named: Vec<&Value> = problems.iter().map(|one| &one["table"]).collect();
    assert_eq!(named, ["FK CONSTRAINT public.superusers superusers_fkey"], "{report:#}");
    assert!(report["error"]["hint"].as_str().unwrap().contains("the source itself"));
    assert!(report["drill"].get("not_proved").is_none(), "{report:#}");
    assert!(
        results(&report).iter().all(|(_, result)| result == "equal"),
        "{report:#}"
    );
    site.assert_nothing_runs();
}

/// As it is where a table was emptied while the backup was made, and that was to be a warning.
#[test]
fn what_the_backup_says_that_it_left_out_is_no_damage() {
    let (site, database) = (Site::new(), Database::fresh(17));
    database.sql(
        "CREATE TABLE emptied (id int PRIMARY KEY); CREATE TABLE child (id int CONSTRAINT known REFERENCES emptied);
         ALTER TABLE child DISABLE TRIGGER ALL; INSERT INTO child VALUES (7);
         CREATE FUNCTION found(a int) RETURNS boolean LANGUAGE sql AS
           'SELECT EXISTS (SELECT FROM public.emptied WHERE id = a)';
         CREATE TABLE looks (a int CHECK (found(a))); ALTER TABLE emptied DISABLE TRIGGER ALL;
         INSERT INTO emptied VALUES (1); INSERT INTO looks VALUES (1); DELETE FROM emptied; SELECT lo_create(4711)",
    );
    succeed(&mut site.backup(&database.url()));
    as_older_backup(&site, |manifest| {
        let left_out = |kind: &str, name: &str| json!({"kind": kind, "name": name, "why": "so"});
        manifest["left_out"] = json!([left_out("rows", "public.emptied")]);
    });
    let report = succeed(&mut drill(&site)).json();
    let lefts = report["drill"]["not_proved"].as_array().unwrap();
    let mut what: Vec<&str> = lefts.iter().map(|left| left["what"].as_str().unwrap()).collect();
    what.sort_unstable();
    assert_eq!(
        what,
        [
            "FK CONSTRAINT public.child known",
            "TABLE DATA public.emptied",
            "TABLE DATA public.looks"
        ]
    );
    assert_eq!(report["drill"]["partly"], false, "{report:#}");
    assert!(results(&report).contains(&("public.child".to_owned(), "equal".to_owned())));
}

#[test]
fn a_drill_on_another_major_says_so_and_is_no_proof() {
    let (site, database) = (Site::new(), Database::fresh(15));
    // The number is a function's on 17 alone, which prints its name.
    database.sql(
        "CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES (1);
         CREATE TABLE printed (a regproc); INSERT INTO printed VALUES ('6339')",
    );
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
        report["drill"]["not_proved"][1]["what"], "TABLE DATA public.printed",
        "{report:#}"
    );
    let result = |name: &str, result: &str| (name.to_owned(), result.to_owned());
    let mut found = results(&report);
    found.sort();
    assert_eq!(
        found,
        [result("public.printed", "not_proved"), result("public.t", "equal")]
    );
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
    let plain = Site::new();
    succeed(plain.backup(&database.url()).args(["--format", "plain"]));
    let report = succeed(drill(&plain).env("BACKUP_PG_BIN", postgres_bin(17))).json();
    let mut of_script = results(&report);
    of_script.sort();
    assert_eq!(of_script, found, "{report:#}");
    succeed(&mut drill(&site));
    assert_eq!(drilled()["status"], "ok");
    assert_eq!(
        (&drilled()["tables_equal"], &drilled()["partly"]),
        (&2.into(), &false.into())
    );
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
