//! The oldest servers lack some of what takes power away in newer ones, and have nothing to take.

use pgstow::postgres::{Lacking, ScratchServer, ServerPrograms};
use secrecy::ExposeSecret;

use super::{assert_proved, not_proved, open_folder, result};
use crate::support::database::try_psql;
use crate::support::program::{pgstow, succeed};
use crate::support::services::{postgres_bin, postgres_settings};
use crate::support::wreck::Site;

const MAJOR: u32 = 14;

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_backup_of_postgresql_14_is_proved_on_postgresql_14() {
    let temp = open_folder("pgstow-older-");
    let settings = postgres_settings(MAJOR);
    let programs = ServerPrograms::find(MAJOR, &settings).await.unwrap();
    let source = ScratchServer::start(&programs, temp.path(), &settings, Lacking::Tolerated)
        .await
        .unwrap();
    let info = source.info();
    let url = format!(
        "postgresql://{}:{}@/postgres?host={}&port={}",
        info.user.as_deref().unwrap(),
        info.password.as_ref().unwrap().expose_secret(),
        info.host.as_deref().unwrap(),
        info.port.unwrap()
    );
    let sql = |sql: &str| {
        // Any newer psql talks to it.
        let run = try_psql(15, &url, sql);
        assert!(run.status.success(), "{}", run.stderr);
    };
    sql(
        "CREATE ROLE owner CREATEROLE; CREATE ROLE boss SUPERUSER; CREATE SCHEMA app; ALTER SCHEMA app OWNER TO owner;
         CREATE EXTENSION hstore; CREATE EXTENSION postgres_fdw;
         CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'x'); ALTER SERVER elsewhere OWNER TO owner;
         CREATE USER MAPPING FOR owner SERVER elsewhere OPTIONS (user 'u', password 'p');
         CREATE FOREIGN TABLE app.far (a int DEFAULT 1) SERVER elsewhere; ALTER FOREIGN TABLE app.far OWNER TO owner;
         CREATE TABLE app.t (a int PRIMARY KEY, b hstore); ALTER TABLE app.t OWNER TO owner; INSERT INTO app.t VALUES (1, 'a=>1');
         CREATE TABLE bosses (a int); ALTER TABLE bosses OWNER TO boss; INSERT INTO bosses VALUES (1);
         CREATE MATERIALIZED VIEW app.m AS SELECT a FROM app.t; ALTER MATERIALIZED VIEW app.m OWNER TO owner;
         CREATE PUBLICATION everything FOR ALL TABLES; SELECT lo_from_bytea(4711, 'large')",
    );
    let site = Site::new();
    let drilled = || {
        succeed(site.backup(&url).env("BACKUP_PG_BIN", postgres_bin(MAJOR)));
        let mut command = site.drill(pgstow());
        let report = succeed(command.env("BACKUP_PG_BIN", postgres_bin(MAJOR))).json();
        assert!(
            report["drill"]["server"].as_str().unwrap().starts_with("14."),
            "{report:#}"
        );
        report
    };
    assert_proved(&drilled());
    // And what is tried again has a new database there too.
    sql(
        "CREATE FUNCTION app.ok(a int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN true; END $$;
         CREATE TABLE app.asking (a int CHECK (app.ok(a))); INSERT INTO app.asking VALUES (1);
         CREATE OR REPLACE FUNCTION app.ok(a int) RETURNS boolean LANGUAGE plpgsql AS
           $$ BEGIN RAISE EXCEPTION 'must be superuser'; END $$",
    );
    let report = drilled();
    assert_eq!(not_proved(&report)[0].0, "TABLE DATA app.asking", "{report:#}");
    assert_eq!(result(&report, "app", "t"), "equal");
    site.assert_nothing_runs();
    source.stop().await.unwrap();
}
