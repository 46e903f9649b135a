//! A locale that the drill's machine lacks is no evidence: what may be refused or differ for that alone is not proved.

use serde_json::Value;

use super::{drill, meddling, results, verification};
use crate::support::program::{pgstow, run, succeed};
use crate::support::server::{FOREIGN_LOCALE, OwnServer};
use crate::support::services::postgres_bin;
use crate::support::wreck::Site;

#[test]
fn what_depends_on_a_locale_that_is_not_here_is_not_proved_and_no_damage() {
    let server = OwnServer::start_in_foreign_locale(17);
    let (site, database) = (Site::new(), server.database("letters"));
    database.sql(
        "CREATE TABLE named (n text CHECK (n ~ '^[[:alpha:]]+$')); INSERT INTO named VALUES ('Müller');
         CREATE TABLE indexed (n text); INSERT INTO indexed VALUES ('Ä');
         CREATE FUNCTION small(a text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
           'BEGIN IF lower(a) = a THEN RAISE EXCEPTION ''it is small''; END IF; RETURN a; END';
         CREATE INDEX smallest ON indexed (small(n));
         CREATE COLLATION pg_catalog.\"xx_YY\" (locale = 'xx_YY.UTF-8');
         CREATE TABLE collated (n text COLLATE pg_catalog.\"xx_YY\"); INSERT INTO collated VALUES ('b'), ('a');
         CREATE TABLE fine (a int PRIMARY KEY); INSERT INTO fine SELECT generate_series(1, 100)",
    );
    succeed(&mut site.backup(&database.url()));
    let report = succeed(&mut drill(&site)).json();
    assert_eq!(report["drill"]["status"], "ok", "{report:#}");
    assert_eq!(report["drill"]["partly"], true, "{report:#}");
    let lefts = report["drill"]["not_proved"].as_array().unwrap();
    let text = |left: &Value, name: &str| left[name].as_str().unwrap().to_owned();
    let mut left: Vec<String> = lefts.iter().map(|left| text(left, "what")).collect();
    left.sort();
    assert_eq!(
        left,
        [
            "INDEX public.smallest",
            "TABLE DATA public.collated",
            "TABLE DATA public.named",
            "TABLE public.collated",
            "the database's locale",
        ],
        "{report:#}"
    );
    for left in lefts {
        let (what, why) = (text(left, "what"), text(left, "why"));
        assert!(why.contains(FOREIGN_LOCALE) || what.ends_with("collated"), "{left:#}");
    }
    let result = |name: &str, result: &str| (format!("public.{name}"), result.to_owned());
    let mut found = results(&report);
    found.sort();
    let expected = [
        result("collated", "not_proved"),
        result("fine", "equal"),
        result("indexed", "equal"),
        result("named", "not_proved"),
    ];
    assert_eq!(found, expected, "{report:#}");
    // Rows that are gone are gone in every locale.
    let bin = meddling(&site, 17, "after.list", "DELETE FROM public.fine WHERE a = 1;");
    let mut command = drill(&site);
    command.env(
        "BACKUP_PG_BIN",
        format!("{}:{}", bin.display(), postgres_bin(17).display()),
    );
    let failed = run(&mut command);
    assert_eq!(failed.status.code(), Some(40), "{}", failed.stderr);
    let problems = failed.json()["drill"]["problems"].clone();
    assert_eq!(problems.as_array().unwrap().len(), 1, "{problems:#}");
    assert_eq!(problems[0]["table"], "public.fine", "{problems:#}");

    let plain = Site::new();
    succeed(plain.backup(&database.url()).args(["--format", "plain"]));
    let drilled = run(&mut drill(&plain));
    assert_eq!(drilled.status.code(), Some(43), "{}", drilled.stderr);
    assert_eq!(verification(&plain)["drill"], Value::Null);
    database.sql("DROP TABLE named, collated; DROP INDEX smallest");
    let plain = Site::new();
    succeed(plain.backup(&database.url()).args(["--format", "plain"]));
    let report = succeed(&mut drill(&plain)).json();
    assert_eq!(
        (&report["drill"]["status"], &report["drill"]["partly"]),
        (&"ok".into(), &true.into())
    );

    let mut command = pgstow();
    command.args(["doctor", "--json", "--store"]).arg(site.store());
    command.env("DATABASE_URL", database.url()).current_dir(site.path());
    let report = run(&mut command).json();
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == "drill").unwrap();
    assert_eq!(check["state"], "warning", "{check:#}");
    assert!(check["detail"].as_str().unwrap().contains(FOREIGN_LOCALE), "{check:#}");
}
