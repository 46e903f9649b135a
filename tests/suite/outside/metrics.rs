//! The numbers of a run, as programs see them that watch: the file for Prometheus, and the lines
//! for CloudWatch.
mod exposition;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::support::database::Database;
use crate::support::program::{Run, pgstow, run, succeed};
use crate::support::role::Role;
use crate::support::services::cloud;
use crate::support::wreck::Site;
use jiff::Timestamp;
use serde_json::{Value, json};

const HOSTILE: &str = "a\"b\\c\nd é ";

struct Watched {
    site: Site,
}

impl Watched {
    fn new() -> Self {
        Self { site: Site::new() }
    }

    fn file(&self) -> PathBuf {
        self.site.path().join("pgstow.prom")
    }

    fn backup(&self, url: &str) -> Command {
        let mut command = self.site.backup(url);
        command.arg("--metrics-file").arg(self.file());
        command
    }

    fn verify(&self, args: &[&str]) -> Command {
        let mut command = pgstow();
        command
            .arg("verify")
            .args(args)
            .args(["--json", "--store"])
            .arg(self.site.store())
            .arg("--metrics-file")
            .arg(self.file())
            .env("TMPDIR", self.site.path().join("tmp"))
            .current_dir(self.site.path());
        command
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    /// What the file says of a database (`""`: of none), by the names without `pgstow_`.
    fn samples(&self, database: &str) -> BTreeMap<String, f64> {
        let all = exposition::read(&self.text());
        let of = |labels: &BTreeMap<String, String>| labels.get("database").map_or("", String::as_str) == database;
        all.into_iter()
            .filter(|((_, labels), _)| of(labels))
            .map(|((name, labels), value)| {
                assert_eq!(labels["service"], "pgstow");
                (name.strip_prefix("pgstow_").unwrap().to_owned(), value)
            })
            .collect()
    }

    /// Backups of these stored sizes, made to look as if they were older than the one that is there.
    fn plant_before(&self, report: &Value, sizes: &[u64]) {
        let id = report["id"].as_str().unwrap();
        let (database, _) = id.split_once('/').unwrap();
        let folder = self.site.store().join(id);
        for (at, bytes) in sizes.iter().enumerate() {
            let older = format!("{database}/202001{:02}T040500Z-full", at + 1);
            let target = self.site.store().join(&older);
            fs::create_dir(&target).unwrap();
            let mut manifest: Value = serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
            let name = manifest["files"]["dump"]["name"].as_str().unwrap().to_owned();
            manifest["id"] = json!(older);
            manifest["files"] = json!({"dump": {"name": name, "bytes": bytes, "sha256": "11".repeat(32)}});
            fs::write(target.join("manifest.json"), manifest.to_string()).unwrap();
            fs::File::create(target.join(name)).unwrap().set_len(*bytes).unwrap();
        }
    }
}

fn shop() -> Database {
    let database = Database::fresh(15);
    database.sql("CREATE TABLE orders AS SELECT n, md5(n::text) AS note FROM generate_series(1, 1000) n");
    database
}

fn now() -> f64 {
    Timestamp::now().as_second() as f64
}

/// The lines on stderr that are JSON and nothing else.
fn emf(run: &Run) -> Vec<Value> {
    let lines = run.stderr.lines().filter_map(|line| serde_json::from_str(line).ok());
    lines.filter(|line: &Value| line.get("_aws").is_some()).collect()
}

#[test]
fn a_good_backup_is_in_the_file_and_a_failure_after_it_takes_nothing_of_that_back() {
    let (watched, database) = (Watched::new(), shop());
    let before = now();
    let report = succeed(&mut watched.backup(&database.url())).json();
    assert_eq!(report["warnings"], Value::Null, "{report:#}");
    let good = watched.samples(&database.name);
    assert_eq!(good["backup_last_run_success"], 1.0);
    assert_eq!(good["backup_last_run_exit_code"], 0.0);
    assert_eq!(good["backup_rows"], 1000.0);
    assert_eq!(good["backup_bytes"], report["bytes_stored"].as_f64().unwrap());
    assert_eq!(
        good["backup_duration_seconds"],
        report["duration_seconds"].as_f64().unwrap()
    );
    assert!(good["backup_read_bytes_per_second"] > 0.0);
    let began: Timestamp = report["started_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(good["backup_last_success_timestamp_seconds"], began.as_second() as f64);
    assert!((before..=now()).contains(&good["backup_last_run_timestamp_seconds"]));
    // Three good backups are wanted before one is compared with them.
    assert!(!good.contains_key("backup_size_deviation_ratio"));
    let mode = fs::metadata(watched.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);

    // A role that may not read everything; and a store that is not there.
    let poor = Role::fresh(&database, "pw", "");
    let away = watched.site.path().join("no/such/folder");
    let url = database.url_as(Some((&poor.name, "pw")));
    let mut lost = watched.site.backup_into(&database.url(), &away);
    lost.arg("--metrics-file").arg(watched.file());
    for (mut command, exit) in [(watched.backup(&url), 13), (lost, 33)] {
        let failed = run(&mut command);
        assert_eq!(failed.status.code(), Some(exit), "{}", failed.stderr);
        let after = watched.samples(&database.name);
        assert_eq!(after["backup_last_run_success"], 0.0);
        assert_eq!(after["backup_last_run_exit_code"], f64::from(exit));
        for kept in [
            "backup_last_success_timestamp_seconds",
            "backup_rows",
            "backup_bytes",
            "backup_duration_seconds",
        ] {
            assert_eq!(after[kept], good[kept], "{kept}");
        }
    }
    watched.site.assert_nothing_runs();
}

#[test]
fn after_a_failure_the_store_says_when_the_last_good_backup_was_made() {
    let (watched, database) = (Watched::new(), shop());
    // The first run had no file to write.
    let made = succeed(&mut watched.site.backup(&database.url())).json();
    let poor = Role::fresh(&database, "pw", "");
    let url = database.url_as(Some((&poor.name, "pw")));
    let mut failing = watched.backup(&url);
    let failed = run(failing.env("BACKUP_METRICS", "emf"));
    assert_eq!(failed.status.code(), Some(13), "{}", failed.stderr);
    let began: Timestamp = made["started_at"].as_str().unwrap().parse().unwrap();
    let samples = watched.samples(&database.name);
    assert_eq!(
        samples["backup_last_success_timestamp_seconds"],
        began.as_second() as f64
    );
    let lines = emf(&failed);
    let age = lines[0]["LastGoodBackupAge"].as_f64().unwrap();
    assert!((0.0..600.0).contains(&age), "{age}");

    // A store that answers and has none says that too.
    fs::remove_dir_all(watched.site.store().join(&database.name)).unwrap();
    run(&mut watched.backup(&url));
    let samples = watched.samples(&database.name);
    assert_eq!(samples["backup_last_success_timestamp_seconds"], 0.0);
}

#[test]
fn databases_share_a_file_and_a_hostile_name_is_one_label() {
    let (watched, first, second) = (Watched::new(), shop(), Database::named(15, HOSTILE));
    succeed(&mut watched.backup(&first.url()));
    let of_first = watched.samples(&first.name);
    succeed(&mut watched.backup(&second.url()));
    assert_eq!(watched.samples(&first.name), of_first);
    let of_second = watched.samples(&second.name);
    assert_eq!(
        (of_second["backup_last_run_success"], of_second["backup_rows"]),
        (1.0, 0.0)
    );

    // Runs that end at the same time.
    fs::remove_file(watched.file()).unwrap();
    let (mut one, mut other) = (watched.backup(&first.url()), watched.backup(&second.url()));
    let running = [one.spawn().unwrap(), other.spawn().unwrap()];
    for mut child in running {
        assert!(child.wait().unwrap().success());
    }
    for database in [&first, &second] {
        assert_eq!(watched.samples(&database.name)["backup_last_run_success"], 1.0);
    }
}

#[test]
fn a_backup_is_measured_against_the_median_of_those_before_it() {
    let (watched, database) = (Watched::new(), shop());
    let first = succeed(&mut watched.backup(&database.url())).json();
    let bytes = first["bytes_stored"].as_u64().unwrap();
    // With the first, five sizes whose median is four times as large.
    watched.plant_before(&first, &[bytes * 4, bytes * 4, bytes * 400, bytes * 4]);
    let mut command = watched.backup(&database.url());
    let second = succeed(command.env("BACKUP_METRICS", "emf"));
    let factor = bytes as f64 * 4.0 / second.json()["bytes_stored"].as_f64().unwrap();
    assert!(factor > 3.9, "{factor}");
    // JSON's reader may be off by the last bit.
    let told = emf(&second)[0]["BackupSizeDeviation"].as_f64().unwrap();
    assert!((told - factor).abs() < 1e-9, "{told} {factor}");
    assert_eq!(watched.samples(&database.name)["backup_size_deviation_ratio"], factor);
}

#[test]
fn a_file_that_cannot_be_written_is_a_warning_of_a_good_backup() {
    let (watched, database) = (Watched::new(), shop());
    let foreign = watched.site.path().join("node.prom");
    fs::write(&foreign, "node_load1 0.5\n").unwrap();
    for (file, why) in [
        (watched.site.path().join("nowhere/pgstow.prom"), "No such file"),
        (foreign.clone(), "line 1"),
    ] {
        let mut command = watched.site.backup(&database.url());
        let run = succeed(command.arg("--metrics-file").arg(&file));
        let report = run.json();
        let warning = report["warnings"][0].as_str().unwrap();
        assert!(warning.contains("metrics") && warning.contains(why), "{warning}");
        assert!(run.stderr.contains(warning), "{}", run.stderr);
    }
    assert_eq!(fs::read_to_string(&foreign).unwrap(), "node_load1 0.5\n");
    // Nor does it change how a failure ends.
    let mut command = watched.site.backup("postgres://ada@127.0.0.1:1/shop");
    let failed = run(command.args(["--metrics-file", "/proc/pgstow.prom"]));
    assert_eq!(failed.status.code(), Some(10), "{}", failed.stderr);
}

#[test]
fn a_run_that_fails_before_its_database_is_known_has_no_database_until_one_knows_it() {
    let (watched, database) = (Watched::new(), shop());
    let mut command = pgstow();
    cloud(&mut command)
        .args(["backup", "--secret-id", "nowhere", "--store", ".", "--metrics-file"])
        .arg(watched.file())
        .env("BACKUP_METRICS", "emf")
        .current_dir(watched.site.path());
    let failed = run(&mut command);
    assert_eq!(failed.status.code(), Some(12), "{}", failed.stderr);
    assert_eq!(watched.samples("")["backup_last_run_success"], 0.0);
    let lines = emf(&failed);
    assert_eq!(lines.len(), 1, "{}", failed.stderr);
    assert_eq!(
        (&lines[0]["BackupFailed"], &lines[0]["Code"]),
        (&json!(1), &json!("SECRET"))
    );
    assert_eq!(
        lines[0]["_aws"]["CloudWatchMetrics"][0]["Dimensions"],
        json!([["Service"]])
    );

    succeed(&mut watched.backup(&database.url()));
    assert!(watched.samples("").is_empty());
}

#[test]
fn lines_come_on_stderr_where_they_are_asked_for_and_hold_no_secret() {
    let (watched, database) = (Watched::new(), shop());
    let role = Role::reader(&database, "hunter2");
    let url = database.url_as(Some((&role.name, "hunter2")));
    let silent = succeed(&mut watched.site.backup(&url));
    assert_eq!(silent.stderr, "");
    let told = succeed(
        watched
            .backup(&url)
            .env("BACKUP_METRICS", "emf")
            .env("BACKUP_METRICS_NAMESPACE", "Backups/pg")
            .env("BACKUP_METRICS_SERVICE", "nightly"),
    );
    let lines = emf(&told);
    assert_eq!((lines.len(), told.stderr.lines().count()), (1, 1), "{}", told.stderr);
    let line = &lines[0];
    let directive = &line["_aws"]["CloudWatchMetrics"][0];
    assert_eq!(directive["Namespace"], "Backups/pg");
    assert_eq!(directive["Dimensions"], json!([["Service"], ["Service", "Database"]]));
    assert_eq!(
        (&line["Service"], &line["Database"]),
        (&json!("nightly"), &json!(database.name))
    );
    for metric in directive["Metrics"].as_array().unwrap() {
        let name = metric["Name"].as_str().unwrap();
        assert!(line[name].is_number() && metric["Unit"].is_string(), "{line:#}");
    }
    assert_eq!(
        (&line["BackupSucceeded"], &line["BackupRows"]),
        (&json!(1), &json!(1000))
    );
    assert_eq!(line["Backup"], told.json()["id"]);
    for text in [told.stderr, watched.text()] {
        assert!(!text.contains("hunter2") && !text.contains(&role.name), "{text}");
    }
}

#[test]
fn a_verification_and_a_drill_have_numbers_of_their_own() {
    let (watched, database) = (Watched::new(), shop());
    let report = succeed(&mut watched.backup(&database.url())).json();
    let drilled = succeed(watched.verify(&["latest", "--drill"]).env("BACKUP_METRICS", "emf"));
    let line = &emf(&drilled)[0];
    for (name, value) in [
        ("VerifySucceeded", 1),
        ("VerifyFailed", 0),
        ("DrillSucceeded", 1),
        ("DrillFailed", 0),
        ("NotificationsFailed", 0),
    ] {
        assert_eq!(line[name], value, "{line:#}");
    }
    assert!(line["VerifyDuration"].as_f64().unwrap() > 0.0);
    let samples = watched.samples(&database.name);
    assert_eq!(
        (samples["verify_last_run_success"], samples["drill_last_run_success"]),
        (1.0, 1.0)
    );
    // What the backup has said stays.
    assert_eq!(samples["backup_rows"], 1000.0);

    let name = report["files"]["dump"]["name"].as_str().unwrap();
    let dump = watched.site.store().join(report["id"].as_str().unwrap()).join(name);
    let mut bytes = fs::read(&dump).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&dump, bytes).unwrap();
    let damaged = run(watched.verify(&["latest"]).env("BACKUP_METRICS", "emf"));
    assert_eq!(damaged.status.code(), Some(40), "{}", damaged.stderr);
    let line = &emf(&damaged)[0];
    assert_eq!(
        (&line["VerifySucceeded"], &line["VerifyFailed"], &line["Code"]),
        (&json!(0), &json!(1), &json!("INTEGRITY"))
    );
    let samples = watched.samples(&database.name);
    assert_eq!(
        (samples["verify_last_run_success"], samples["drill_last_run_success"]),
        (0.0, 1.0)
    );
    assert!(samples["verify_last_success_timestamp_seconds"] > 0.0);
}
