//! Where pgstow reports a run: messages to people, metrics, the log.

use super::super::setting::{Setting, flag, plain};

pub const SETTINGS: &[Setting] = &[
    flag(
        "BACKUP_SNS_TOPIC_ARN",
        "sns-topic-arn",
        "sns_topic_arn",
        "ARN",
        "SNS topic that gets one message for each backup, good or failed, and for each verification or drill that \
         fails",
    ),
    plain(
        "BACKUP_METRICS",
        "metrics",
        "FORMAT",
        "emf: write the run's metrics as one line to stderr, in CloudWatch's embedded metric format; none: do not \
         [default: none, in Lambda emf]",
    ),
    plain(
        "BACKUP_METRICS_NAMESPACE",
        "metrics_namespace",
        "NAME",
        "The CloudWatch namespace of the metrics [default: pgstow]",
    ),
    plain(
        "BACKUP_METRICS_SERVICE",
        "metrics_service",
        "NAME",
        "The value of the metrics' dimension and label Service [default: pgstow, in Lambda the function's name]",
    ),
    flag(
        "BACKUP_METRICS_FILE",
        "metrics-file",
        "metrics_file",
        "FILE",
        "Also write the run's metrics for Prometheus to this file. node exporter's textfile collector reads it only \
         if its name ends in .prom",
    ),
    flag(
        "LOG_FORMAT",
        "log-format",
        "log_format",
        "FORMAT",
        "text or json; logs go to stderr [default: text, in Lambda json]",
    ),
    plain(
        "RUST_LOG",
        "log",
        "FILTER",
        "What pgstow logs: error, warn, info, debug, or module=level pairs; a level without a module is for pgstow's \
         own modules [default: warn, in Lambda info]",
    ),
];
