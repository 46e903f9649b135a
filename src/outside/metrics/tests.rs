mod increments;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::*;
use crate::outside::metrics::prometheus::Samples;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn made() -> Made {
    Made {
        id: "shop/20250131T040500Z-full".into(),
        seconds: 48.5,
        bytes: 1_500_000_000,
        tables: 120,
        rows: 8_401_233,
        rate: 61_000_000.0,
        deviation: Some(1.25),
        degraded: false,
    }
}

fn backup(database: &str, end: End, last_good: LastGood) -> Observation {
    Observation {
        at: at("2025-01-31T04:05:49.25Z"),
        database: (!database.is_empty()).then(|| database.to_owned()),
        notifications_failed: 0,
        run: Run::Backup(Backup { end, last_good }),
    }
}

fn success(database: &str) -> Observation {
    let began = LastGood::Began(at("2025-01-31T04:05:00Z"));
    backup(database, End::Made(made()), began)
}

fn failure(database: &str, last_good: LastGood) -> Observation {
    let end = End::Failed {
        code: Code::Permission,
        seconds: 2.5,
    };
    backup(database, end, last_good)
}

fn verification(drill: Option<(u64, u64)>, passed: u64, failed: u64) -> Observation {
    Observation {
        run: Run::Verification(VerificationMetrics {
            verify: CheckTally { passed, failed },
            drill: drill.map(|(passed, failed)| CheckTally { passed, failed }),
            chain: None,
            seconds: 9.0,
            code: None,
        }),
        ..success("shop")
    }
}

fn emf(observation: &Observation) -> Value {
    let line = emf::line(observation, "pgstow", "nightly");
    assert_eq!(line.find('\n'), Some(line.len() - 1), "{line}");
    serde_json::from_str(&line).unwrap()
}

/// The metrics of a line, as its directive defines them, with their values; each has one.
fn values(line: &Value) -> BTreeMap<String, (String, f64)> {
    let metrics = line["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let value = |metric: &Value| {
        let name = text(&metric["Name"]);
        let value = line[&name].as_f64().unwrap();
        (name, (text(&metric["Unit"]), value))
    };
    metrics.iter().map(value).collect()
}

#[test]
fn a_good_backup_is_one_line_that_cloudwatch_makes_metrics_of() {
    let count = |name: &str| json!({"Name": name, "Unit": "Count"});
    let seconds = |name: &str| json!({"Name": name, "Unit": "Seconds"});
    let expected = json!({
        "_aws": {
            "Timestamp": 1_738_296_349_250_u64,
            "CloudWatchMetrics": [{
                "Namespace": "pgstow",
                "Dimensions": [["Service"], ["Service", "Database"]],
                "Metrics": [
                    count("BackupSucceeded"), count("BackupDegraded"), count("BackupFailed"), seconds("BackupDuration"),
                    {"Name": "BackupBytes", "Unit": "Bytes"}, count("BackupRows"),
                    {"Name": "BackupRate", "Unit": "Bytes/Second"},
                    {"Name": "BackupSizeDeviation", "Unit": "None"},
                    seconds("LastGoodBackupAge"), count("NotificationsFailed"),
                ],
            }],
        },
        "Service": "nightly",
        "Database": "shop",
        "Command": "backup",
        "Backup": "shop/20250131T040500Z-full",
        "BackupSucceeded": 1,
        "BackupDegraded": 0,
        "BackupFailed": 0,
        "BackupDuration": 48.5,
        "BackupBytes": 1_500_000_000_u64,
        "BackupRows": 8_401_233,
        "BackupRate": 61_000_000.0,
        "BackupSizeDeviation": 1.25,
        "LastGoodBackupAge": 49.25,
        "NotificationsFailed": 0,
    });
    assert_eq!(emf(&success("shop")), expected);
}

