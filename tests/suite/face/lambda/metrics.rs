//! The lines of which CloudWatch makes metrics: each is a log event of its own, and nothing else.

use serde_json::{Value, json};

use super::place::{Place, failed, succeeded};
use crate::support::function::Function;
use crate::support::moto::secret;

/// CloudWatch reads a log event that is one JSON document: what stands in a line with something
/// else does not count.
fn lines(function: &Function) -> Vec<Value> {
    let log = function.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("CloudWatchMetrics")).collect();
    lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in: {line}")))
        .collect()
}

#[tokio::test]
async fn each_event_leaves_one_line_under_the_functions_name() {
    let place = Place::fresh().await;
    let function = place.function();
    let event = json!({"action": "backup", "event_id": "full-2025-01-31T04:05:00Z"});
    let id = succeeded(&function.invoke(&event));
    // Delivered again, it has made nothing.
    assert_eq!(function.invoke(&event)["repeated"], true);
    function.invoke(&json!({"action": "status"}));
    function.invoke(&json!({"action": "verify", "backup": id}));

    let mut lines = lines(&function);
    assert_eq!(lines.len(), 3, "{lines:#?}");
    let verified = lines.pop().unwrap();
    assert_eq!(
        (&verified["VerifySucceeded"], &verified["VerifyFailed"]),
        (&json!(1), &json!(0))
    );
    for line in &lines {
        assert_eq!(
            (&line["Service"], &line["Database"]),
            (&json!("pgstow"), &json!(place.database.name))
        );
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(directive["Namespace"], "pgstow");
        assert_eq!(directive["Dimensions"], json!([["Service"], ["Service", "Database"]]));
        assert!(line["LastGoodBackupAge"].as_f64().unwrap() < 120.0, "{line:#}");
    }
    let counted = |line: &Value| (line["BackupSucceeded"].as_u64(), line["BackupFailed"].as_u64());
    assert_eq!(
        [counted(&lines[0]), counted(&lines[1])],
        [(Some(1), Some(0)), (Some(0), Some(0))]
    );
    assert_eq!(
        (&lines[0]["Backup"], &lines[0]["BackupRows"]),
        (&json!(id), &json!(1000))
    );
    assert!(!function.log().contains(&place.database.password()));
}

#[tokio::test]
async fn a_failure_counts_with_the_message_that_could_not_be_sent() {
    let place = Place::fresh().await;
    let id = secret(&place.secret_of("postgres", "wrong").to_string());
    let topic = "arn:aws:sns:us-east-1:123456789012:nowhere";
    let function = place.function_with(|command| {
        command
            .env("BACKUP_SECRET_ID", id)
            .env("BACKUP_SNS_TOPIC_ARN", topic)
            .env("BACKUP_METRICS_SERVICE", "nightly");
    });
    failed(&function.invoke(&json!({})), "AUTH");
    let lines = lines(&function);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let line = &lines[0];
    assert_eq!((&line["Service"], &line["Code"]), (&json!("nightly"), &json!("AUTH")));
    for (name, value) in [("BackupSucceeded", 0), ("BackupFailed", 1), ("NotificationsFailed", 1)] {
        assert_eq!(line[name], value, "{line:#}");
    }
}
