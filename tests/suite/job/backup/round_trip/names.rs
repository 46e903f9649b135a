//! Databases with names that are a bad choice, and that exist.

use std::fs;
use std::path::PathBuf;

use crate::job::backup::round_trip::backup::Backup;
use crate::support::database::{Database, psql, quoted};
use crate::support::program::{pgstow, program, succeed};
use crate::support::services::postgres_url;

/// How the source is named in the settings.
#[derive(Clone, Copy)]
enum Given {
    AsUrl,
    InParts,
}

/// How the name begins, and how it begins in the store. docs/FORMAT.md says what is encoded.
const NAMES: [(&str, &str); 13] = [
    ("two words ", "two words "),
    ("it's \"quoted\"", "it's \"quoted\""),
    ("line\nfeed\ttab\rreturn", "line%0Afeed%09tab%0Dreturn"),
    ("a/b/../c", "a%2Fb%2F..%2Fc"),
    ("back\\slash", "back%5Cslash"),
    ("größe 日本 📦", "größe 日本 📦"),
    ("-rf --help", "-rf --help"),
    ("100%s%2F", "100%25s%252F"),
    ("host=nowhere dbname=postgres", "host=nowhere dbname=postgres"),
    ("postgres://x", "postgres:%2F%2Fx"),
    ("..hidden", "%2E.hidden"),
    ("$(touch x);`id`&|<>*?[]{}!#~", "$(touch x);`id`&|<>*?[]{}!#~"),
    (" \u{7f}\u{85}\u{202e}", " %7F%C2%85\u{202e}"),
];

fn databases_of_any_name_survive(major: u32, given: Given, restored_from: fn(&Backup) -> PathBuf) {
    for (prefix, stored_prefix) in NAMES {
        let source = Database::named(major, prefix);
        source.sql("CREATE TABLE t AS SELECT 'of this database' AS what; COMMENT ON TABLE t IS 'a comment'");
        let mut command = pgstow();
        match given {
            Given::AsUrl => {
                command.env("DATABASE_URL", source.url());
            }
            Given::InParts => {
                let (host, port) = source.address();
                command.envs([
                    ("DB_HOST", host),
                    ("DB_PORT", port.to_string()),
                    ("DB_NAME", source.name.clone()),
                ]);
                command.envs([("DB_USER", "postgres".to_owned()), ("DB_PASSWORD", source.password())]);
            }
        }
        let backup = Backup::by(command.arg("backup"), major);

        let stored = source.name.replacen(prefix, stored_prefix, 1);
        assert_eq!(backup.manifest["database"], source.name.as_str());
        let (folder, time) = backup.report["id"].as_str().unwrap().rsplit_once('/').unwrap();
        assert_eq!(folder, stored);
        assert!(
            time.len() == "20250131T040500Z-full".len() && time.ends_with("Z-full"),
            "{time}"
        );
        let databases: Vec<_> = fs::read_dir(backup.store())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(databases, [stored.as_str()]);
        for role in ["dump", "toc"] {
            assert_eq!(backup.manifest["files"][role]["name"], format!("{stored}.{role}"));
        }
        succeed(
            program("sha256sum")
                .args(["-c", "--strict", "--quiet", "SHA256SUMS"])
                .current_dir(&backup.folder),
        );
        assert_eq!(
            backup.restored(&restored_from(&backup)).sql("TABLE t"),
            "of this database"
        );
    }
}

#[test]
fn databases_of_any_name_survive_on_15() {
    databases_of_any_name_survive(15, Given::InParts, |backup| backup.file("dump"));
}

#[test]
fn databases_of_any_name_survive_on_18() {
    databases_of_any_name_survive(18, Given::AsUrl, Backup::seekable);
}

fn in_encoding(encoding: &str) -> Database {
    let database = Database::fresh(16);
    let name = quoted(&database.name);
    let anew =
        format!("DROP DATABASE {name}; CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'");
    psql(16, &postgres_url(16), &anew);
    database
}

/// Rows are stored as the server has them; the manifest is UTF-8.
#[test]
fn a_database_in_another_encoding_survives_and_its_tables_are_named_in_the_manifest() {
    let source = in_encoding("LATIN1");
    source.sql(
        "SET client_encoding = 'UTF8'; CREATE SCHEMA \"Süd\"; CREATE TABLE \"Süd\".\"Größe\" AS SELECT 'Ä' AS \"ß\";",
    );
    let backup = Backup::of(&source, &[]);
    assert_eq!(backup.manifest["server"]["encoding"], "LATIN1");
    let table = &backup.manifest["tables"][0];
    assert_eq!((&table["schema"], &table["name"]), (&"Süd".into(), &"Größe".into()));
    assert_eq!(table["bytes"], 2);
    let target = backup.restored(&backup.file("dump"));
    assert_eq!(
        target.sql("SET client_encoding = 'UTF8'; SELECT \"ß\" FROM \"Süd\".\"Größe\""),
        "Ä"
    );
}

#[test]
fn a_database_without_an_encoding_survives_with_any_bytes() {
    let source = in_encoding("SQL_ASCII");
    source.sql(r#"DO $$ BEGIN EXECUTE E'CREATE TABLE "t\xff" AS SELECT text ''\xe4\xff'' AS "c\xfe"'; END $$"#);
    let backup = Backup::of(&source, &[]);
    assert_eq!(backup.manifest["tables"][0]["rows"], 1);
    let target = in_encoding("SQL_ASCII");
    succeed(backup.pg_restore().args(["-d", &target.url()]).arg(backup.file("dump")));
    let found = target.sql("SELECT relname::text::bytea, (query_to_xml(format('SELECT %I::bytea AS c FROM %I', attname, relname), false, true, '')) FROM pg_class c JOIN pg_attribute ON attrelid = c.oid AND attnum = 1 WHERE relname LIKE 't_' AND relkind = 'r'");
    assert!(found.starts_with("\\x74ff|") && found.contains("5P8="), "{found}");
}
