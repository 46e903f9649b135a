//! If this machine lacks an extension, the drill leaves out all objects of the extension, and reports them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{as_older_backup, drill, results, without_extension};
use crate::support::database::{Database, unique_word};
use crate::support::program::{run, succeed};
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

/// An extension in SQL alone: what of it is configuration, and things to be used.
const ONE: &str = "
    CREATE TABLE conf (id int PRIMARY KEY, what text);
    INSERT INTO conf VALUES (1, 'one');
    SELECT pg_catalog.pg_extension_config_dump('conf', 'WHERE id >= 10');
    CREATE TABLE narrow (a int, b int); SELECT pg_catalog.pg_extension_config_dump('narrow', '');
    CREATE SEQUENCE ticks; SELECT pg_catalog.pg_extension_config_dump('ticks', '');
    CREATE FUNCTION used(a int) RETURNS int LANGUAGE sql AS 'SELECT a';
    CREATE FUNCTION only_one() RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE TYPE amount AS (a numeric);";

/// The next version, with other rows, columns, tables, functions and sequences, and a type that prints otherwise.
const TWO: &str = "
    CREATE TABLE conf (id int PRIMARY KEY, what text, more int DEFAULT 7);
    INSERT INTO conf VALUES (1, 'one'), (10, 'taken');
    SELECT pg_catalog.pg_extension_config_dump('conf', 'WHERE id >= 10');
    CREATE TABLE narrow (a int); SELECT pg_catalog.pg_extension_config_dump('narrow', '');
    CREATE TABLE fresh (a int); INSERT INTO fresh VALUES (1); SELECT pg_catalog.pg_extension_config_dump('fresh', '');
    CREATE SEQUENCE ticks; SELECT pg_catalog.pg_extension_config_dump('ticks', '');
    CREATE SEQUENCE tocks; SELECT pg_catalog.pg_extension_config_dump('tocks', '');
    CREATE FUNCTION used(a int, b int DEFAULT 1) RETURNS int LANGUAGE sql AS 'SELECT a + b';
    CREATE TABLE clash (a text);
    CREATE TYPE amount AS (a numeric(9, 2));";

fn write_extension(folder: &Path, version: &str, script: &str) {
    let control = format!("default_version = '{version}'\nrelocatable = true\ntrusted = true\n");
    fs::write(folder.join("tiny.control"), control).unwrap();
    fs::write(folder.join(format!("tiny--{version}.sql")), script).unwrap();
}

#[test]
fn another_version_of_an_extension_is_this_machines_difference() {
    let (site, database) = (Site::new(), Database::fresh(18));
    // Where the server may read it, under any user.
    let shared = tempfile::tempdir().unwrap();
    let folder = shared.path().join("extension");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o755)).unwrap();
    write_extension(&folder, "1.0", ONE);
    let role = format!("user_{}", unique_word());
    database.sql(&format!(
        "SET extension_control_path = '{}:$system'; CREATE EXTENSION tiny; CREATE ROLE {role};
         INSERT INTO conf VALUES (10, 'ours'); INSERT INTO narrow VALUES (1, 2); SELECT setval('ticks', 7);
         GRANT EXECUTE ON FUNCTION used(int) TO {role}; GRANT SELECT ON conf TO {role};
         CREATE VIEW calls AS SELECT only_one(); CREATE INDEX ON conf (what);
         CREATE TABLE amounts (a amount); INSERT INTO amounts VALUES (ROW(1.5));
         CREATE FUNCTION hidden(a int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN public.only_one() = 1; END';
         CREATE TABLE hides (a int CHECK (hidden(a))); INSERT INTO hides VALUES (1);
         CREATE TABLE clash (a int); INSERT INTO clash VALUES (1);
         CREATE TABLE own (a int PRIMARY KEY, b varchar(9) CHECK (b IN ('x', 'y'))); INSERT INTO own VALUES (1, 'x')",
        shared.path().display()
    ));
    succeed(&mut site.backup(&database.url()));
    let bin = without_extension(&site, 18, "no such");
    let share = succeed(std::process::Command::new(bin.join("pg_config")).arg("--sharedir")).text();
    let here = Path::new(share.trim()).join("extension");
    write_extension(&here, "2.0", TWO);
    let report = succeed(drill(&site).env("BACKUP_PG_BIN", &bin)).json();
    assert_eq!(report["drill"]["status"], "ok", "{report:#}");
    let not_proved = report["drill"]["not_proved"].as_array().unwrap();
    let whys: std::collections::BTreeMap<&str, &str> = not_proved
        .iter()
        .map(|left| (left["what"].as_str().unwrap(), left["why"].as_str().unwrap()))
        .collect();
    for what in [
        "EXTENSION tiny",
        "TABLE DATA public.conf",
        "TABLE DATA public.narrow",
        "TABLE DATA public.fresh",
        "TABLE DATA public.amounts",
        "TABLE DATA public.hides",
        "TABLE public.clash",
        "SEQUENCE SET public.ticks",
        "SEQUENCE SET public.tocks",
        "VIEW public.calls",
        "ACL public.FUNCTION used(a integer)",
        "ACL public.TABLE conf",
    ] {
        let why = whys
            .get(what)
            .unwrap_or_else(|| panic!("{what} is not among {whys:#?}"));
        assert!(
            why.contains("1.0") && why.contains("2.0") || what == "TABLE DATA public.clash",
            "{what}: {why}"
        );
    }
    let tables = results(&report);
    for (table, result) in &tables {
        let expected = if table == "public.own" { "equal" } else { "not_proved" };
        assert_eq!(result, expected, "{table}: {report:#}");
    }
    assert!(tables.len() >= 6, "{tables:?}");
    assert_eq!(report["drill"]["partly"], true);
    // Where it is the source's version, by what older backups have of it, all is proved.
    fs::remove_file(here.join("tiny--2.0.sql")).unwrap();
    write_extension(&here, "1.0", ONE);
    as_older_backup(&site, |manifest| {
        let extensions = manifest.as_object_mut().unwrap().remove("extensions").unwrap();
        let tiny = serde_json::json!({"name": "tiny", "version": "1.0"});
        assert!(extensions.as_array().unwrap().contains(&tiny), "{extensions:#}");
    });
    let report = succeed(drill(&site).env("BACKUP_PG_BIN", &bin)).json();
    assert!(report["drill"].get("not_proved").is_none(), "{report:#}");
    assert_eq!(report["drill"]["partly"], false);
    // A script is run as a whole, or not at all.
    write_extension(&here, "2.0", TWO);
    let plain = Site::new();
    succeed(plain.backup(&database.url()).args(["--format", "plain"]));
    let run = run(drill(&plain).env("BACKUP_PG_BIN", &bin));
    assert_eq!(run.status.code(), Some(43), "{}", run.stderr);
    assert!(run.stderr.contains("2.0"), "{}", run.stderr);
    site.assert_nothing_runs();
}
