use serde_json::Value;

use super::reaching::Role;
use crate::support::database::{Database, psql, quoted};
use crate::support::impostor::{impostor, trickle};
use crate::support::program::{pgstow, run};
use crate::support::services::postgres_url;
use crate::support::wreck::{Failure, Site, assert_good, fail, report};

const SHOP: &str = "CREATE SCHEMA \"the shop\";
    CREATE TABLE \"the shop\".open AS SELECT 1 AS a;
    CREATE TABLE \"the shop\".\"it's closed\" AS SELECT 2 AS a;
    CREATE SEQUENCE \"the shop\".numbers";

/// What the hint proposes, without the alternatives and explanations that follow.
fn suggested(failure: &Failure) -> &str {
    let ends = ["; or ", ", or ", "; a role "]
        .iter()
        .filter_map(|end| failure.hint.find(end));
    &failure.hint[..ends.min().unwrap_or(failure.hint.len())]
}

/// A role that may read all but what `hurdle` takes away is refused, and after what the hint says
/// it is not. The failure is given back for a closer look.
fn cured_by_its_hint(major: u32, hurdle: &str) -> Failure {
    let (site, database) = (Site::new(), Database::fresh(major));
    database.sql(SHOP);
    let role = Role::new(&database, "");
    let grant = "GRANT USAGE ON SCHEMA \"the shop\" TO ROLE; GRANT SELECT ON ALL TABLES IN SCHEMA \"the shop\" TO ROLE;
         GRANT SELECT ON ALL SEQUENCES IN SCHEMA \"the shop\" TO ROLE;";
    database.sql(&format!("{grant}{hurdle}").replace("ROLE", &role.name));
    let failure = fail(&mut site.backup(&role.url()), "PERMISSION", 13);
    assert!(failure.message.contains(&role.name), "{}", failure.message);
    site.assert_nothing_is_left_of(&database);

    database.sql(suggested(&failure));
    let made = report(&mut site.backup(&role.url()));
    assert_good(&site.store(), made["id"].as_str().unwrap(), major);
    failure
}

fn a_table_that_the_role_may_not_read_is_named_with_its_grant(major: u32) {
    let failure = cured_by_its_hint(major, "REVOKE SELECT ON \"the shop\".\"it's closed\" FROM ROLE");
    assert!(
        failure.message.contains("\"the shop\".\"it's closed\""),
        "{}",
        failure.message
    );
    assert!(!failure.message.contains("open"), "{}", failure.message);
    assert!(
        failure.hint.contains("GRANT SELECT ON \"the shop\".\"it's closed\" TO"),
        "{}",
        failure.hint
    );
    assert!(failure.hint.contains("pg_read_all_data"), "{}", failure.hint);
}

on_majors! { a_table_that_the_role_may_not_read_is_named_with_its_grant: 15 18 }

#[test]
fn a_sequence_that_the_role_may_not_read_is_named_with_its_grant() {
    let failure = cured_by_its_hint(17, "REVOKE SELECT ON SEQUENCE \"the shop\".numbers FROM ROLE");
    assert!(failure.message.contains("\"the shop\".numbers"), "{}", failure.message);
    assert!(
        failure
            .hint
            .contains("GRANT SELECT ON SEQUENCE \"the shop\".numbers TO"),
        "{}",
        failure.hint
    );
}

#[test]
fn a_schema_that_the_role_may_not_use_is_named_with_its_grant() {
    let failure = cured_by_its_hint(16, "REVOKE USAGE ON SCHEMA \"the shop\" FROM ROLE");
    assert!(
        failure.hint.contains("GRANT USAGE ON SCHEMA \"the shop\" TO"),
        "{}",
        failure.hint
    );
}

#[test]
fn row_level_security_that_hides_rows_is_permission_with_bypassrls() {
    let failure = cured_by_its_hint(
        15,
        "ALTER TABLE \"the shop\".open ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON \"the shop\".open USING (a > 1)",
    );
    assert!(failure.message.contains("row-level security"), "{}", failure.message);
    assert!(failure.hint.contains("BYPASSRLS"), "{}", failure.hint);
}

#[test]
fn a_large_object_that_the_role_may_not_read_is_named_with_its_grant() {
    let failure = cured_by_its_hint(
        17,
        "SELECT lo_from_bytea(4711, 'secret'), lo_from_bytea(4712, 'as well')",
    );
    let named = "may not read large object 4711, large object 4712";
    assert!(failure.message.contains(named), "{}", failure.message);
    assert!(
        failure.hint.contains("GRANT SELECT ON LARGE OBJECT 4711, 4712"),
        "{}",
        failure.hint
    );
}