#[test]
fn a_failure_counts_and_tells_no_sizes_that_would_spoil_a_statistic() {
    let mut observation = failure("shop", LastGood::Began(at("2025-01-30T04:05:49.25Z")));
    observation.notifications_failed = 1;
    let line = emf(&observation);
    let names: Vec<String> = values(&line).into_keys().collect();
    let expected = [
        "BackupDegraded",
        "BackupDuration",
        "BackupFailed",
        "BackupSucceeded",
        "LastGoodBackupAge",
        "NotificationsFailed",
    ];
    assert_eq!(names, expected);
    assert_eq!(
        (&line["BackupSucceeded"], &line["BackupFailed"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(
        (&line["BackupDuration"], &line["Code"]),
        (&json!(2.5), &json!("PERMISSION"))
    );
    assert_eq!(
        (&line["LastGoodBackupAge"], &line["NotificationsFailed"]),
        (&json!(86_400.0), &json!(1))
    );
    for unknown in [LastGood::Unknown, LastGood::Never] {
        assert!(!values(&emf(&failure("shop", unknown))).contains_key("LastGoodBackupAge"));
    }
}

#[test]
fn a_backup_without_its_copy_succeeded_and_is_degraded() {
    let began = LastGood::Began(at("2025-01-31T04:05:00Z"));
    let alone = Made {
        degraded: true,
        ..made()
    };
    let observation = backup("shop", End::Made(alone), began);
    let line = emf(&observation);
    assert_eq!(
        (&line["BackupSucceeded"], &line["BackupDegraded"], &line["BackupFailed"]),
        (&json!(1), &json!(1), &json!(0))
    );
    let mut samples = Samples::default();
    samples.observe("a", &observation);
    let said = lines(&samples);
    for (name, value) in [("success", 1), ("degraded", 1), ("exit_code", 3)] {
        let expected = format!("backup_last_run_{name}{{service=\"a\",database=\"shop\"}} {value}");
        assert!(said.contains(&expected), "{said:#?}");
    }
}

#[test]
fn without_a_databases_name_there_is_no_dimension_for_it() {
    let line = emf(&failure("", LastGood::Unknown));
    assert_eq!(line["_aws"]["CloudWatchMetrics"][0]["Dimensions"], json!([["Service"]]));
    assert_eq!(line.get("Database"), None);
}

#[test]
fn a_dimension_is_ascii_and_tells_two_databases_apart() {
    let name = |database: &str| emf(&success(database))["Database"].as_str().unwrap().to_owned();
    assert_eq!(name("shop_2-b.c"), "shop_2-b.c");
    assert_eq!(name("bücher"), "b%C3%BCcher");
    assert_eq!(name("b%C3%BCcher"), "b%25C3%25BCcher");
    assert_eq!(name(": \n"), "%3A%20%0A");
}

#[test]
fn an_event_that_comes_again_counts_as_nothing() {
    let began = LastGood::Began(at("2025-01-30T04:05:49.25Z"));
    let repeated = backup("shop", End::Repeated, began);
    let line = emf(&repeated);
    let values = values(&line);
    assert_eq!((values["BackupSucceeded"].1, values["BackupFailed"].1), (0.0, 0.0));
    assert_eq!((values["LastGoodBackupAge"].1, values.len()), (86_400.0, 5));
    let mut samples = Samples::default();
    samples.observe("nightly", &repeated);
    assert_eq!(
        samples.render().lines().filter(|line| !line.starts_with('#')).count(),
        1
    );
}

#[test]
fn verifications_and_drills_are_counted_apart() {
    let line = emf(&verification(None, 3, 1));
    assert_eq!(line["Command"], "verify");
    let found = values(&line);
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "NotificationsFailed",
            "VerifyDuration",
            "VerifyFailed",
            "VerifySucceeded"
        ]
    );
    assert_eq!((found["VerifySucceeded"].1, found["VerifyFailed"].1), (3.0, 1.0));
    assert_eq!(found["VerifyDuration"], ("Seconds".to_owned(), 9.0));

    let line = emf(&verification(Some((1, 0)), 1, 0));
    assert_eq!(line["Command"], "drill");
    assert_eq!((&line["DrillSucceeded"], &line["DrillFailed"]), (&json!(1), &json!(0)));
}

const GOLDEN: &str = r#"# Written by pgstow after each run; what it says of other databases is kept.
# HELP pgstow_backup_last_run_timestamp_seconds When the last run ended, with or without an error.
# TYPE pgstow_backup_last_run_timestamp_seconds gauge
pgstow_backup_last_run_timestamp_seconds{service="nightly",database="bü\"ch\\er\n"} 1738296349
pgstow_backup_last_run_timestamp_seconds{service="nightly",database="shop"} 1738296349
# HELP pgstow_backup_last_run_success 1 if it made a backup, 0 if it failed.
# TYPE pgstow_backup_last_run_success gauge
pgstow_backup_last_run_success{service="nightly",database="bü\"ch\\er\n"} 0
pgstow_backup_last_run_success{service="nightly",database="shop"} 1
# HELP pgstow_backup_last_run_degraded 1 if it made a backup and a copy of it failed, else 0.
# TYPE pgstow_backup_last_run_degraded gauge
pgstow_backup_last_run_degraded{service="nightly",database="bü\"ch\\er\n"} 0
pgstow_backup_last_run_degraded{service="nightly",database="shop"} 0
# HELP pgstow_backup_last_run_exit_code The exit code of the last run; 0: no error, 3: a copy failed.
# TYPE pgstow_backup_last_run_exit_code gauge
pgstow_backup_last_run_exit_code{service="nightly",database="bü\"ch\\er\n"} 13
pgstow_backup_last_run_exit_code{service="nightly",database="shop"} 0
# HELP pgstow_backup_last_run_duration_seconds How long the last run took.
# TYPE pgstow_backup_last_run_duration_seconds gauge
pgstow_backup_last_run_duration_seconds{service="nightly",database="bü\"ch\\er\n"} 2.5
pgstow_backup_last_run_duration_seconds{service="nightly",database="shop"} 48.5
# HELP pgstow_backup_last_run_notifications_failed Messages about the last run that could not be sent.
# TYPE pgstow_backup_last_run_notifications_failed gauge
pgstow_backup_last_run_notifications_failed{service="nightly",database="bü\"ch\\er\n"} 0
pgstow_backup_last_run_notifications_failed{service="nightly",database="shop"} 0
# HELP pgstow_backup_last_success_timestamp_seconds When the newest good backup began; 0: there is none.
# TYPE pgstow_backup_last_success_timestamp_seconds gauge
pgstow_backup_last_success_timestamp_seconds{service="nightly",database="bü\"ch\\er\n"} 0
pgstow_backup_last_success_timestamp_seconds{service="nightly",database="shop"} 1738296300
# HELP pgstow_backup_duration_seconds How long the last backup that was made took.
# TYPE pgstow_backup_duration_seconds gauge
pgstow_backup_duration_seconds{service="nightly",database="shop"} 48.5
# HELP pgstow_backup_bytes Its size as stored, all files together.
# TYPE pgstow_backup_bytes gauge
pgstow_backup_bytes{service="nightly",database="shop"} 1500000000
# HELP pgstow_backup_tables Its tables.
# TYPE pgstow_backup_tables gauge
pgstow_backup_tables{service="nightly",database="shop"} 120
# HELP pgstow_backup_rows The rows in them.
# TYPE pgstow_backup_rows gauge
pgstow_backup_rows{service="nightly",database="shop"} 8401233
# HELP pgstow_backup_read_bytes_per_second Bytes per second that were read from the database.
# TYPE pgstow_backup_read_bytes_per_second gauge
pgstow_backup_read_bytes_per_second{service="nightly",database="shop"} 61000000
# HELP pgstow_backup_size_deviation_ratio The factor by which its size differs from the median of earlier backups, in either direction.
# TYPE pgstow_backup_size_deviation_ratio gauge
pgstow_backup_size_deviation_ratio{service="nightly",database="shop"} 1.25
"#;

#[test]
fn prometheus_gets_its_text_with_odd_names_escaped() {
    let mut samples = Samples::default();
    samples.observe("nightly", &success("shop"));
    samples.observe("nightly", &failure("bü\"ch\\er\n", LastGood::Never));
    assert_eq!(samples.render(), GOLDEN);
    assert_eq!(Samples::parse(GOLDEN), Ok(samples));
}

fn lines(samples: &Samples) -> Vec<String> {
    let text = samples.render();
    let values = text.lines().filter(|line| !line.starts_with('#'));
    values.map(|line| line.replace("pgstow_", "")).collect()
}

#[test]
fn a_failure_leaves_what_is_known_of_the_last_good_backup() {
    let mut samples = Samples::default();
    samples.observe("a", &success("shop"));
    let before = lines(&samples);
    samples.observe("a", &failure("shop", LastGood::Unknown));
    let after = lines(&samples);
    assert_eq!(before.len(), after.len());
    let changed: Vec<&String> = after.iter().filter(|line| !before.contains(line)).collect();
    assert_eq!(
        changed,
        [
            "backup_last_run_success{service=\"a\",database=\"shop\"} 0",
            "backup_last_run_exit_code{service=\"a\",database=\"shop\"} 13",
            "backup_last_run_duration_seconds{service=\"a\",database=\"shop\"} 2.5",
        ]
    );
}

#[test]
fn a_failure_without_a_databases_name_goes_when_its_service_knows_it_again() {
    let mut samples = Samples::default();
    samples.observe("a", &failure("", LastGood::Unknown));
    samples.observe("b", &failure("", LastGood::Unknown));
    assert_eq!(lines(&samples)[2], "backup_last_run_success{service=\"a\"} 0");
    samples.observe("a", &success("shop"));
    let left = lines(&samples);
    assert!(left.iter().all(|line| !line.contains("{service=\"a\"}")), "{left:#?}");
    assert_eq!(left.iter().filter(|line| line.contains("{service=\"b\"}")).count(), 6);
}

#[test]
fn a_drill_and_a_verification_keep_their_last_success_apart() {
    let mut samples = Samples::default();
    samples.observe("a", &verification(Some((1, 0)), 1, 0));
    assert_eq!(lines(&samples).len(), 7);
    samples.observe("a", &verification(None, 0, 1));
    let left = lines(&samples).join("\n");
    for (name, value) in [
        ("verify_last_run_success", "0"),
        ("verify_last_success_timestamp_seconds", "1738296349"),
        ("drill_last_run_success", "1"),
    ] {
        let line = format!("{name}{{service=\"a\",database=\"shop\"}} {value}");
        assert!(left.contains(&line), "{line} is not in:\n{left}");
    }
}

#[test]
fn what_was_asked_for_fails_when_something_keeps_us_from_looking() {
    let (begun, ended) = (at("2025-01-31T04:05:00Z"), at("2025-01-31T04:05:03Z"));
    let failed = |drill| Observation::of_failed_verification(None, drill, Code::Store, begun, ended).run;
    let one = CheckTally { passed: 0, failed: 1 };
    let expected = VerificationMetrics {
        verify: one,
        drill: None,
        chain: None,
        seconds: 3.0,
        code: Some(Code::Store),
    };
    assert_eq!(failed(false), Run::Verification(expected.clone()));
    let expected = VerificationMetrics {
        verify: CheckTally::default(),
        drill: Some(one),
        ..expected
    };
    assert_eq!(failed(true), Run::Verification(expected));
}

fn settings(file: Option<&std::path::Path>, lines: MetricLines) -> Metrics {
    Metrics {
        lines,
        namespace: "pgstow".into(),
        service: "nightly".into(),
        file: file.map(std::path::Path::to_owned),
    }
}

#[tokio::test]
async fn a_file_is_made_replaced_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pgstow.prom");
    let settings = settings(Some(&file), MetricLines::None);
    let mut log = Vec::new();
    assert_eq!(publish(&settings, vec![success("shop")], &mut log).await, [""; 0]);
    assert_eq!(publish(&settings, vec![success("news")], &mut log).await, [""; 0]);
    assert!(log.is_empty());
    let mut both = Samples::default();
    both.observe("nightly", &success("shop"));
    both.observe("nightly", &success("news"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), both.render());
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    // The folder holds no other file.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn what_is_not_ours_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = folder.path().join("node.prom");
    std::fs::write(&foreign, "node_load1 0.5\n").unwrap();
    for (path, why) in [
        (foreign.as_path(), "pgstow did not write its line 1"),
        (folder.path(), "not a file"),
        ("/dev/null".as_ref(), "not a file"),
        ("/nonexistent/pgstow.prom".as_ref(), "No such file"),
    ] {
        let settings = settings(Some(path), MetricLines::None);
        let warnings = publish(&settings, vec![success("shop")], Vec::new()).await;
        assert_eq!(warnings.len(), 1, "{}", path.display());
        assert!(warnings[0].contains(why), "{warnings:?}");
        assert!(warnings[0].contains(&path.display().to_string()), "{warnings:?}");
    }
    assert_eq!(std::fs::read_to_string(&foreign).unwrap(), "node_load1 0.5\n");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_link_stays_and_an_empty_file_is_filled() {
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("real.prom"), folder.path().join("link.prom"));
    std::fs::write(&file, "").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    textfile::update(&link, "nightly", &[success("shop")]).unwrap();
    assert!(link.is_symlink());
    assert!(std::fs::read_to_string(&file).unwrap().contains("database=\"shop\""));
}

#[test]
fn runs_that_end_at_once_do_not_wipe_each_others_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pgstow.prom");
    std::thread::scope(|scope| {
        for number in 0..16 {
            let file = &file;
            scope.spawn(move || textfile::update(file, "nightly", &[success(&format!("db{number}"))]).unwrap());
        }
    });
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.matches("pgstow_backup_bytes{").count(), 16);
}

#[tokio::test]
async fn lines_are_for_those_who_want_them() {
    let mut log = Vec::new();
    assert!(!wanted(&settings(None, MetricLines::None)));
    assert!(wanted(&settings(None, MetricLines::Emf)));
    publish(&settings(None, MetricLines::None), vec![success("shop")], &mut log).await;
    assert!(log.is_empty());
    let observations = vec![success("shop"), success("news")];
    publish(&settings(None, MetricLines::Emf), observations, &mut log).await;
    let text = String::from_utf8(log).unwrap();
    let names: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["Database"].clone())
        .collect();
    assert_eq!(names, ["shop", "news"]);
}
