//! CloudWatch's embedded metric format: one line of JSON, from which CloudWatch Logs makes metrics. The line must be
//! the whole log event, with nothing before or after it.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::{Backup, End, Increment, IncrementEnd, LastGood, Observation, Run, VerificationMetrics};
use crate::printable;

/// A dimension's value is ASCII, not blank, and does not start with a colon. Other characters of a database's name
/// are escaped, and so is the escape character.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%').add(b' ').add(b':');

struct Metric {
    name: &'static str,
    unit: &'static str,
    value: Value,
}

/// The line, with its line break.
pub(super) fn line(observation: &Observation, namespace: &str, service: &str) -> String {
    let mut metrics = match &observation.run {
        Run::Backup(backup) => of_backup(backup, observation),
        Run::Increment(increment) => of_increment(increment, observation),
        Run::Verification(verification) => of_verification(verification),
    };
    metrics.push(count("NotificationsFailed", observation.notifications_failed));

    let mut dimensions = vec![json!(["Service"])];
    let mut fields = Map::new();
    fields.insert("Service".to_owned(), json!(service));
    if let Some(database) = observation.database.as_deref().filter(|name| !name.is_empty()) {
        dimensions.push(json!(["Service", "Database"]));
        let name = utf8_percent_encode(database, ESCAPED).to_string();
        fields.insert("Database".to_owned(), json!(name));
    }
    let defined: Vec<Value> = metrics
        .iter()
        .map(|metric| json!({"Name": metric.name, "Unit": metric.unit}))
        .collect();
    let directive = json!({
        "Timestamp": observation.at.as_millisecond(),
        "CloudWatchMetrics": [{"Namespace": namespace, "Dimensions": dimensions, "Metrics": defined}],
    });
    fields.insert("_aws".to_owned(), directive);
    fields.extend(metrics.into_iter().map(|metric| (metric.name.to_owned(), metric.value)));
    fields.extend(about(&observation.run));
    printable::json(&Value::Object(fields).to_string()) + "\n"
}

fn count(name: &'static str, value: u64) -> Metric {
    Metric {
        name,
        unit: "Count",
        value: json!(value),
    }
}

fn seconds(name: &'static str, value: f64) -> Metric {
    Metric {
        name,
        unit: "Seconds",
        value: json!(value),
    }
}

fn of_backup(backup: &Backup, observation: &Observation) -> Vec<Metric> {
    let (made, failed) = match &backup.end {
        End::Made(_) => (1, 0),
        End::Repeated => (0, 0),
        End::Failed { .. } => (0, 1),
    };
    let degraded = matches!(&backup.end, End::Made(made) if made.degraded);
    let mut metrics = vec![
        count("BackupSucceeded", made),
        count("BackupDegraded", u64::from(degraded)),
        count("BackupFailed", failed),
    ];
    match &backup.end {
        End::Made(made) => {
            metrics.extend([
                seconds("BackupDuration", made.seconds),
                Metric {
                    name: "BackupBytes",
                    unit: "Bytes",
                    value: json!(made.bytes),
                },
                count("BackupRows", made.rows),
                Metric {
                    name: "BackupRate",
                    unit: "Bytes/Second",
                    value: json!(made.rate),
                },
            ]);
            metrics.extend(made.deviation.map(|factor| Metric {
                name: "BackupSizeDeviation",
                unit: "None",
                value: json!(factor),
            }));
        }
        End::Failed { seconds: took, .. } => metrics.push(seconds("BackupDuration", *took)),
        End::Repeated => {}
    }
    if let LastGood::Began(began) = backup.last_good {
        metrics.push(seconds("LastGoodBackupAge", super::seconds(began, observation.at)));
    }
    metrics
}

fn bytes(name: &'static str, value: u64) -> Metric {
    Metric {
        name,
        unit: "Bytes",
        value: json!(value),
    }
}

fn of_increment(increment: &Increment, observation: &Observation) -> Vec<Metric> {
    let end = &increment.end;
    let made = matches!(end, IncrementEnd::Made(_) | IncrementEnd::Idle { .. });
    let failed = matches!(end, IncrementEnd::Failed { .. });
    let mut metrics = vec![
        count("IncrementSucceeded", u64::from(made)),
        count("IncrementFailed", u64::from(failed)),
        count("ChainBroken", u64::from(end.breaks_the_chain())),
    ];
    match end {
        IncrementEnd::Made(made) => metrics.extend([
            seconds("IncrementDuration", made.seconds),
            bytes("IncrementBytes", made.bytes),
            count("IncrementTransactions", made.transactions),
            count("IncrementBaselines", made.baselines),
        ]),
        IncrementEnd::Failed { seconds: took, .. } => metrics.push(seconds("IncrementDuration", *took)),
        IncrementEnd::Idle { .. } | IncrementEnd::Renewed => {}
    }
    if let Some(seen_to) = end.seen_to() {
        metrics.push(seconds("RecoveryPointAge", super::seconds(seen_to, observation.at)));
    }
    if let Some(slot) = increment.slot {
        metrics.extend(slot.retained.map(|retained| bytes("SlotWalRetained", retained)));
        metrics.extend(slot.safe.map(|safe| bytes("SlotWalSafe", safe)));
    }
    metrics
}

fn of_verification(verification: &VerificationMetrics) -> Vec<Metric> {
    let verify = verification.verify;
    let mut metrics = vec![
        count("VerifySucceeded", verify.passed),
        count("VerifyFailed", verify.failed),
    ];
    if let Some(drill) = verification.drill {
        metrics.extend([
            count("DrillSucceeded", drill.passed),
            count("DrillFailed", drill.failed),
        ]);
    }
    if let Some(chain) = verification.chain {
        metrics.extend([
            count("ChainProofSucceeded", chain.passed),
            count("ChainProofFailed", chain.failed),
        ]);
    }
    metrics.push(seconds("VerifyDuration", verification.seconds));
    metrics
}

/// Fields for searches in the log; they are not metrics.
fn about(run: &Run) -> Vec<(String, Value)> {
    let (command, backup, code) = match run {
        Run::Backup(backup) => match &backup.end {
            End::Made(made) => ("backup", Some(&made.id), None),
            End::Repeated => ("backup", None, None),
            End::Failed { code, .. } => ("backup", None, Some(*code)),
        },
        Run::Increment(increment) => match &increment.end {
            IncrementEnd::Made(made) => ("increment", Some(&made.id), None),
            IncrementEnd::Idle { .. } | IncrementEnd::Renewed => ("increment", None, None),
            IncrementEnd::Failed { code, .. } => ("increment", None, Some(*code)),
        },
        Run::Verification(verification) => match verification.drill {
            Some(_) => ("drill", None, verification.code),
            None => ("verify", None, verification.code),
        },
    };
    [
        ("Command", Some(json!(command))),
        ("Backup", backup.map(|id| json!(id))),
        ("Code", code.map(|code| json!(code.name()))),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}
