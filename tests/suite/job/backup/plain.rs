//! The manifest of a plain backup says of every table what that of a custom one says.

use sha2::{Digest, Sha256};

use crate::support::database::{Database, psql, quoted};
use crate::support::plain::{Kept, hostile, told};
use crate::support::services::postgres_url;

/// Both of the same database, in which nothing happens.
fn equal(database: &Database, compress: &str) -> Kept {
    let (custom, plain) = (Kept::of(database, &[]), Kept::plain(database, compress));
    let (one, other) = (told(&custom.manifest()), told(&plain.manifest()));
    for (one, other) in one.0.iter().zip(&other.0) {
        assert_eq!(one, other, "{} {compress}", database.major);
    }
    assert_eq!(one, other, "{} {compress}", database.major);
    for figure in ["tables", "rows", "large_objects"] {
        assert_eq!(custom.report[figure], plain.report[figure], "{figure}");
    }
    // A plain dump says nothing of the database itself, and that is said.
    let others = |kept: &Kept| -> Vec<String> {
        let warnings = kept.report["warnings"].as_array().into_iter().flatten();
        let warnings = warnings.map(|one| one.as_str().unwrap().to_owned());
        warnings.filter(|one| !one.starts_with("left out: database ")).collect()
    };
    assert_eq!(others(&plain), others(&custom));
    plain
}

/// Where the manifest says that the rows are, they are.
fn lies_where_it_says(plain: &Kept) {
    let (script, manifest) = (plain.script(), plain.manifest());
    assert_eq!(manifest["script"]["bytes"], script.len());
    let number = |value: &serde_json::Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    for table in manifest["tables"].as_array().unwrap() {
        let rows = &script[number(&table["offset"])..][..number(&table["length"])];
        assert_eq!(table["sha256"], hex::encode(Sha256::digest(rows)), "{table}");
        assert_eq!(table["length"], table["bytes"]);
    }
}

fn a_rich_database_has_the_same_rows_and_digests_in_both_formats(major: u32) {
    let database = Database::loaded(major, "rich.sql");
    let plain = equal(&database, if major == 16 { "gzip" } else { "auto" });
    assert!(plain.report["tables"].as_u64().unwrap() > 40);
    assert_eq!(plain.report["large_objects"], 7);
    lies_where_it_says(&plain);
    let verified = plain.is_good();
    for figure in ["tables", "rows", "large_objects"] {
        assert_eq!(verified[figure], plain.report[figure], "{figure}");
    }
}

on_majors! { a_rich_database_has_the_same_rows_and_digests_in_both_formats: 15 16 17 18 }

fn nothing_in_a_hostile_database_is_taken_for_what_it_is_not(major: u32) {
    let database = hostile(major);
    let plain = equal(&database, "none");
    lies_where_it_says(&plain);
    let manifest = plain.manifest();
    let names: Vec<&str> = manifest["tables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|table| table["name"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 10, "{names:#?}");
    // The script's headers have a space in it.
    assert!(names.contains(&"leaf\none"), "{names:#?}");
    plain.is_good();
    // The script says itself that a backslash escapes.
    database.sql(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET standard_conforming_strings = off', current_database()); END $$",
    );
    equal(&database, "zstd").is_good();
}

on_majors! { nothing_in_a_hostile_database_is_taken_for_what_it_is_not: 15 16 17 18 }

#[test]
fn names_in_other_encodings_are_those_of_a_custom_backup() {
    for encoding in ["LATIN1", "EUC_JP", "SQL_ASCII"] {
        let database = Database::fresh(17);
        let name = quoted(&database.name);
        let anew =
            format!("DROP DATABASE {name}; CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'");
        psql(17, &postgres_url(17), &anew);
        let word = if encoding == "EUC_JP" { "日本" } else { "año" };
        database.sql(&format!(
            "SET client_encoding = 'UTF8'; CREATE TABLE \"{word}\nx\" (\"{word}\" text); INSERT INTO \"{word}\nx\" VALUES ('{word}')"
        ));
        let plain = equal(&database, "none");
        assert_eq!(
            plain.manifest()["tables"][0]["name"],
            format!("{word}\nx"),
            "{encoding}"
        );
        plain.is_good();
    }
}

#[test]
fn an_empty_database_is_counted_as_empty() {
    let plain = equal(&Database::fresh(18), "zstd");
    assert_eq!(plain.report["tables"], 0);
    assert_eq!(plain.manifest()["script"]["definitions"], 0);
    assert_eq!(plain.is_good()["tables"], 0);
}
