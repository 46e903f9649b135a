//! `BACKUP_INCREMENTAL=reference`: tables that have not changed are in the last full backup, and nowhere else; what comes
//! back is the source.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::bucket::Bucket;
use crate::support::contents::Contents;
use crate::support::database::Database;
use crate::support::program::{pgstow, run, stock, succeed};
use crate::support::services::cloud;
use crate::support::wreck::{Site, fail};

/// Some tables are longer than what is held in memory until it is known whether they changed.
const TABLES: &str = "
    CREATE TABLE kept AS SELECT n, md5(n::text) AS text FROM generate_series(1, 3000) n;
    ALTER TABLE kept ADD PRIMARY KEY (n);
    CREATE TABLE long_kept AS SELECT n, repeat(md5(n::text), 5) AS text FROM generate_series(1, 40000) n;
    CREATE TABLE long_updated AS SELECT n, repeat(md5(n::text), 5) AS text FROM generate_series(1, 40000) n;
    CREATE TABLE updated AS SELECT n, md5(n::text) AS text FROM generate_series(1, 3000) n;
    CREATE TABLE emptied AS SELECT n, md5(n::text) AS text FROM generate_series(1, 3000) n;
    CREATE TABLE sorted AS SELECT n, md5(n::text) AS text FROM generate_series(1, 3000) n;
    CREATE INDEX sorted_text ON sorted (text);
    CREATE TABLE widened AS SELECT n FROM generate_series(1, 3000) n;
    CREATE TABLE retyped AS SELECT n FROM generate_series(1, 3000) n;
    CREATE TABLE empty (n integer);
    CREATE TABLE parted (n integer, text text) PARTITION BY RANGE (n);
    CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (1000);
    CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (1000) TO (2000);
    INSERT INTO parted SELECT n, md5(n::text) FROM generate_series(1, 1999) n;
    SELECT lo_from_bytea(0, convert_to(repeat(n::text, 100), 'UTF8')) FROM generate_series(1, 50) n";

/// The row counts stay as they are. The new tables come before the others in the archive, so its entries get other
/// numbers.
const CHANGES: &str = "
    UPDATE long_updated SET text = reverse(text) WHERE n = 17;
    UPDATE updated SET text = reverse(text) WHERE n = 17;
    CREATE TEMPORARY TABLE rows AS SELECT * FROM emptied;
    TRUNCATE emptied;
    INSERT INTO emptied SELECT * FROM rows ORDER BY n DESC;
    CLUSTER sorted USING sorted_text;
    ALTER TABLE widened ADD COLUMN more integer;
    ALTER TABLE retyped ALTER COLUMN n TYPE bigint;
    UPDATE parted SET text = 'x' WHERE n = 1500;
    CREATE TABLE aaa_new AS SELECT n FROM generate_series(1, 10) n";

const REFERRED: [&str; 3] = ["kept", "long_kept", "parted_1"];

struct Backups {
    source: Database,
    site: Site,
}

impl Backups {
    fn of(major: u32) -> Self {
        let source = Database::fresh(major);
        source.sql(TABLES);
        Self {
            source,
            site: Site::new(),
        }
    }

    fn command(&self, options: &[&str]) -> Command {
        // Ids are made of seconds.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let mut command = self.site.backup(&self.source.url());
        command.args(options).env("BACKUP_INCREMENTAL", "reference");
        command
    }

    fn full(&self) -> Value {
        succeed(&mut self.command(&[])).json()
    }

    fn refer(&self, options: &[&str]) -> Value {
        succeed(self.command(options).args(["--kind", "incremental"])).json()
    }

    /// A full backup, then one that refers to it.
    fn pair(&self) -> (Value, Value) {
        let full = self.full();
        self.source.sql(CHANGES);
        (full, self.refer(&[]))
    }

    fn pgstow(&self, args: &[&str]) -> Command {
        let mut command = pgstow();
        command
            .args(args)
            .arg("--store")
            .arg(self.site.store())
            .env("TMPDIR", self.site.path().join("tmp"))
            .current_dir(self.site.path());
        command
    }

    fn manifest(&self, report: &Value) -> Value {
        let file = self.site.store().join(id(report)).join("manifest.json");
        serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
    }

