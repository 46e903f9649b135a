//! What an extension brings that this machine lacks goes with it, whatever it is, and is told.

use std::fs;

use super::{drill, results, without_extension};
use crate::support::database::{Database, unique_word};
use crate::support::program::succeed;
use crate::support::services::postgres_bin;
use crate::support::wreck::Site;

/// An extension as schedulers and PostGIS are: with a schema, a configuration table and its sequence, a function and a
/// right on it; and with things of the database's own that need it.
fn configured(database: &Database) -> String {
    let role = format!("user_{}", unique_word());
    database.sql(&format!(
        "CREATE ROLE {role}; CREATE EXTENSION hstore;
         CREATE SCHEMA cron; CREATE TABLE cron.job (id serial PRIMARY KEY, what text);
         CREATE FUNCTION cron.run(a int) RETURNS int LANGUAGE sql AS 'SELECT a';
         CREATE FUNCTION cron.watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
         ALTER EXTENSION hstore ADD SCHEMA cron; ALTER EXTENSION hstore ADD TABLE cron.job;
         ALTER EXTENSION hstore ADD SEQUENCE cron.job_id_seq; ALTER EXTENSION hstore ADD FUNCTION cron.run(int);
         ALTER EXTENSION hstore ADD FUNCTION cron.watch();
         UPDATE pg_extension SET extconfig = ARRAY['cron.job'::regclass, 'cron.job_id_seq'::regclass]::oid[],
           extcondition = ARRAY['', ''] WHERE extname = 'hstore';
         INSERT INTO cron.job (what) VALUES ('vacuum'), ('backup');
         GRANT USAGE ON SCHEMA cron TO {role}; GRANT SELECT, UPDATE ON cron.job TO {role};
         REVOKE ALL ON FUNCTION cron.run(int) FROM PUBLIC; GRANT EXECUTE ON FUNCTION cron.run(int) TO {role};
         CREATE TABLE labelled (a int, labels hstore); INSERT INTO labelled VALUES (1, 'a=>1');
         CREATE VIEW jobs AS SELECT count(*) FROM cron.job;
         CREATE EVENT TRIGGER watching ON ddl_command_end EXECUTE FUNCTION cron.watch();
         CREATE TABLE plain (a int); INSERT INTO plain VALUES (1)"
    ));
    role
}

fn assert_left_out(report: &serde_json::Value, left: &[&str]) {
    assert_eq!(report["drill"]["status"], "ok", "{report:#}");
    let not_proved = report["drill"]["not_proved"].as_array().unwrap();
    let what: Vec<&str> = not_proved.iter().map(|left| left["what"].as_str().unwrap()).collect();
    for one in left {
        assert!(what.contains(one), "{one} is not among {what:#?}");
    }
    let results = results(report);
    assert!(
        results.contains(&("public.plain".to_owned(), "equal".to_owned())),
        "{results:?}"
    );
    assert!(
        results.contains(&("cron.job".to_owned(), "not_proved".to_owned())),
        "{results:?}"
    );
}

const ALL: [&str; 8] = [
    "EXTENSION hstore",
    "TABLE DATA cron.job",
    "SEQUENCE SET cron.job_id_seq",
    "ACL SCHEMA cron",
    "ACL cron.TABLE job",
    "ACL cron.FUNCTION run(a integer)",
    "TABLE public.labelled",
    "EVENT TRIGGER watching",
];

fn an_extension_that_is_not_here_takes_its_configuration_along(major: u32) {
    let (site, database) = (Site::new(), Database::fresh(major));
    configured(&database);
    succeed(&mut site.backup(&database.url()));
    let bin = without_extension(&site, major, "hstore");
    let report = succeed(drill(&site).env("BACKUP_PG_BIN", &bin)).json();
    assert_left_out(&report, &ALL);
    site.assert_nothing_runs();
}

// Of 15 there may be the distribution's alone, whose files are not for tests to take away.
on_majors! { an_extension_that_is_not_here_takes_its_configuration_along: 16 18 }

#[test]
fn an_extension_that_cannot_be_made_here_is_this_machines_lack() {
    let (site, database) = (Site::new(), Database::fresh(17));
    configured(&database);
    succeed(&mut site.backup(&database.url()));
    let bin = without_extension(&site, 17, "no such");
    let shared = succeed(std::process::Command::new(bin.join("pg_config")).arg("--sharedir")).text();
    let folder = std::path::Path::new(shared.trim()).join("extension");
    let scripts = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    let script = |path: &std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("hstore--");
    for path in scripts.filter(script) {
        let refuses = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '55000',
            MESSAGE = 'hstore must be loaded via shared_preload_libraries'; END $$;";
        fs::write(path, refuses).unwrap();
    }
    let report = succeed(drill(&site).env("BACKUP_PG_BIN", &bin)).json();
    assert_left_out(&report, &ALL);
    let left = &report["drill"]["not_proved"];
    assert!(left.to_string().contains("shared_preload_libraries"), "{left:#}");
}

#[test]
fn what_another_version_of_an_extension_does_not_have_is_not_proved() {
    let (site, database) = (Site::new(), Database::fresh(17));
    configured(&database);
    // Otherwise they would need the same.
    database.sql("DROP EVENT TRIGGER watching; DROP VIEW jobs");
    succeed(&mut site.backup(&database.url()));
    let report = succeed(drill(&site).env("BACKUP_PG_BIN", postgres_bin(17))).json();
    assert_left_out(
        &report,
        &["TABLE DATA cron.job", "SEQUENCE SET cron.job_id_seq", "ACL SCHEMA cron"],
    );
    let results = results(&report);
    assert!(
        results.contains(&("public.labelled".to_owned(), "equal".to_owned())),
        "{results:?}"
    );
}
