//! The same bytes as pg_dump's, from databases in which everything occurs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::format::archive::builder::streams;
use crate::support::database::{Database, psql, quoted};
use crate::support::program::{stock, succeed};
use crate::support::services::postgres_url;
use crate::support::wreck::{Site, report};

/// More than one stretch of pages, with holes, updated rows and out-of-line values.
pub const LARGE: &str = "
    CREATE TABLE large (i int PRIMARY KEY, a text, b text DEFAULT 'x', gone text, c text GENERATED ALWAYS AS (upper(a)) STORED);
    INSERT INTO large (i, a) SELECT i, repeat(md5(i::text), 4) FROM generate_series(1, 250000) i;
    ALTER TABLE large DROP COLUMN gone;
    DELETE FROM large WHERE i % 11 = 0;
    UPDATE large SET b = NULL WHERE i % 17 = 0;
    CREATE TABLE outlying (i int PRIMARY KEY, a text);
    ALTER TABLE outlying ALTER COLUMN a SET STORAGE EXTERNAL;
    INSERT INTO outlying SELECT i, (SELECT string_agg(md5((i * j)::text), '') FROM generate_series(1, 200) j)
        FROM generate_series(1, 3000) i";

/// What a backup with so many jobs stores, and its manifest.
pub fn backup(site: &Site, database: &Database, jobs: usize, more: &[&str]) -> (PathBuf, Value) {
    let mut command = site.backup_into(&database.url(), &site.path().join(format!("jobs-{jobs}")));
    command
        .args(["--compress", "none", "--jobs", &jobs.to_string()])
        .args(more);
    let report = report(&mut command);
    assert!(report["warnings"].is_null(), "{report}");
    let folder = site
        .path()
        .join(format!("jobs-{jobs}"))
        .join(report["id"].as_str().unwrap());
    let manifest = serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    (folder, manifest)
}

/// Every stream of an uncompressed archive: a table's text, or a large object.
fn contents(folder: &Path, manifest: &Value) -> Vec<Vec<u8>> {
    let name = manifest["files"]["dump"]["name"].as_str().unwrap();
    let archive = std::fs::read(folder.join(name)).unwrap();
    let blocks = ["tables", "large_objects"];
    let first = blocks
        .iter()
        .flat_map(|kind| manifest[kind].as_array().into_iter().flatten());
    let first = first.map(|block| block["offset"].as_u64().unwrap()).min().unwrap();
    streams(&archive, usize::try_from(first).unwrap())
        .into_iter()
        .map(|stream| stream.chunks.concat())
        .collect()
}

/// The table of contents as stock pg_restore lists it, without its date, and without the numbers that
/// two runs of pg_dump may give otherwise: they follow the order in which the catalogs are scanned.
fn listed(major: u32, folder: &Path, manifest: &Value) -> String {
    let name = manifest["files"]["dump"]["name"].as_str().unwrap();
    let list = succeed(stock(major, "pg_restore").arg("-l").arg(folder.join(name))).text();
    list.lines()
        .filter(|line| !line.contains("Archive created at"))
        .map(|line| line.trim_start_matches(|c: char| c.is_ascii_digit()))
        .collect::<Vec<_>>()
        .join("\n")
}

pub fn ways(manifest: &Value) -> BTreeMap<String, String> {
    let tables = manifest["tables"].as_array().unwrap().iter();
    tables
        .map(|table| {
            (
                table["name"].as_str().unwrap().into(),
                table["read"].as_str().unwrap().into(),
            )
        })
        .collect()
}

fn assert_same(database: &Database, more: &[&str]) -> BTreeMap<String, String> {
    let site = Site::new();
    let (one, single) = backup(&site, database, 1, more);
    let expected = contents(&one, &single);
    let mut found = BTreeMap::new();
    for jobs in [2, 5] {
        let (many, manifest) = backup(&site, database, jobs, more);
        let got = contents(&many, &manifest);
        assert_eq!(got.len(), expected.len());
        for (number, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert!(got == expected, "{jobs} jobs: stream {number} differs");
        }
        assert_eq!(
            listed(database.major, &many, &manifest),
            listed(database.major, &one, &single)
        );
        for kind in ["tables", "large_objects"] {
            let blocks = [&single, &manifest].map(|manifest| manifest[kind].as_array().cloned().unwrap_or_default());
            for (one, many) in blocks[0].iter().zip(&blocks[1]) {
                for field in ["schema", "name", "rows", "bytes", "sha256", "count"] {
                    assert_eq!(one[field], many[field], "{field} of {many}");
                }
            }
        }
        found = ways(&manifest);
        assert!(ways(&single).values().all(|way| way == "pg_dump"));
    }
    found
}

