//! Backups that versions before this one made: tests/fixtures/backups holds an archive that is signed and a script, both
//! with manifests of schema 1, of the database that tests/fixtures/backups/shop.sql makes.
//! They were made with a clock that said 2025, so that they are old on every machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::contents::Contents;
use crate::support::database::Database;
use crate::support::program::{pgstow, program, run, succeed};
use crate::support::wreck::{Site, fail, reseal};

const ARCHIVE: &str = "shop/20250131T040459Z-full";
const SCRIPT: &str = "shop/20250131T040502Z-full";
/// The server that they were made of.
const MAJOR: u32 = 17;

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/backups")
}

/// A store with both.
fn store() -> Site {
    let site = Site::new();
    fs::create_dir(site.store()).unwrap();
    succeed(program("cp").arg("-r").arg(kept().join("shop")).arg(site.store()));
    site
}

fn over(site: &Site, args: &[&str]) -> Command {
    let mut command = pgstow();
    command
        .args(args)
        .args(["--json", "--store"])
        .arg(site.store())
        .env("TMPDIR", site.path().join("tmp"))
        .current_dir(site.path());
    command
}

/// The line that follows the comment.
fn public_key() -> String {
    let file = fs::read_to_string(kept().join("signed.pub")).unwrap();
    file.lines().nth(1).unwrap().to_owned()
}

fn manifest(site: &Site, id: &str) -> PathBuf {
    site.store().join(id).join("manifest.json")
}

#[test]
fn backups_of_schema_1_are_listed_and_one_of_them_is_the_latest() {
    let site = store();
    let list = succeed(&mut over(&site, &["list"])).json();
    let told: Vec<_> = list["backups"].as_array().unwrap().iter().collect();
    assert_eq!(told.len(), 2, "{list:#}");
    for (backup, id, format) in [(told[0], SCRIPT, "plain"), (told[1], ARCHIVE, "custom")] {
        assert_eq!(
            (&backup["id"], &backup["format"]),
            (&id.into(), &format.into()),
            "{list:#}"
        );
        assert_eq!(
            (&backup["tables"], &backup["rows"]),
            (&4.into(), &343.into()),
            "{list:#}"
        );
        assert_eq!(backup["complete"], true, "{list:#}");
    }
    assert_eq!(list["problems"], Value::Array(Vec::new()), "{list:#}");
    let status = succeed(&mut over(&site, &["status"])).text();
    assert!(status.contains(SCRIPT), "{status}");
    let planned = succeed(&mut over(&site, &["prune", "--dry-run"])).text();
    assert!(planned.contains(SCRIPT), "{planned}");
    let downloaded = succeed(&mut over(&site, &["download", ARCHIVE, "-o", "shop.dump"])).json();
    assert_eq!(downloaded["offsets"], true, "{downloaded:#}");
}

#[test]
fn backups_of_schema_1_are_verified_and_drilled() {
    let site = store();
    for id in [ARCHIVE, SCRIPT] {
        let report = succeed(&mut over(&site, &["verify", id, "--drill"])).json();
        assert_eq!(report["status"], "ok", "{report:#}");
        assert_eq!(
            (&report["tables"], &report["rows"]),
            (&4.into(), &343.into()),
            "{report:#}"
        );
        let drill = &report["drill"];
        assert_eq!(
            (&drill["status"], &drill["large_objects"]),
            (&"ok".into(), &1.into()),
            "{report:#}"
        );
        let tables = drill["tables"].as_array().unwrap();
        assert_eq!(tables.len(), 4, "{report:#}");
        assert!(tables.iter().all(|table| table["result"] == "equal"), "{report:#}");
    }
}

#[test]
fn backups_of_schema_1_are_restored() {
    let site = store();
    let source = Database::fresh(MAJOR);
    source.load(&kept().join("shop.sql"));
    let wanted = Contents::of(&source);
    for (id, options) in [(ARCHIVE, &["--jobs", "2"][..]), (SCRIPT, &[])] {
        let target = Database::fresh(MAJOR);
        let mut restore = over(&site, &["restore", id]);
        let report = succeed(restore.args(options).env("BACKUP_TARGET_URL", target.url())).json();
        assert_eq!(report["status"], "restored", "{report:#}");
        wanted.assert_equals(&Contents::of(&target));
    }
    // One table, by its own bytes.
    let target = Database::fresh(MAJOR);
    let mut restore = over(&site, &["restore", ARCHIVE, "--table", "public.customers"]);
    succeed(restore.env("BACKUP_TARGET_URL", target.url()));
    assert_eq!(target.sql("SELECT count(*) FROM customers").trim(), "40");
}

#[test]
fn the_signature_on_a_manifest_of_schema_1_is_over_its_bytes() {
    let site = store();
    let key = public_key();
    let verified = succeed(over(&site, &["verify", ARCHIVE]).env("BACKUP_VERIFY_KEYS", &key)).json();
    assert_eq!(verified["signed_by"], "FDF5406DC0615852", "{verified:#}");
    fail(
        over(&site, &["verify", SCRIPT]).env("BACKUP_VERIFY_KEYS", &key),
        "SIGNATURE",
        47,
    );
    // The same manifest in other bytes is not what was signed.
    let path = manifest(&site, ARCHIVE);
    let json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    fs::write(&path, json.to_string()).unwrap();
    reseal(&site.store().join(ARCHIVE));
    fail(
        over(&site, &["verify", ARCHIVE]).env("BACKUP_VERIFY_KEYS", &key),
        "SIGNATURE",
        47,
    );
    assert!(run(&mut over(&site, &["verify", ARCHIVE])).status.success());
}

#[test]
fn a_new_backup_follows_those_of_schema_1() {
    let site = store();
    // After an upgrade: the demos have a database of this name on the servers of 15 and 17.
    let source = Database::fresh_named(18, "shop");
    source.load(&kept().join("shop.sql"));
    let report = succeed(site.backup(&source.url()).arg("--adopt")).json();
    let id = report["id"].as_str().unwrap();
    let made: Value = serde_json::from_slice(&fs::read(manifest(&site, id)).unwrap()).unwrap();
    assert_eq!(
        (&made["schema"], &made["predecessor"]["id"]),
        (&2.into(), &SCRIPT.into()),
        "{made:#}"
    );
    let verified = run(&mut over(&site, &["verify", "--all"]));
    assert_eq!(verified.status.code(), Some(0), "{}", verified.stderr);
}
