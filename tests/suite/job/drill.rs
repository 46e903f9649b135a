//! `verify --drill`: what restores to what it was is proved, what does not is named, and nothing
//! is left of the throwaway server.

mod collations;
mod evidence;
mod extensions;
mod locale;
mod moment;
mod order;
mod plain;
mod roles;
mod same;
mod settings;
mod sources;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::database::Database;
use crate::support::impostor::write_script;
use crate::support::program::{pgstow, program, run, succeed};
use crate::support::services::postgres_bin;
use crate::support::wreck::{Site, failure, tree};

fn drill(site: &Site) -> Command {
    site.drill(pgstow())
}

fn verification(site: &Site) -> Value {
    let store = site.store();
    let files = tree(&store);
    let file = files.iter().find(|file| file.ends_with("verification.json")).unwrap();
    serde_json::from_slice(&fs::read(store.join(file)).unwrap()).unwrap()
}

/// Changes the manifest, as one that says no digest of its own.
fn as_older_backup(site: &Site, change: impl FnOnce(&mut Value)) {
    let store = site.store();
    let files = tree(&store);
    let path = |end: &str| {
        files
            .iter()
            .find(|file| file.ends_with(end))
            .map(|file| store.join(file))
    };
    let manifest = path("manifest.json").unwrap();
    let mut json: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    json.as_object_mut().unwrap().remove("digest_file");
    change(&mut json);
    fs::write(&manifest, serde_json::to_vec(&json).unwrap()).unwrap();
    fs::remove_file(path("manifest.json.sha256").unwrap()).unwrap();
}

/// Every table with its result.
fn results(report: &Value) -> Vec<(String, String)> {
    let tables = report["drill"]["tables"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of = |table: &Value| {
        let name = format!("{}.{}", text(&table["schema"]), text(&table["name"]));
        (name, text(&table["result"]))
    };
    tables.iter().map(of).collect()
}

fn a_rich_database_of_every_major_restores_to_what_it_was_and_no_server_is_left(major: u32) {
    let (site, database) = (Site::new(), Database::loaded(major, "rich.sql"));
    succeed(&mut site.backup(&database.url()));
    let report = succeed(&mut drill(&site)).json();
    assert_eq!(report["status"], "ok", "{major}: {report:#}");
    let results = results(&report);
    assert_eq!(results.len() as u64, report["tables"].as_u64().unwrap());
    assert!(
        results.iter().all(|(_, result)| result.starts_with("equal")),
        "{major}: {results:?}"
    );
    let proved = &report["drill"];
    assert!(proved["definitions"].as_u64().unwrap() > 200, "{major}: {proved:#}");
    assert!(proved["sequences"].as_u64().unwrap() > 5);
    assert_eq!(proved["large_objects"], 7);
    assert!(
        proved.get("not_proved").is_none(),
        "{major}: {:#}",
        proved["not_proved"]
    );
    let written = verification(&site);
    assert_eq!(written["verify"]["status"], "ok");
    assert_eq!(written["drill"]["status"], "ok");
    assert_eq!(written["drill"]["tables"], written["drill"]["tables_equal"]);
    site.assert_nothing_runs();
}

on_majors! { a_rich_database_of_every_major_restores_to_what_it_was_and_no_server_is_left: 15 16 17 18 }

#[test]
fn rows_that_come_back_in_another_order_are_equal_all_the_same() {
    let (site, database) = (Site::new(), Database::fresh(17));
    // Long rows that do not fit leave room in a page, which later short ones fill.
    database.sql(
        "CREATE TABLE mixed (n int, filler text);
         ALTER TABLE mixed ALTER filler SET STORAGE PLAIN;
         INSERT INTO mixed SELECT g, repeat('x', CASE WHEN g % 7 = 0 THEN 3000 + g % 900 ELSE 20 + g % 400 END)
           FROM generate_series(1, 20000) g;
         DELETE FROM mixed WHERE n % 3 = 0; VACUUM mixed;
         INSERT INTO mixed SELECT -g, repeat('y', (g * 37) % 2500) FROM generate_series(1, 9000) g",
    );
    succeed(&mut site.backup(&database.url()));
    let report = succeed(&mut drill(&site)).json();
    assert_eq!(report["status"], "ok", "{report:#}");
    let expected = ("public.mixed".to_owned(), "equal_in_other_order".to_owned());
    assert_eq!(results(&report), [expected], "{report:#}");
}

/// A folder with a major's programs whose pg_restore does something more when it has made what is on this list.
pub fn meddling(site: &Site, major: u32, list: &str, more: &str) -> PathBuf {
    let folder = site.path().join("meddling");
    fs::create_dir(&folder).unwrap();
    let real = postgres_bin(major);
    for program in ["pg_dump", "pg_dumpall", "psql"] {
        std::os::unix::fs::symlink(real.join(program), folder.join(program)).unwrap();
    }
    let script = format!(
        r#"$REAL "$@" || exit
        case "$*" in *{list}*)
            for argument in "$@"; do case "$argument" in --dbname=*) target="${{argument#--dbname=}}"; esac; done
            {} -X -q -v ON_ERROR_STOP=1 -d "$target" <<'SQL' || exit
{more}
SQL
        esac"#,
        real.join("psql").display()
    );
    write_script(
        &folder.join("pg_restore"),
        &real.join("pg_restore"),
        site.path(),
        &script,
    );
    folder
}

