//! A plain dump is run as a role that is no superuser, too.

use crate::support::database::{Database, unique_word};
use crate::support::program::{pgstow, succeed};
use crate::support::wreck::Site;

fn a_script_that_gives_its_schemas_to_others_is_run(major: u32) {
    let (site, database) = (Site::new(), Database::fresh(major));
    let owner = format!("owner_{}", unique_word());
    database.sql(&format!(
        "CREATE ROLE {owner}; CREATE EXTENSION pg_trgm; CREATE SCHEMA app; ALTER SCHEMA app OWNER TO {owner};
         CREATE TABLE app.t (a int PRIMARY KEY, b text); ALTER TABLE app.t OWNER TO {owner};
         INSERT INTO app.t VALUES (1, 'x'); CREATE INDEX ON app.t USING gin (b gin_trgm_ops);
         CREATE MATERIALIZED VIEW app.m AS SELECT a FROM app.t; ALTER MATERIALIZED VIEW app.m OWNER TO {owner};
         GRANT SELECT ON app.t TO PUBLIC"
    ));
    succeed(site.backup(&database.url()).args(["--format", "plain"]));
    let report = succeed(&mut site.drill(pgstow())).json();
    assert_eq!(report["drill"]["status"], "ok", "{report:#}");
    site.assert_nothing_runs();
}

on_majors! { a_script_that_gives_its_schemas_to_others_is_run: 15 18 }
