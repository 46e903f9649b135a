//! If this machine's libraries sort text otherwise than the source's, the drill says so; and a refusal for this reason
//! is no damage.

use serde_json::Value;

use super::{drill, results};
use crate::support::database::Database;
use crate::support::program::{pgstow, succeed};
use crate::support::wreck::{Site, tree};

const WORDS: &str = "icu's de has version 1.0 in the source";

fn manifest(site: &Site) -> Value {
    let store = site.store();
    let files = tree(&store);
    let file = files.iter().find(|file| file.ends_with("manifest.json")).unwrap();
    serde_json::from_slice(&std::fs::read(store.join(file)).unwrap()).unwrap()
}

/// PostgreSQL 15's is the build with ICU.
#[test]
fn another_version_of_a_collation_is_told_and_what_it_refuses_is_not_proved() {
    let (site, database) = (Site::new(), Database::fresh(15));
    database.sql(
        "CREATE TABLE sorted (a text COLLATE \"de-x-icu\") PARTITION BY RANGE (a);
         CREATE TABLE low PARTITION OF sorted FOR VALUES FROM (MINVALUE) TO ('m');
         INSERT INTO sorted VALUES ('a'), ('b'); CREATE TABLE fine (a int); INSERT INTO fine VALUES (1)",
    );
    // Rows that do not fit the bounds that their partition says, as after a change of the system's collations.
    database.sql(
        "CREATE TABLE others (LIKE sorted) PARTITION BY RANGE (a);
         CREATE TABLE another PARTITION OF others FOR VALUES FROM ('x') TO ('y');
         UPDATE pg_class SET relpartbound = (SELECT relpartbound FROM pg_class WHERE relname = 'another')
          WHERE relname = 'low'; DROP TABLE others",
    );
    database.sql("UPDATE pg_collation SET collversion = '1.0' WHERE collname = 'de-x-icu'");
    succeed(&mut site.backup(&database.url()));
    let known = &manifest(&site)["collations"][0];
    assert_eq!(
        (&known["name"], &known["provider"], &known["locale"]),
        (&"pg_catalog.\"de-x-icu\"".into(), &"icu".into(), &"de".into()),
        "{known:#}"
    );
    let report = succeed(&mut drill(&site)).json();
    let proved = &report["drill"];
    assert_eq!(proved["status"], "ok", "{report:#}");
    assert!(proved["notes"][0].as_str().unwrap().contains(WORDS), "{report:#}");
    let mut found = results(&report);
    found.sort();
    let result = |name: &str, result: &str| (format!("public.{name}"), result.to_owned());
    assert_eq!(
        found,
        [result("fine", "equal"), result("low", "not_proved")],
        "{report:#}"
    );
    let lefts = report["drill"]["not_proved"].as_array().unwrap();
    let rows = lefts.iter().find(|left| left["what"] == "TABLE DATA public.low");
    assert!(rows.unwrap()["why"].as_str().unwrap().contains(WORDS), "{report:#}");

    let target = Database::fresh(15);
    let mut restore = pgstow();
    restore
        .args(["restore", "latest", "--dry-run", "--json", "--store"])
        .arg(site.store())
        .env("BACKUP_TARGET_URL", target.url())
        .env("TMPDIR", site.path().join("tmp"))
        .current_dir(site.path());
    let restored = succeed(&mut restore).json();
    let warnings = restored["warnings"].as_array().unwrap();
    assert!(
        warnings.iter().any(|one| one.as_str().unwrap().contains(WORDS)),
        "{restored:#}"
    );
}
