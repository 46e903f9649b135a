//! Nothing at all, a great many, and one that is huge.

use sha2::{Digest, Sha256};

use crate::job::backup::round_trip::backup::Backup;
use crate::support::bucket::Bucket;
use crate::support::contents::{Contents, copied};
use crate::support::database::Database;
use crate::support::memory::bounded;
use crate::support::program::{pgstow, succeed};
use crate::support::services::cloud;

/// Stock pg_restore makes the same contents of it with two processes.
fn assert_restores_in_parallel(backup: &Backup, source: &Database, major: u32) {
    let parallel = Database::fresh(major);
    succeed(
        backup
            .pg_restore()
            .args(["-j2", "-d", &parallel.url()])
            .arg(backup.seekable()),
    );
    Contents::of(source).assert_equals(&Contents::of(&parallel));
}

#[test]
fn an_empty_database_survives_in_every_form() {
    for (major, options) in [
        (15, &["--compress", "gzip"][..]),
        (15, &["--compress", "none"]),
        (18, &["--compress", "zstd"]),
        (18, &["--compress", "gzip"]),
        (17, &["--format", "plain"]),
    ] {
        let source = Database::fresh(major);
        let backup = Backup::of(&source, options);
        assert_eq!(backup.manifest["tables"], serde_json::json!([]));
        assert_eq!(
            (&backup.report["tables"], &backup.report["rows"]),
            (&0.into(), &0.into())
        );
        if options[1] == "plain" {
            continue;
        }
        assert_restores_in_parallel(&backup, &source, major);
    }
}

#[test]
fn five_thousand_tables_survive() {
    let source = Database::fresh(17);
    source.sql(
        "DO $$ BEGIN FOR n IN 1..5000 LOOP EXECUTE format('CREATE TABLE %I AS SELECT %s AS n, md5(%L) AS text', 'table ' || n, n, n); END LOOP; END $$",
    );
    let backup = Backup::of(&source, &[]);

    let target = Database::fresh(17);
    succeed(
        backup
            .pg_restore()
            .args(["-j2", "-d", &target.url()])
            .arg(backup.seekable()),
    );
    let tables = backup.manifest["tables"].as_array().unwrap();
    assert_eq!(tables.len(), 5000);
    let names = tables.iter().map(|table| table["name"].as_str().unwrap().to_owned());
    let sources: Vec<(String, String)> = names.map(|name| (name.clone(), format!("public.\"{name}\""))).collect();
    let restored = copied(&target, "", &sources);
    for table in tables {
        let text = &restored[table["name"].as_str().unwrap()];
        assert_eq!(
            (&table["rows"], &table["sha256"]),
            (&1.into(), &text.sha256.as_str().into())
        );
    }
}

/// One row whose COPY text is 300 MB.
fn huge(major: u32) -> Database {
    let source = Database::fresh(major);
    source.sql(
        "CREATE TABLE huge (id integer, value text);
         ALTER TABLE huge ALTER COLUMN value SET STORAGE EXTERNAL;
         INSERT INTO huge SELECT 1, repeat(string_agg(md5(n::text), ''), 300) FROM generate_series(1, 31250) n;
         INSERT INTO huge VALUES (2, 'small');",
    );
    source
}

fn backed_up_in_bounded_memory(source: &Database, store: &str, options: &[&str]) -> serde_json::Value {
    let mut command = pgstow();
    command
        .env("DATABASE_URL", source.url())
        .args(["backup", "--json", "--store", store])
        .args(options);
    serde_json::from_slice(&bounded(cloud(&mut command))).unwrap()
}

fn huge_in_a_folder(major: u32, compress: &str) -> (Database, Backup) {
    let source = huge(major);
    let store = tempfile::tempdir().unwrap();
    let path = store.path().to_str().unwrap().to_owned();
    let report = backed_up_in_bounded_memory(&source, &path, &["--compress", compress]);
    let backup = Backup::made(&report, store, major);
    let table = &backup.manifest["tables"][0];
    assert_eq!(table["rows"], 2);
    assert_eq!(table["bytes"], 300 * 31250 * 32 + "1\t\n2\tsmall\n".len());
    (source, backup)
}

#[test]
fn a_value_of_300_mb_passes_through_gzip_in_bounded_memory() {
    let (source, backup) = huge_in_a_folder(15, "gzip:1");
    let text = &copied(&source, "", &[("huge".into(), "huge".into())])["huge"];
    assert_eq!(backup.manifest["tables"][0]["sha256"], text.sha256.as_str());
}

#[test]
fn a_value_of_300_mb_survives_zstd_in_bounded_memory() {
    let (source, backup) = huge_in_a_folder(17, "zstd:1");
    let digest = "SELECT id, length(value), md5(value) FROM huge ORDER BY id";
    assert_eq!(backup.restored(&backup.file("dump")).sql(digest), source.sql(digest));
}

#[tokio::test]
async fn a_value_of_300_mb_goes_to_s3_in_bounded_memory() {
    let source = huge(17);
    let bucket = Bucket::fresh().await;
    let report = backed_up_in_bounded_memory(&source, &bucket.url("pg"), &["--compress", "none"]);
    let dump = &report["files"]["dump"];
    let key = format!(
        "pg/{}/{}",
        report["id"].as_str().unwrap(),
        dump["name"].as_str().unwrap()
    );
    let object = bucket.get(&key).await;
    assert!(object.len() > 300_000_000);
    assert_eq!(dump["sha256"], hex::encode(Sha256::digest(&object)));
    assert!(bucket.uploads().await.is_empty());
}

fn many_large_objects_survive(major: u32) {
    let source = Database::fresh(major);
    source.sql(
        "SELECT count(lo_from_bytea(0, convert_to(repeat(n::text, n % 5 * 100), 'UTF8'))) FROM generate_series(1, 3000) n;
         SELECT lo_create(n::oid) FROM unnest(ARRAY[1, 2147483647, 2147483648, 3000000000, 4294967295]) n;
         SELECT lo_put(3000000000, 0, 'of a number above 2^31');",
    );
    let backup = Backup::of(&source, &[]);
    assert_eq!(backup.report["large_objects"], 3005);
    let counts = backup.manifest["large_objects"].as_array().unwrap().iter();
    assert_eq!(counts.map(|block| block["count"].as_u64().unwrap()).sum::<u64>(), 3005);
    let whole = backup.restored(&backup.file("dump"));
    Contents::of(&source).assert_equals(&Contents::of(&whole));
    assert_eq!(
        whole.sql("SELECT convert_from(lo_get(3000000000), 'UTF8')"),
        "of a number above 2^31"
    );
    assert_restores_in_parallel(&backup, &source, major);
}

#[test]
fn many_large_objects_of_15_survive() {
    many_large_objects_survive(15);
}

#[test]
fn many_large_objects_of_16_survive() {
    many_large_objects_survive(16);
}

#[test]
fn many_large_objects_of_18_survive() {
    many_large_objects_survive(18);
}