/// `pg_read_all_data` reads the table, and not the large object.
fn a_large_object_beside_a_table_is_granted_together_with_it(major: u32) {
    let hurdle = "SELECT lo_from_bytea(4711, 'secret'); REVOKE SELECT ON \"the shop\".open FROM ROLE";
    let failure = cured_by_its_hint(major, hurdle);
    let named = "may not read \"the shop\".open, large object 4711";
    assert!(failure.message.contains(named), "{}", failure.message);
    let grants = "GRANT SELECT ON \"the shop\".open TO";
    assert!(failure.hint.starts_with(grants), "{}", failure.hint);
    assert!(
        failure.hint.contains("GRANT SELECT ON LARGE OBJECT 4711 TO"),
        "{}",
        failure.hint
    );

    let tables: String = (0..25)
        .map(|n| format!("CREATE TABLE \"the shop\".more{n} (a int); "))
        .collect();
    let hurdle = format!("SELECT lo_from_bytea(4711, 'secret'); {tables}");
    let failure = cured_by_its_hint(major, &hurdle);
    assert!(
        failure.hint.starts_with("GRANT pg_read_all_data TO"),
        "{}",
        failure.hint
    );
}

on_majors! { a_large_object_beside_a_table_is_granted_together_with_it: 15 18 }

#[test]
fn the_role_that_the_hint_proposes_for_everything_reads_everything() {
    let (site, database) = (Site::new(), Database::fresh(16));
    database.sql(SHOP);
    let role = Role::new(&database, "");
    fail(&mut site.backup(&role.url()), "PERMISSION", 13);
    database.sql(&format!("GRANT pg_read_all_data TO {}", role.name));
    report(&mut site.backup(&role.url()));
}

/// More than a line could name.
#[test]
fn many_large_objects_are_granted_by_one_statement() {
    cured_by_its_hint(
        18,
        "SELECT lo_from_bytea(n, 'secret') FROM generate_series(5000, 5100) n",
    );
}

/// What is asked before all else: the role's privileges have not been checked yet.
#[test]
fn a_closed_function_that_every_session_calls_is_named_with_its_grant() {
    for function in ["pg_is_in_recovery()", "set_config(text, text, boolean)"] {
        let hurdle = format!("REVOKE EXECUTE ON FUNCTION pg_catalog.{function} FROM PUBLIC");
        let (site, database) = (Site::new(), Database::fresh(17));
        let role = Role::new(&database, "");
        database.sql(&format!("GRANT pg_read_all_data TO {}; {hurdle}", role.name));
        let failure = fail(&mut site.backup(&role.url()), "PERMISSION", 13);
        let grant = failure.hint.split(": ").nth(1).unwrap_or_default();
        assert!(
            grant.starts_with("GRANT EXECUTE ON FUNCTION pg_catalog."),
            "{}",
            failure.hint
        );
        database.sql(grant);
        report(&mut site.backup(&role.url()));
    }
}

fn a_closed_function_of_the_server_is_named_with_its_grant(major: u32) {
    let failure = cured_by_its_hint(
        major,
        "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_export_snapshot() FROM PUBLIC",
    );
    assert!(failure.message.contains("pg_export_snapshot()"), "{}", failure.message);
    assert!(
        failure
            .hint
            .contains("GRANT EXECUTE ON FUNCTION pg_export_snapshot() TO"),
        "{}",
        failure.hint
    );
}

on_majors! { a_closed_function_of_the_server_is_named_with_its_grant: 15 18 }

/// The server has answered, and the first statement of the hint lets the role in.
fn a_login_that_the_server_refuses_is_cured_by_its_hint(major: u32) {
    let (site, database) = (Site::new(), Database::fresh(major));
    database.sql("CREATE TABLE t AS SELECT 1 AS a");
    let role = Role::new(&database, "");
    database.sql(&format!("GRANT pg_read_all_data TO {}", role.name));
    let this = quoted(&database.name);
    // From another database, so that no session can connect to this one in between.
    let sql = |statement: &str| psql(major, &postgres_url(major), statement);
    for (hurdle, code, exit) in [
        (
            format!("REVOKE CONNECT ON DATABASE {this} FROM public"),
            "PERMISSION",
            13,
        ),
        (format!("ALTER DATABASE {this} ALLOW_CONNECTIONS false"), "CONN_ERR", 10),
        (format!("ALTER ROLE {} NOLOGIN", role.name), "AUTH", 11),
        (
            format!("ALTER ROLE {} SET session_preload_libraries = 'nonexist'", role.name),
            "CONN_ERR",
            10,
        ),
    ] {
        sql(&hurdle);
        let failure = fail(&mut site.backup(&role.url()), code, exit);
        assert!(!failure.hint.contains("host, port"), "{}", failure.hint);
        assert!(!failure.hint.contains("<role>"), "{}", failure.hint);
        sql(suggested(&failure));
        report(&mut site.backup(&role.url()));
    }
    for (options, code, exit) in [
        ("-clog_statement%3Dall", "PERMISSION", 13),
        ("-crole%3Dpg_monitor", "PERMISSION", 13),
        ("-cnosuch%3D1", "CONN_ERR", 10),
    ] {
        let url = format!("{}?options={options}", role.url());
        let failure = fail(&mut site.backup(&url), code, exit);
        assert!(failure.hint.contains("PGOPTIONS"), "{options}: {}", failure.hint);
    }
}

