//! Where pgstow writes the metrics of a run.

use super::*;
use crate::settings::{MetricLines, Metrics};

#[test]
fn on_a_machine_of_ones_own_nothing_is_written_until_it_is_asked_for() {
    let expected = Metrics {
        lines: MetricLines::None,
        namespace: "pgstow".into(),
        service: "pgstow".into(),
        file: None,
    };
    assert_eq!(env(&[]).load().metrics, expected);
    // The name of a function alone does not show that pgstow runs in Lambda.
    let named = env(&[("AWS_LAMBDA_FUNCTION_NAME", "nightly")]);
    assert_eq!(named.load().metrics, expected);
}

#[test]
fn a_function_writes_lines_under_its_own_name() {
    let function = || {
        env(&[
            ("BACKUP_STORE", "s3://bucket"),
            ("AWS_LAMBDA_FUNCTION_NAME", "shop-nightly"),
        ])
        .in_lambda()
    };
    let metrics = function().load().metrics;
    assert_eq!((metrics.lines, &*metrics.service), (MetricLines::Emf, "shop-nightly"));
    let metrics = function()
        .env(&[("BACKUP_METRICS", "none"), ("BACKUP_METRICS_SERVICE", "all of them")])
        .load()
        .metrics;
    assert_eq!((metrics.lines, &*metrics.service), (MetricLines::None, "all of them"));
}

#[test]
fn names_that_cloudwatch_would_drop_are_refused() {
    env(&[("BACKUP_METRICS_NAMESPACE", "Backups/pg #1")]).load();
    for wrong in [":x", "AWS/RDS", "ü", "a\"b", &"x".repeat(256)] {
        env(&[("BACKUP_METRICS_NAMESPACE", wrong)]).refused(&["BACKUP_METRICS_NAMESPACE"]);
    }
    for wrong in [":x", "ü", "a\nb", &"x".repeat(256)] {
        env(&[("BACKUP_METRICS_SERVICE", wrong)]).refused(&["BACKUP_METRICS_SERVICE"]);
    }
    env(&[("BACKUP_METRICS", "statsd")]).refused(&["BACKUP_METRICS", "emf or none"]);
}

#[test]
fn a_file_is_found_from_the_working_folder_and_must_have_the_collectors_ending() {
    let place = env(&[("BACKUP_METRICS_FILE", "other")]).flag("BACKUP_METRICS_FILE", "node/pgstow.prom");
    let settings = place.load();
    assert_eq!(settings.metrics.file, Some(place.path("node/pgstow.prom")));
    assert!(!settings.notes.iter().any(|note| note.contains(".prom")));
    let notes = env(&[("BACKUP_METRICS_FILE", "/var/lib/pgstow.txt")]).load().notes;
    assert!(
        notes
            .iter()
            .any(|note| note.contains("does not read /var/lib/pgstow.txt")),
        "{notes:?}"
    );
    env(&[("BACKUP_METRICS_FILE", "/var/lib/")]).refused(&["BACKUP_METRICS_FILE", "pgstow.prom"]);
    Place::new()
        .flag("BACKUP_METRICS_FILE", "")
        .refused(&["--metrics-file", "empty"]);
}

#[test]
fn a_configuration_file_knows_them() {
    let metrics = Place::new()
        .toml("metrics = \"emf\"\nmetrics_namespace = \"ours\"\nmetrics_file = \"/var/lib/node/pgstow.prom\"\n")
        .load()
        .metrics;
    assert_eq!((metrics.lines, &*metrics.namespace), (MetricLines::Emf, "ours"));
    assert_eq!(metrics.file, Some("/var/lib/node/pgstow.prom".into()));
}
