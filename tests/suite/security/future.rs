//! Backups that are dated in the future, made by a wrong clock or made up: they are the newest of
//! nothing, whatever is asked.

use std::fs;
use std::path::Path;
use std::process::Command;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::database::Database;
use crate::support::planted::{Folder, files};
use crate::support::program::{pgstow, run, succeed};
use crate::support::wreck::Site;

const AHEAD: &str = "20990101T000000Z-full";

fn problems(report: &Value) -> String {
    report["problems"].to_string()
}

#[test]
fn list_and_status_say_so_and_no_age_is_negative() {
    let folder = Folder::new();
    let real = folder.plant("shop", 3, "daily");
    let ahead = folder.plant("shop", -48, "daily");
    // Within what clocks may differ, nothing is wrong.
    let (list, code) = folder.json(&["list"]);
    assert_eq!(code, 0);
    let ages: Vec<i64> = list["backups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["age_seconds"].as_i64().unwrap())
        .collect();
    assert!(ages.iter().all(|age| *age >= 0), "{ages:?}");
    assert!(
        problems(&list).contains("dated in the future") && problems(&list).contains(&ahead),
        "{list}"
    );
    let (status, code) = folder.json(&["status"]);
    assert_eq!(code, 1);
    assert!(problems(&status).contains(&ahead), "{status}");
    assert_eq!(status["databases"][0]["last_good"]["id"], real.as_str());
    assert!(status["databases"][0]["last_good"]["age_seconds"].as_i64().unwrap() >= 3 * 3_600);
}

#[test]
fn a_future_backup_alone_is_no_good_backup() {
    let folder = Folder::new();
    folder.plant("shop", -48, "daily");
    let (status, code) = folder.json(&["status"]);
    assert_eq!(code, 1);
    assert!(status["databases"][0]["last_good"].is_null(), "{status}");
    let latest = folder.run(&["download", "latest", "--database", "shop"]);
    assert_eq!(latest.status.code(), Some(42), "{}", latest.stderr);
    assert!(latest.stderr.contains("dated in the future"), "{}", latest.stderr);
}

#[test]
fn times_in_a_manifest_or_a_verification_are_held_against_the_clock_too() {
    let folder = Folder::new();
    let real = folder.plant("shop", 30, "daily");
    let path = folder.path().join(&real).join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["timestamp"] = json!("2099-01-01T00:00:00Z");
    fs::write(&path, manifest.to_string()).unwrap();
    let (status, _) = folder.json(&["status"]);
    assert!(status["databases"][0]["last_good"].is_null(), "{status}");
    assert!(problems(&status).contains("dated in the future"), "{status}");

    let other = folder.plant("other", 1, "daily");
    let result = json!({"schema": 1, "id": other, "verify": {"status": "ok", "at": "2099-01-01T00:00:00Z"}});
    folder.write(&format!("{other}/verification.json"), result.to_string());
    let (status, _) = folder.json(&["status", "--database", "other"]);
    assert!(status["databases"][0]["last_verified"].is_null(), "{status}");
    assert!(problems(&status).contains("has a date in the future"), "{status}");
}

#[test]
fn prune_keeps_the_newest_real_one_however_many_are_ahead_of_it() {
    let folder = Folder::new();
    let real = folder.plant("shop", 24 * 90, "daily");
    let older = folder.plant("shop", 24 * 100, "daily");
    for hours in [24, 48, 72] {
        folder.plant("shop", -hours, "daily");
    }
    let (report, code) = folder.json(&["prune", "--retention", "30d", "--keep-last", "1"]);
    assert_eq!(code, 0, "{report}");
    assert!(folder.exists(&format!("{real}/manifest.json")), "{report}");
    assert!(!folder.exists(&format!("{older}/manifest.json")), "{report}");
    assert!(report.to_string().contains("in the future"), "{report}");
}

fn at(site: &Site) -> Command {
    let mut command = pgstow();
    command.env("TMPDIR", site.path().join("tmp")).current_dir(site.path());
    command
}

/// A whole backup under a forged id.
fn forge(store: &Path, database: &str, event: Option<&str>) -> String {
    let id = format!("{database}/{AHEAD}");
    for (key, body) in files(&id, "yearly") {
        let path = store.join(&key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let body = match event {
            Some(event) if key.ends_with("manifest.json") => {
                let mut manifest: Value = serde_json::from_slice(&body).unwrap();
                manifest["event_id"] = json!(event);
                manifest.to_string().into_bytes()
            }
            _ => body,
        };
        fs::write(path, body).unwrap();
    }
    id
}

#[test]
fn the_next_backup_goes_by_the_clock_and_latest_is_the_newest_real_one() {
    let source = Database::fresh(17);
    source.sql("CREATE TABLE t AS SELECT generate_series(1, 10) AS n");
    let site = Site::new();
    let forged = forge(&site.store(), &source.name, None);
    let metrics = site.path().join("pgstow.prom");
    let before = Timestamp::now().as_second();
    let mut command = site.backup(&source.url());
    let report = succeed(command.arg("--metrics-file").arg(&metrics)).json();
    let id = report["id"].as_str().unwrap().to_owned();
    assert!(id.as_str() < forged.as_str() && !id.contains("/2099"), "{id}");
    let said = fs::read_to_string(&metrics).unwrap();
    let last = said
        .lines()
        .find(|line| line.starts_with("pgstow_backup_last_success_timestamp_seconds"))
        .unwrap();
    let last: f64 = last.rsplit_once(' ').unwrap().1.parse().unwrap();
    assert!(
        last as i64 >= before - 1 && last as i64 <= Timestamp::now().as_second(),
        "{last}"
    );

    // A failure tells the age of the last good one: the real one's.
    let mut failing = site.backup("postgresql://nobody@127.0.0.1:1/none");
    let _ = run(failing.arg("--metrics-file").arg(&metrics));

    let store = site.store();
    let verify = run(at(&site).args(["verify", "latest", "--json", "--store"]).arg(&store));
    assert!(verify.status.success(), "{}", verify.stderr);
    assert!(verify.text().contains(&id), "{}", verify.text());
    let download = run(at(&site)
        .args(["download", "latest", "--json", "-o", "it.dump", "--store"])
        .arg(&store));
    assert!(download.status.success(), "{}", download.stderr);
    assert_eq!(download.json()["id"], id.as_str());
    assert!(download.text().contains("dated in the future"), "{}", download.text());
    let target = Database::fresh(17);
    let restore = run(at(&site)
        .args(["restore", "latest", "--json", "--target", &target.url(), "--store"])
        .arg(&store));
    assert!(restore.status.success(), "{}", restore.stderr);
    assert_eq!(target.sql("SELECT count(*) FROM t").trim(), "10");
}