fn a_rich_database_gives_the_same_archive_on_every_major(major: u32) {
    let database = Database::loaded(major, "rich.sql");
    database.sql(LARGE);
    let ways = assert_same(&database, &[]);
    assert_eq!(ways["large"], "ranges", "{ways:?}");
    assert_eq!(ways["outlying"], "ranges", "out-of-line values count: {ways:?}");
    assert!(ways.values().any(|way| way == "copy"), "{ways:?}");
}

on_majors! { a_rich_database_gives_the_same_archive_on_every_major: 15 16 17 18 }

#[test]
fn what_the_role_has_as_defaults_changes_nothing() {
    let database = Database::loaded(17, "rich.sql");
    database.sql(LARGE);
    let site = Site::new();
    let before = backup(&site, &database, 2, &[]);
    for setting in [
        "datestyle = 'German, DMY'",
        "intervalstyle = 'iso_8601'",
        "extra_float_digits = -10",
        "bytea_output = 'escape'",
        "quote_all_identifiers = on",
        "synchronize_seqscans = on",
        "enable_tidscan = off",
        "enable_seqscan = off",
        "search_path = 'nowhere'",
        "row_security = on",
        "timezone = 'Asia/Kathmandu'",
        "client_encoding = 'LATIN1'",
        "default_transaction_isolation = 'serializable'",
        "statement_timeout = '300ms'",
        "idle_in_transaction_session_timeout = '300ms'",
        "idle_session_timeout = '300ms'",
        "transaction_timeout = '300ms'",
        "lock_timeout = '1ms'",
    ] {
        database.sql(&format!(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET {}', current_database()); END $$",
            setting.replace('\'', "''")
        ));
    }
    let ways = assert_same(&database, &[]);
    assert_eq!(ways["large"], "ranges");
    let after = backup(&site, &database, 3, &[]);
    assert_eq!(contents(&before.0, &before.1), contents(&after.0, &after.1));
}

#[test]
fn names_and_rows_in_another_encoding_are_the_same() {
    let latin = Database::fresh(17);
    let name = quoted(&latin.name);
    psql(
        17,
        &postgres_url(17),
        &format!("DROP DATABASE {name}; CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'"),
    );
    latin.sql(
        "SET client_encoding = 'UTF8'; CREATE TABLE \"Größe (m²).x\" (\"länge\" text, \"b\"\"c\" int);
        INSERT INTO \"Größe (m²).x\" SELECT 'Straße ' || repeat('ü', 300), i FROM generate_series(1, 70000) i",
    );
    let ways = assert_same(&latin, &[]);
    assert_eq!(ways["Größe (m²).x"], "ranges", "{ways:?}");
}

#[test]
fn an_empty_database_and_one_of_large_objects_alone_have_their_archives() {
    let empty = Database::fresh(16);
    let site = Site::new();
    let (folder, _) = backup(&site, &empty, 4, &[]);
    succeed(
        stock(16, "pg_restore")
            .args(["-f", "/dev/null"])
            .arg(folder.join(format!("{}.dump", empty.name))),
    );
    for major in [15, 17] {
        let objects = Database::fresh(major);
        objects.sql(
            "SELECT count(lo_from_bytea(0, decode(repeat('00ff', i * 700), 'hex'))) FROM generate_series(0, 40) i",
        );
        assert_same(&objects, &[]);
    }
}

#[test]
fn every_compression_restores_to_the_same_database() {
    let database = Database::fresh(17);
    database.sql(LARGE);
    let site = Site::new();
    let sums = |database: &Database| {
        database.sql(
            "SELECT md5(string_agg(t::text, ',' ORDER BY i)) FROM large t UNION ALL
                      SELECT md5(string_agg(t::text, ',' ORDER BY i)) FROM outlying t",
        )
    };
    for compress in ["gzip:6", "zstd:3"] {
        let mut command = site.backup(&database.url());
        let report = report(command.args(["--jobs", "3", "--compress", compress]));
        let dump = site
            .store()
            .join(report["id"].as_str().unwrap())
            .join(format!("{}.dump", database.name));
        let target = Database::fresh(17);
        succeed(
            stock(17, "pg_restore")
                .args(["--exit-on-error", "-d", &target.url()])
                .arg(dump),
        );
        assert_eq!(sums(&target), sums(&database), "{compress}");
    }
}