    fn archive(&self, report: &Value) -> PathBuf {
        let name = report["files"]["dump"]["name"].as_str().unwrap();
        self.site.store().join(id(report)).join(name)
    }

    fn restored(&self, report: &Value, options: &[&str]) -> Database {
        let target = Database::fresh(self.source.major);
        let mut restore = self.pgstow(&["restore", id(report), "--json"]);
        let report = succeed(restore.args(options).env("BACKUP_TARGET_URL", target.url())).json();
        assert_eq!(report["status"], "restored", "{report}");
        target
    }
}

fn id(report: &Value) -> &str {
    report["id"].as_str().unwrap()
}

/// The tables that the manifest finds in another backup.
fn referred(manifest: &Value) -> BTreeSet<&str> {
    let tables = manifest["tables"].as_array().unwrap().iter();
    let there = tables.filter(|table| table["from"] == manifest["references"]["from"]);
    there.map(|table| table["name"].as_str().unwrap()).collect()
}

fn unchanged_tables_are_referred_to_and_everything_comes_back(major: u32) {
    let backups = Backups::of(major);
    let (full, report) = backups.pair();
    let manifest = backups.manifest(&report);
    assert_eq!(manifest["schema"], 3);
    assert_eq!(manifest["references"]["from"], full["id"]);
    assert_eq!(manifest["references"]["file"], backups.manifest(&full)["files"]["dump"]);
    assert_eq!(manifest["references"]["tables"], 3);
    assert_eq!(referred(&manifest), BTreeSet::from(REFERRED));
    // Each table has the place, the rows and the digest that it has there.
    for name in REFERRED {
        let of = |manifest: &Value| {
            let tables = manifest["tables"].as_array().unwrap().clone();
            let table = tables.into_iter().find(|table| table["name"] == name).unwrap();
            ["offset", "length", "rows", "bytes", "sha256"].map(|field| table[field].clone())
        };
        assert_eq!(of(&manifest), of(&backups.manifest(&full)), "{name}");
    }
    let bytes = |report: &Value| fs::metadata(backups.archive(report)).unwrap().len();
    let there = manifest["references"]["bytes"].as_u64().unwrap();
    assert!(bytes(&report) + there < bytes(&full) * 11 / 10, "{report}");
    assert_eq!(report["references"]["from"], full["id"]);

    let before = Contents::of(&backups.source);
    before.assert_equals(&Contents::of(&backups.restored(&report, &[])));
    before.assert_equals(&Contents::of(&backups.restored(&report, &["--jobs", "3"])));

    let verified = succeed(&mut backups.pgstow(&["verify", id(&report), "--json"])).json();
    assert_eq!(verified["status"], "ok", "{verified}");
    let drilled = succeed(&mut backups.pgstow(&["verify", id(&report), "--drill", "--json"])).json();
    assert_eq!(drilled["status"], "ok", "{drilled}");

    // The download is whole, and stock pg_restore reads it.
    let file = backups.site.path().join("whole.dump");
    let downloaded = succeed(
        backups
            .pgstow(&["download", id(&report), "--json"])
            .arg("-o")
            .arg(&file),
    )
    .json();
    assert_eq!(downloaded["bytes"], fs::metadata(&file).unwrap().len());
    for options in [&["-j3"][..], &[]] {
        let target = Database::fresh(major);
        succeed(
            stock(major, "pg_restore")
                .args(options)
                .args(["-d", &target.url()])
                .arg(&file),
        );
        before.assert_equals(&Contents::of(&target));
    }
    // As it is stored, stock pg_restore refuses it, and does not leave tables empty.
    let target = Database::fresh(major);
    let archive = backups.archive(&report);
    assert!(
        !run(stock(major, "pg_restore").args(["-d", &target.url()]).arg(archive))
            .status
            .success()
    );

    let list = succeed(&mut backups.pgstow(&["list"])).text();
    let told = format!(
        "had not changed are in {}, which it needs; no point-in-time restore",
        id(&full)
    );
    assert!(
        list.contains("by reference: 3 tables") && list.contains(&told),
        "{list}"
    );
}

#[test]
fn unchanged_tables_of_15_are_referred_to_and_everything_comes_back() {
    unchanged_tables_are_referred_to_and_everything_comes_back(15);
}