#[test]
fn whatever_is_restored_otherwise_fails_the_drill_and_is_named() {
    let (site, database) = (Site::new(), Database::fresh(17));
    database.sql(
        "CREATE TABLE kept (a int); INSERT INTO kept VALUES (1);
         CREATE TABLE changed (a int); INSERT INTO changed VALUES (1), (2);
         CREATE TABLE shrunk (a int); INSERT INTO shrunk VALUES (1), (2);
         CREATE TABLE gone (a int); CREATE TABLE indexed (a int PRIMARY KEY);
         CREATE SEQUENCE counted; SELECT nextval('counted'); SELECT lo_from_bytea(4711, 'large');
         COMMENT ON TABLE kept IS 'said'",
    );
    succeed(&mut site.backup(&database.url()));
    let more = "UPDATE public.changed SET a = 3 WHERE a = 2; DELETE FROM public.shrunk WHERE a = 1;
        DROP TABLE public.gone; ALTER TABLE public.indexed DROP CONSTRAINT indexed_pkey;
        SELECT setval('public.counted', 99); SELECT lo_put(4711, 0, 'L'); COMMENT ON TABLE public.kept IS 'unsaid';";
    let bin = meddling(&site, 17, "after.list", more);
    let mut command = drill(&site);
    command.env(
        "BACKUP_PG_BIN",
        format!("{}:{}", bin.display(), postgres_bin(17).display()),
    );
    let run = run(&mut command);
    assert_eq!(run.status.code(), Some(40), "{}", run.stderr);
    assert!(run.stderr.starts_with("error[INTEGRITY]: "), "{}", run.stderr);
    let report = run.json();
    assert_eq!(report["status"], "failed");
    assert_eq!(report["error"]["code"], "INTEGRITY");
    let problems = report["drill"]["problems"].as_array().unwrap();
    let named: Vec<&str> = problems
        .iter()
        .map(|problem| problem["table"].as_str().unwrap())
        .collect();
    for difference in [
        "public.changed",
        "public.shrunk",
        "public.gone",
        "TABLE public.gone",
        "CONSTRAINT public.indexed indexed_pkey",
        "SEQUENCE SET public.counted",
        "COMMENT public.TABLE kept",
        "large objects",
    ] {
        assert!(named.contains(&difference), "{difference} is not among {named:#?}");
    }
    assert!(!named.contains(&"public.kept"));
    let written = verification(&site);
    assert_eq!(
        (&written["verify"]["status"], &written["drill"]["status"]),
        (&"ok".into(), &"failed".into())
    );
    site.assert_nothing_runs();
}

/// A copy of a major's whole installation without one extension.
fn without_extension(site: &Site, major: u32, name: &str) -> PathBuf {
    let real = postgres_bin(major);
    let copy = site.path().join("lacking");
    succeed(
        program("cp")
            .args(["-a", "--reflink=auto"])
            .arg(real.parent().unwrap())
            .arg(&copy),
    );
    let shared = succeed(Command::new(copy.join("bin/pg_config")).arg("--sharedir")).text();
    for file in fs::read_dir(Path::new(shared.trim()).join("extension")).unwrap() {
        let path = file.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with(name) {
            assert!(path.starts_with(&copy), "{}", path.display());
            fs::remove_file(path).unwrap();
        }
    }
    copy.join("bin")
}