on_majors! { a_login_that_the_server_refuses_is_cured_by_its_hint: 15 18 }

/// Each hint names what is in the way, and helps when it is followed.
#[test]
fn what_stands_in_a_roles_way_is_named() {
    let (site, database) = (Site::new(), Database::fresh(17));
    database.sql(SHOP);
    let (role, other) = (Role::new(&database, ""), Role::new(&database, ""));
    database.sql(&format!(
        "GRANT pg_read_all_data TO {role}; GRANT {other} TO {role}; ALTER ROLE {role} SET role = '{other}'",
        role = role.name,
        other = other.name
    ));
    let failure = fail(&mut site.backup(&role.url()), "PERMISSION", 13);
    let reset = format!("ALTER ROLE \"{}\" RESET role", role.name);
    assert!(failure.hint.contains(&reset), "{}", failure.hint);
    database.sql(&reset);
    report(&mut site.backup(&role.url()));
    // The same by a setting of the database's, and by one of the role's in it, which is the stronger.
    let this = format!("\"{}\"", database.name);
    database.sql(&format!(
        "ALTER DATABASE {this} SET role = '{other}'; ALTER ROLE {role} IN DATABASE {this} SET role = '{other}'",
        role = role.name,
        other = other.name
    ));
    for reset in [
        format!("ALTER ROLE \"{}\" IN DATABASE {this} RESET role", role.name),
        format!("ALTER DATABASE {this} RESET role"),
    ] {
        let failure = fail(&mut site.backup(&role.url()), "PERMISSION", 13);
        assert!(failure.hint.contains(&reset), "{}", failure.hint);
        database.sql(&format!("SET ROLE NONE; {reset}"));
    }
    report(&mut site.backup(&role.url()));

    database.sql(&format!("ALTER ROLE {} CONNECTION LIMIT 1", role.name));
    let failure = fail(&mut site.backup(&role.url()), "CONN_ERR", 10);
    assert!(failure.hint.contains("CONNECTION LIMIT 5"), "{}", failure.hint);
    let mut doctor = pgstow();
    doctor
        .args(["doctor", "--json"])
        .env("DATABASE_URL", role.url())
        .env("BACKUP_STORE", site.store());
    let looked = run(&mut doctor);
    assert!(looked.text().contains("CONNECTION LIMIT 5"), "{}", looked.text());
    database.sql(&format!("ALTER ROLE {} CONNECTION LIMIT 5", role.name));
    report(&mut site.backup(&role.url()));

    let insisting = |parameter: &str| {
        let url = role.url();
        let joint = if url.contains('?') { '&' } else { '?' };
        format!("{url}{joint}{parameter}")
    };
    let failure = fail(
        &mut site.backup(&insisting("target_session_attrs=standby")),
        "CONN_ERR",
        10,
    );
    assert!(failure.hint.contains("target_session_attrs"), "{}", failure.hint);
}

/// The tables of a report's backup, as its manifest has them.
fn tables(site: &Site, report: &Value) -> Vec<Value> {
    let path = site.store().join(report["id"].as_str().unwrap()).join("manifest.json");
    let manifest: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let tables = manifest["tables"].as_array().unwrap().iter();
    tables
        .map(|table| {
            serde_json::json!([
                table["schema"],
                table["name"],
                table["rows"],
                table["bytes"],
                table["sha256"]
            ])
        })
        .collect()
}

/// Every type whose text depends on a setting.
const TELLING: &str = "CREATE TABLE telling AS
    SELECT i, now() + i * interval '1 day' AS moment, interval '1 day 2 hours' * i AS span, 1.1::float8 / i AS ratio,
           decode(md5(i::text), 'hex') AS bytes, 'grün, Kovač, 日本'::text AS words, 'pg_class'::regclass AS class,
           'telling_type'::regtype AS kind, '<a>ä</a>'::xml AS document, ARRAY[NULL, 'null'] AS holes
    FROM generate_series(1, 500) i";