#[test]
fn unchanged_tables_of_18_are_referred_to_and_everything_comes_back() {
    unchanged_tables_are_referred_to_and_everything_comes_back(18);
}

#[test]
fn references_go_to_the_full_backup_and_never_to_another_that_refers() {
    let backups = Backups::of(18);
    let (full, first) = backups.pair();
    let second = backups.refer(&["--jobs", "3"]);
    assert_eq!(backups.manifest(&second)["references"]["from"], full["id"]);
    // What the first stored anew is stored again: it is not in the full.
    assert_eq!(
        referred(&backups.manifest(&second)),
        referred(&backups.manifest(&first))
    );
    let before = Contents::of(&backups.source);
    before.assert_equals(&Contents::of(&backups.restored(&second, &[])));
    // A table that is restored alone comes from where it is.
    let alone = backups.restored(&second, &["--table", "public.long_kept"]);
    assert_eq!(alone.sql("SELECT count(*) FROM long_kept"), "40000");
}

#[test]
fn without_a_full_backup_that_fits_all_tables_are_stored_and_the_report_says_why() {
    let backups = Backups::of(18);
    let first = backups.refer(&[]);
    assert!(first["references"].is_null(), "{first}");
    assert!(
        first["warnings"].to_string().contains("no full backup to refer to"),
        "{first}"
    );
    // It is a full one, to which the next refers, unless that is compressed in another way.
    let other = backups.refer(&["--compress", "gzip:1"]);
    assert!(other["references"].is_null(), "{other}");
    assert!(
        other["warnings"].to_string().contains("is compressed with zstd"),
        "{other}"
    );
    let same = backups.refer(&["--compress", "gzip:6"]);
    assert_eq!(same["references"]["from"], other["id"], "{same}");
    Contents::of(&backups.source).assert_equals(&Contents::of(&backups.restored(&same, &[])));

    // One that was found damaged is not referred to.
    flip(&backups.archive(&other), 5_000);
    fail(&mut backups.pgstow(&["verify", id(&other), "--json"]), "INTEGRITY", 40);
    let after = backups.refer(&["--compress", "gzip:6"]);
    assert!(after["references"].is_null(), "{after}");
    assert!(after["warnings"].to_string().contains(id(&other)), "{after}");
}

#[test]
fn a_copy_that_lacks_the_full_backup_gets_all_tables_and_later_refers_too() {
    let backups = Backups::of(18);
    let first = backups.full();
    let copy = backups.site.path().join("copy");
    let copied = |report: &Value| copy.join(id(report)).join("manifest.json").exists();
    let both = ["--store", copy.to_str().unwrap()];
    let second = backups.refer(&both);
    assert!(second["references"].is_null(), "{second}");
    let told = second["warnings"].to_string();
    assert!(told.contains("does not have") && told.contains(id(&first)), "{told}");
    let third = backups.refer(&both);
    assert_eq!(third["references"]["from"], second["id"], "{third}");
    assert!(copied(&second) && copied(&third));
    // The copy alone is enough.
    fs::remove_dir_all(backups.site.store()).unwrap();
    fs::rename(&copy, backups.site.store()).unwrap();
    Contents::of(&backups.source).assert_equals(&Contents::of(&backups.restored(&third, &[])));
}

#[test]
fn what_cannot_refer_is_a_conflict_of_settings() {
    let backups = Backups::of(18);
    let incremental = ["--kind", "incremental"];
    let plain = fail(backups.command(&incremental).args(["--format", "plain"]), "CONFIG", 2);
    assert!(plain.message.contains("BACKUP_FORMAT=plain"), "{}", plain.message);
    let follow = fail(backups.command(&incremental).arg("--follow"), "CONFIG", 2);
    assert!(follow.message.contains("--follow"), "{}", follow.message);
}

