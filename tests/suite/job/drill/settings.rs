//! What the source's database computes by it computes by in a drill; and what is refused for want of such a setting is
//! no damage.

use serde_json::Value;

use super::{drill, results, verification};
use crate::support::database::{Database, psql, quoted, unique_word};
use crate::support::program::{run, succeed};
use crate::support::services::postgres_url;
use crate::support::wreck::Site;

/// `ALTER … SET` of the database, or of a role in it.
fn set(database: &Database, major: u32, role: Option<&str>, setting: &str) {
    let name = quoted(&database.name);
    let statement = match role {
        None => format!("ALTER DATABASE {name} SET {setting}"),
        Some(role) => format!("ALTER ROLE {role} IN DATABASE {name} SET {setting}"),
    };
    psql(major, &postgres_url(major), &statement);
}

fn a_drills_database_computes_by_the_sources_settings(major: u32) {
    let (site, database) = (Site::new(), Database::fresh(major));
    for setting in [
        "default_text_search_config = 'pg_catalog.german'",
        "timezone = 'Asia/Tokyo'",
        "datestyle = 'German'",
        "my.tenant = '7'",
    ] {
        set(&database, major, None, setting);
    }
    set(&database, major, Some("CURRENT_USER"), "my.own = '3'");
    database.sql(
        "CREATE TABLE words (t text CHECK (to_tsvector(t) @@ to_tsquery('haus'))); INSERT INTO words VALUES ('Häuser');
         CREATE TABLE moments (at timestamptz CHECK (at::text LIKE '05.03.2026 05:%'));
         INSERT INTO moments VALUES ('2026-03-04 20:00+00');
         CREATE TABLE tenants (a int CHECK (a = current_setting('my.tenant')::int)); INSERT INTO tenants VALUES (7);
         CREATE TABLE own (a int CHECK (a = current_setting('my.own')::int)); INSERT INTO own VALUES (3)",
    );
    succeed(&mut site.backup(&database.url()));
    let report = succeed(&mut drill(&site)).json();
    assert_eq!(report["drill"]["status"], "ok", "{report:#}");
    assert_eq!(report["drill"]["partly"], false, "{report:#}");
    let results = results(&report);
    assert_eq!(results.len(), 4, "{results:?}");
    assert!(results.iter().all(|(_, result)| result == "equal"), "{results:?}");
}

on_majors! { a_drills_database_computes_by_the_sources_settings: 15 18 }

#[test]
fn what_only_another_roles_setting_lets_in_is_not_proved() {
    let (site, database) = (Site::new(), Database::fresh(17));
    let (role, reader) = (format!("other_{}", unique_word()), format!("reader_{}", unique_word()));
    database.sql(&format!(
        "CREATE ROLE {role}; CREATE ROLE {reader} SUPERUSER LOGIN PASSWORD 'its secret'; ALTER ROLE {reader} SET my.wide = '4'"
    ));
    set(&database, 17, Some(&role), "my.other = '5'");
    database.sql(
        "CREATE TABLE others (a int CHECK (a = coalesce(current_setting('my.other', true), '0')::int));
         CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES (1);
         CREATE TABLE wide (a int CHECK (a = coalesce(current_setting('my.wide', true), '0')::int));
         SET my.wide = '4'; INSERT INTO wide VALUES (4);
         SET my.other = '5'; INSERT INTO others VALUES (5)",
    );
    succeed(&mut site.backup(&database.url_as(Some((&reader, "its secret")))));
    let report = succeed(&mut drill(&site)).json();
    assert_eq!(report["drill"]["status"], "ok", "{report:#}");
    assert_eq!(report["drill"]["partly"], true, "{report:#}");
    let lefts = report["drill"]["not_proved"].as_array().unwrap();
    let rows = lefts.iter().find(|left| left["what"] == "TABLE DATA public.others");
    let why = rows.unwrap_or_else(|| panic!("{report:#}"))["why"].as_str().unwrap();
    assert!(why.contains(&format!("my.other (of the role {role})")), "{why}");
    let mut found = results(&report);
    found.sort();
    let result = |name: &str, result: &str| (format!("public.{name}"), result.to_owned());
    assert_eq!(
        found,
        [
            result("others", "not_proved"),
            result("t", "equal"),
            result("wide", "equal")
        ]
    );
}

/// It does not hold the setting, and so its script needs a database that has it.
#[test]
fn a_plain_dump_without_its_databases_settings_is_no_damage() {
    let (site, database) = (Site::new(), Database::fresh(17));
    set(&database, 17, None, "my.tenant = '7'");
    set(&database, 17, None, "timezone = 'Asia/Tokyo'");
    database.sql(
        "CREATE TABLE moments (at timestamptz CHECK (at::date = DATE '2026-03-05'));
         INSERT INTO moments VALUES ('2026-03-04 20:00+00')",
    );
    succeed(site.backup(&database.url()).args(["--format", "plain"]));
    let report = succeed(&mut drill(&site)).json();
    assert_eq!(report["drill"]["status"], "ok", "{report:#}");

    database.sql(
        "CREATE TABLE tenants (a int CHECK (a = current_setting('my.tenant')::int)); INSERT INTO tenants VALUES (7)",
    );
    let site = Site::new();
    succeed(site.backup(&database.url()).args(["--format", "plain"]));
    let drilled = run(&mut drill(&site));
    assert_eq!(drilled.status.code(), Some(43), "{}", drilled.stderr);
    let message = drilled.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("my.tenant"), "{message}");
    assert_eq!(verification(&site)["drill"], Value::Null);
}