fn a_roles_own_settings_change_nothing_of_what_is_read(major: u32) {
    let (site, database) = (Site::new(), Database::fresh(major));
    database.sql("CREATE TYPE telling_type AS (a int)");
    database.sql(TELLING);
    let role = Role::new(&database, "SUPERUSER");
    let plain = report(&mut site.backup(&role.url()));
    let settings = [
        "datestyle = 'German, DMY'",
        "intervalstyle = 'sql_standard'",
        "extra_float_digits = -5",
        "search_path = 'pg_temp, no_such_schema'",
        "row_security = on",
        "default_transaction_read_only = on",
        "default_transaction_isolation = 'serializable'",
        "default_transaction_deferrable = on",
        "timezone = 'Asia/Kathmandu'",
        "bytea_output = 'escape'",
        "client_encoding = 'LATIN1'",
        "quote_all_identifiers = on",
        "standard_conforming_strings = off",
        "synchronize_seqscans = on",
        "array_nulls = off",
        "xmloption = 'document'",
        "client_min_messages = 'debug1'",
        "lc_messages = 'C'",
    ];
    for setting in settings {
        database.sql(&format!(
            "ALTER ROLE {} IN DATABASE \"{}\" SET {setting}",
            role.name, database.name
        ));
    }
    let odd = report(&mut site.backup(&role.url()));
    assert_eq!(tables(&site, &plain), tables(&site, &odd), "PostgreSQL {major}");
    assert_good(&site.store(), odd["id"].as_str().unwrap(), major);
    site.assert_nothing_runs();
}

on_majors! { a_roles_own_settings_change_nothing_of_what_is_read: 15 17 18 }

#[test]
fn a_roles_row_security_off_is_no_way_around_a_policy() {
    let (site, database) = (Site::new(), Database::fresh(15));
    database.sql("CREATE TABLE t AS SELECT 1 AS a; ALTER TABLE t ENABLE ROW LEVEL SECURITY");
    let role = Role::new(&database, "");
    database.sql(&format!(
        "GRANT pg_read_all_data TO {0}; ALTER ROLE {0} SET row_security = off",
        role.name
    ));
    fail(&mut site.backup(&role.url()), "PERMISSION", 13);
    site.assert_nothing_is_left_of(&database);
}

fn a_roles_timeouts_do_not_end_a_run_that_takes_longer(major: u32) {
    let (site, database) = (Site::new(), Database::fresh(major));
    database.sql("CREATE TABLE t AS SELECT i, md5(i::text) AS a FROM generate_series(1, 50000) i");
    let role = Role::new(&database, "");
    database.sql(&format!("GRANT pg_read_all_data TO {}", role.name));
    let mut timeouts = vec![
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
    ];
    if major >= 17 {
        timeouts.push("transaction_timeout");
    }
    for timeout in timeouts {
        database.sql(&format!("ALTER ROLE {} SET {timeout} = '400ms'", role.name));
    }
    let mut command = site.backup(&role.url());
    command.env("BACKUP_PG_BIN", impostor(site.path(), major, &trickle(250_000, 0.15)));
    let report = report(&mut command);
    assert!(
        report["duration_seconds"].as_f64().unwrap() > 1.0,
        "too quick to tell: {report}"
    );
    assert_eq!(report["rows"], 50_000);
    site.assert_nothing_runs();
}

on_majors! { a_roles_timeouts_do_not_end_a_run_that_takes_longer: 15 17 }

/// The limit ends pgstow's own first statements, before it can set its own.
fn a_statement_timeout_that_ends_the_first_statements_is_named(major: u32) {
    let (site, database) = (Site::new(), Database::fresh(major));
    database.sql(SHOP);
    let role = Role::new(&database, "");
    database.sql(&format!(
        "GRANT pg_read_all_data TO {0}; ALTER ROLE {0} SET statement_timeout = '1ms'",
        role.name
    ));
    let failure = fail(&mut site.backup(&role.url()), "CONN_ERR", 10);
    let reset = format!("ALTER ROLE \"{}\" RESET statement_timeout", role.name);
    assert!(failure.hint.contains(&reset), "{}", failure.hint);
    database.sql(&reset);
    report(&mut site.backup(&role.url()));
}

on_majors! { a_statement_timeout_that_ends_the_first_statements_is_named: 15 18 }