fn flip(file: &std::path::Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn damage_in_the_other_backup_is_found_and_named_with_it() {
    let backups = Backups::of(18);
    let (full, report) = backups.pair();
    let manifest = backups.manifest(&report);
    let tables = manifest["tables"].as_array().unwrap().iter();
    let table = tables.into_iter().find(|table| table["name"] == "long_kept").unwrap();
    let middle = table["offset"].as_u64().unwrap() + table["length"].as_u64().unwrap() / 2;
    flip(&backups.archive(&full), middle);

    let base = id(&full);
    let target = Database::fresh(18);
    let mut restore = backups.pgstow(&["restore", id(&report), "--json"]);
    let restore = fail(restore.env("BACKUP_TARGET_URL", target.url()), "INTEGRITY", 40);
    let verify = fail(&mut backups.pgstow(&["verify", id(&report), "--json"]), "INTEGRITY", 40);
    let download = fail(
        &mut backups.pgstow(&["download", id(&report), "--json"]),
        "INTEGRITY",
        40,
    );
    for failure in [restore, verify, download] {
        assert!(failure.message.contains(base), "{}", failure.message);
        assert!(failure.message.contains("long_kept"), "{}", failure.message);
    }
}

#[test]
fn another_backup_under_the_same_id_or_none_is_refused() {
    let backups = Backups::of(18);
    let (full, report) = backups.pair();
    let folder = backups.site.store().join(id(&full));
    let away = folder.with_file_name("away");
    let target = Database::fresh(18);
    let refused = |why: &str| {
        let mut restore = backups.pgstow(&["restore", id(&report), "--json"]);
        let failure = fail(restore.env("BACKUP_TARGET_URL", target.url()), "INTEGRITY", 40);
        assert!(failure.message.contains(id(&full)), "{}", failure.message);
        assert!(failure.message.contains(why), "{}", failure.message);
    };
    fs::rename(&folder, &away).unwrap();
    refused("is not in");
    let list = succeed(&mut backups.pgstow(&["list"])).text();
    assert!(list.contains(&format!("lacks a good {}", id(&full))), "{list}");

    fs::create_dir(&folder).unwrap();
    for file in fs::read_dir(&away).unwrap() {
        let file = file.unwrap().path();
        fs::copy(&file, folder.join(file.file_name().unwrap())).unwrap();
    }
    fs::remove_file(folder.join("manifest.json.sha256")).ok();
    let path = folder.join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    let sha256 = full["files"]["dump"]["sha256"].as_str().unwrap();
    fs::write(&path, text.replace(sha256, &"0".repeat(64))).unwrap();
    refused("another one");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_bucket_the_other_backup_keeps_the_tag_that_no_rule_expires() {
    let bucket = Bucket::fresh().await;
    let source = Database::fresh(18);
    source.sql(TABLES);
    let site = Site::new();
    let store = bucket.url("pg");
    let backup = |kind: &str| {
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let mut command = pgstow();
        command
            .args(["backup", "--json", "--kind", kind, "--store", &store])
            .env("DATABASE_URL", source.url())
            .env("BACKUP_INCREMENTAL", "reference")
            .current_dir(site.path());
        succeed(cloud(&mut command)).json()
    };
    let tag = async |report: &Value| {
        let tags = bucket.tags(&format!("pg/{}/manifest.json", id(report))).await;
        tags.get("pgstow-tier").cloned().unwrap_or_default()
    };
    let full = backup("full");
    source.sql(CHANGES);
    let first = backup("incremental");
    let second = backup("incremental");
    assert_eq!(second["references"]["from"], full["id"]);
    let tags = [tag(&full).await, tag(&first).await, tag(&second).await];
    assert_ne!(tags[1], "latest", "{tags:?}");
    assert_eq!([&*tags[0], &*tags[2]], ["latest", "latest"], "{tags:?}");
    // A newer full backup does not change that.
    let newer = backup("full");
    assert_eq!([tag(&full).await, tag(&newer).await], ["latest", "latest"]);

    let target = Database::fresh(18);
    let mut restore = pgstow();
    restore
        .args(["restore", id(&second), "--json", "--store", &store])
        .env("BACKUP_TARGET_URL", target.url())
        .current_dir(site.path());
    succeed(cloud(&mut restore));
    Contents::of(&source).assert_equals(&Contents::of(&target));

    // When the last that refers to it is gone, the next run lets it expire.
    for report in [&first, &second] {
        for key in bucket.keys().await {
            if key.contains(id(report)) {
                bucket
                    .client
                    .delete_object()
                    .bucket(&bucket.name)
                    .key(key)
                    .send()
                    .await
                    .unwrap();
            }
        }
    }
    backup("full");
    assert_ne!(tag(&full).await, "latest");
}
