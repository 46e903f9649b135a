//! Who is told of a run: people, metrics, the log.

use super::super::setting::{Setting, flag, plain};

pub const SETTINGS: &[Setting] = &[
    flag(
        "BACKUP_SNS_TOPIC_ARN",
        "sns-topic-arn",
        "sns_topic_arn",
        "ARN",
        "SNS topic that gets one message per backup, good or bad, and per verification or drill that fails",
    ),
    plain(
        "BACKUP_METRICS",
        "metrics",
        "FORMAT",
        "emf: the run's metrics as one line on stderr, in CloudWatch's embedded metric format; or none [default: none, in \
         Lambda emf]",
    ),
    plain(
        "BACKUP_METRICS_NAMESPACE",
        "metrics_namespace",
        "NAME",
        "CloudWatch's namespace for them [default: pgstow]",
    ),
    plain(
        "BACKUP_METRICS_SERVICE",
        "metrics_service",
        "NAME",
        "Their dimension and label Service [default: pgstow, in Lambda the function's name]",
    ),
    flag(
        "BACKUP_METRICS_FILE",
        "metrics-file",
        "metrics_file",
        "FILE",
        "Write the run's metrics for Prometheus into this file as well, for node exporter's textfile collector: its \
         name ends in .prom",
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
        "What is logged: error, warn, info, debug, or module=level pairs; a level alone is pgstow's own [default: warn, in Lambda info]",
    ),
];