#[test]
fn an_extension_that_this_machine_lacks_is_named_with_all_that_could_not_be_proved() {
    let (site, database) = (Site::new(), Database::fresh(16));
    database.sql(
        "CREATE EXTENSION hstore; CREATE TABLE labelled (a int, labels hstore); CREATE INDEX ON labelled (a);
         CREATE VIEW seen AS SELECT a FROM labelled; CREATE TABLE plain (a int);
         INSERT INTO plain VALUES (1); INSERT INTO labelled VALUES (1, 'a=>1')",
    );
    succeed(&mut site.backup(&database.url()));
    let bin = without_extension(&site, 16, "hstore");
    let report = succeed(drill(&site).env("BACKUP_PG_BIN", &bin)).json();
    assert_eq!(report["status"], "ok", "{report:#}");
    let mut results = results(&report);
    results.sort();
    assert_eq!(
        results,
        [
            ("public.labelled".to_owned(), "not_proved".to_owned()),
            ("public.plain".to_owned(), "equal".to_owned())
        ]
    );
    let lefts = report["drill"]["not_proved"].as_array().unwrap();
    let what: Vec<&str> = lefts.iter().map(|left| left["what"].as_str().unwrap()).collect();
    for left in [
        "EXTENSION hstore",
        "TABLE public.labelled",
        "VIEW public.seen",
        "INDEX public.labelled_a_idx",
    ] {
        assert!(what.contains(&left), "{left} is not among {what:#?}");
    }
    assert!(lefts[0]["why"].as_str().unwrap().contains("hstore"));
    assert_eq!(report["drill"]["partly"], true);
    // And no command takes it for the whole.
    let told = |command: &str| {
        let mut told = pgstow();
        told.args([command, "--store"]).arg(site.store());
        run(told.current_dir(site.path())).text()
    };
    for command in ["list", "status"] {
        let told = told(command);
        assert!(told.contains("partly, 1 of 2 tables proved"), "{told}");
    }
}

#[test]
fn a_drill_that_is_stopped_or_killed_leaves_no_server_and_no_folder() {
    let (site, database) = (Site::new(), Database::fresh(17));
    database.sql("CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 200000)");
    succeed(&mut site.backup(&database.url()));
    let bin = meddling(&site, 17, "after.list", "SELECT pg_sleep(60);");
    for signal in [Signal::TERM, Signal::INT, Signal::KILL] {
        let mut command = drill(&site);
        command.env(
            "BACKUP_PG_BIN",
            format!("{}:{}", bin.display(), postgres_bin(17).display()),
        );
        let mut running = site.start(&mut command);
        let started = || site.processes().iter().any(|process| process.contains("after.list"));
        running.until("the restore is nearly done", started);
        running.signal(signal);
        let run = running.end(Duration::from_secs(30));
        match signal {
            Signal::KILL => {}
            Signal::INT => drop(failure(&run, "INTERRUPTED", 130, None)),
            _ => drop(failure(&run, "INTERRUPTED", 143, None)),
        }
        if signal == Signal::KILL {
            // Those who clean up after us notice by themselves.
            std::thread::sleep(Duration::from_secs(3));
        }
        site.assert_nothing_runs();
    }
    // What was known before the restore began.
    let written = verification(&site);
    assert_eq!(
        (&written["verify"]["status"], &written["drill"]),
        (&"ok".into(), &Value::Null),
        "{written:#}"
    );
}

#[test]
fn a_plain_dump_is_compared_too_and_says_what_it_does_not_hold() {
    let (site, database) = (Site::new(), Database::fresh(15));
    database.sql("CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    succeed(site.backup(&database.url()).args(["--format", "plain"]));
    let report = succeed(&mut drill(&site)).json();
    assert_eq!(report["status"], "ok", "{report:#}");
    assert_eq!(results(&report), [("public.t".to_owned(), "equal".to_owned())]);
    assert_eq!(report["drill"]["definitions"], 1);
    let not_proved = report["drill"]["not_proved"].as_array().unwrap();
    assert_eq!(not_proved.len(), 1, "{not_proved:?}");
    assert_eq!(not_proved[0]["what"], "the database's own settings, comment and grants");
    site.assert_nothing_runs();
}

#[test]
fn without_a_servers_programs_the_drill_says_what_to_install() {
    let (site, database) = (Site::new(), Database::fresh(15));
    succeed(&mut site.backup(&database.url()));
    let bin = crate::support::impostor::bin_with(site.path(), "clients", 15, &["pg_dump", "pg_restore", "psql"]);
    let mut command = drill(&site);
    command.env("BACKUP_PG_BIN", bin);
    let run = run(&mut command);
    assert_eq!(run.status.code(), Some(43), "{}", run.stderr);
    let report = run.json();
    assert_eq!(report["error"]["code"], "NOT_PROVED");
    assert!(
        report["error"]["hint"].as_str().unwrap().contains("initdb"),
        "{report:#}"
    );
}
