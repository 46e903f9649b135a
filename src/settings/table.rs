//! The one table of settings. The flags of the command line, the variables that are read, the
//! keys of the TOML file, the help text and the guard on secrets all come from here.

/// One setting, as its user may name it.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// What its values are keyed by, whatever layer they come from.
    pub variable: &'static str,
    pub flag: Option<&'static str>,
    /// Dotted where it stands in a TOML table.
    pub key: Option<&'static str>,
    pub kind: Kind,
    /// What stands for the value in the help text.
    pub value: &'static str,
    pub help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// Several values: a repeated flag, words in a variable, an array in TOML.
    List,
    /// Never quoted in a message.
    Secret,
}

const fn flag(
    variable: &'static str,
    flag: &'static str,
    key: &'static str,
    value: &'static str,
    help: &'static str,
) -> Setting {
    Setting {
        variable,
        flag: Some(flag),
        key: Some(key),
        kind: Kind::Text,
        value,
        help,
    }
}

const fn plain(variable: &'static str, key: &'static str, value: &'static str, help: &'static str) -> Setting {
    Setting {
        variable,
        flag: None,
        key: Some(key),
        kind: Kind::Text,
        value,
        help,
    }
}

const fn kind(kind: Kind, setting: Setting) -> Setting {
    Setting { kind, ..setting }
}

pub const SETTINGS: &[Setting] = &[
    kind(
        Kind::Secret,
        flag(
            "DATABASE_URL",
            "database-url",
            "database_url",
            "URL",
            "The database to read: postgres://user@host:5432/name?sslmode=verify-full. A password in a flag is visible \
             to other users of the machine; give it in DATABASE_URL or DB_PASSWORD instead",
        ),
    ),
    flag(
        "BACKUP_SECRET_ID",
        "secret-id",
        "secret_id",
        "ID",
        "Secrets Manager secret with the database's credentials: RDS-style JSON or a plain connection URL",
    ),
    kind(
        Kind::Secret,
        plain(
            "BACKUP_TARGET_URL",
            "target_url",
            "URL",
            "The database that `restore` fills, where --target does not name it",
        ),
    ),
    kind(
        Kind::Secret,
        plain(
            "BACKUP_TARGET_PASSWORD",
            "target_password",
            "PASSWORD",
            "Its password, where the URL has none",
        ),
    ),
    plain(
        "BACKUP_TARGET_SECRET_ID",
        "target_secret_id",
        "ID",
        "Secrets Manager secret with the target's credentials, instead of a URL",
    ),
    kind(
        Kind::List,
        flag(
            "BACKUP_STORE",
            "store",
            "store",
            "URL",
            "Where backups go: ./backups, file:///srv/backups or s3://bucket/prefix. Repeat it for copies; the first \
             is the primary [default: ./backups]",
        ),
    ),
    flag(
        "BACKUP_RETENTION",
        "retention",
        "retention",
        "SPEC",
        "How long backups are kept: 30d, 4w, or daily=7,weekly=4,monthly=12,yearly=3 [default: 30d]",
    ),
    plain(
        "BACKUP_RETENTION_DAYS",
        "retention_days",
        "DAYS",
        "The same as BACKUP_RETENTION=<DAYS>d",
    ),
    flag(
        "BACKUP_KEEP_LAST",
        "keep-last",
        "keep_last",
        "N",
        "The newest N good backups never expire, whatever the retention says [default: 1]",
    ),
    flag(
        "BACKUP_MAX_AGE",
        "max-age",
        "max_age",
        "TIME",
        "How old the last good backup may be before `status` calls for a person: 90m, 26h, 2d [default: 26h]",
    ),
    flag(
        "BACKUP_COMPRESSION",
        "compress",
        "compress",
        "SPEC",
        "auto, zstd, zstd:1..19, gzip, gzip:1..9 or none; auto takes zstd where pg_restore can read it [default: auto]",
    ),
    plain(
        "BACKUP_COMPRESSION_LEVEL",
        "compression_level",
        "LEVEL",
        "The level for the algorithm that BACKUP_COMPRESSION names; alone, it means gzip",
    ),
    flag(
        "BACKUP_FORMAT",
        "format",
        "format",
        "FORMAT",
        "custom (for pg_restore: parallel, single tables) or plain (SQL text) [default: custom]",
    ),
    flag(
        "BACKUP_JOBS",
        "jobs",
        "jobs",
        "N",
        "Streams restored into the database at once, as pg_restore's -j; a backup reads with one [default: 1]",
    ),
    flag(
        "BACKUP_THREADS",
        "threads",
        "threads",
        "N",
        "Compression threads [default: the CPUs that the task has]",
    ),
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
    plain(
        "DB_HOST",
        "db.host",
        "HOST",
        "The database's host, where no URL names it",
    ),
    plain("DB_PORT", "db.port", "PORT", "Its port"),
    plain("DB_NAME", "db.name", "NAME", "The database's name"),
    plain("DB_USER", "db.user", "USER", "The role to log in as"),
    kind(
        Kind::Secret,
        plain("DB_PASSWORD", "db.password", "PASSWORD", "Its password"),
    ),
    plain(
        "PGSSLMODE",
        "db.sslmode",
        "MODE",
        "libpq's sslmode, where the URL has none",
    ),
    plain(
        "PGSSLROOTCERT",
        "db.sslrootcert",
        "FILE",
        "Certificate authorities for verify-ca and verify-full, or `system`",
    ),
    plain("PGSSLCERT", "db.sslcert", "FILE", "Client certificate"),
    plain("PGSSLKEY", "db.sslkey", "FILE", "Client key"),
    plain(
        "BACKUP_PG_BIN",
        "pg.bin",
        "FOLDERS",
        "Folders with pg_dump, separated by colons; where set, they alone count",
    ),
    plain(
        "BACKUP_PG_DUMP_MAJOR",
        "pg.dump_major",
        "N",
        "The major version of pg_dump to use, instead of the server's",
    ),
    plain(
        "BACKUP_LOCK_WAIT_SECONDS",
        "lock_wait_seconds",
        "N",
        "How long pg_dump waits for a table's lock [default: 60]",
    ),
    plain(
        "BACKUP_STALL_SECONDS",
        "stall_seconds",
        "N",
        "A run without a byte for so long is given up [default: 300]",
    ),
    plain(
        "BACKUP_CONNECT_TIMEOUT_SECONDS",
        "connect_timeout_seconds",
        "N",
        "How long the database may take to answer [default: 15]",
    ),
    plain(
        "BACKUP_LEASE_SECONDS",
        "lease_seconds",
        "N",
        "When the lease of a run that died may be taken over [default: 120]",
    ),
    plain(
        "BACKUP_MD5",
        "md5",
        "BOOL",
        "Write MD5SUMS beside SHA256SUMS [default: false]",
    ),
    plain(
        "BACKUP_HANDOVER",
        "handover",
        "WHERE",
        "ecs: a Lambda function hands a backup that does not fit its time to a container task; or none [default: none]",
    ),
    plain("BACKUP_ECS_CLUSTER", "ecs.cluster", "NAME", "The cluster of that task"),
    plain(
        "BACKUP_ECS_TASK_DEFINITION",
        "ecs.task_definition",
        "NAME",
        "Its task definition: family, family:revision or ARN",
    ),
    plain(
        "BACKUP_ECS_CONTAINER",
        "ecs.container",
        "NAME",
        "The container of it that runs pgstow [default: pgstow]",
    ),
    plain(
        "BACKUP_ECS_SUBNETS",
        "ecs.subnets",
        "IDS",
        "The subnets that it may run in, separated by commas",
    ),
    plain(
        "BACKUP_ECS_SECURITY_GROUPS",
        "ecs.security_groups",
        "IDS",
        "Its security groups, separated by commas [default: the VPC's own]",
    ),
    plain(
        "BACKUP_ECS_ASSIGN_PUBLIC_IP",
        "ecs.assign_public_ip",
        "BOOL",
        "Whether it gets a public address, as in a public subnet it must [default: false]",
    ),
    plain(
        "BACKUP_ALLOW_RESTORE",
        "allow_restore",
        "BOOL",
        "Whether a Lambda function takes `restore` events [default: false]",
    ),
    plain(
        "BACKUP_S3_MAX_PARTS",
        "s3.max_parts",
        "N",
        "Parts that the provider allows in one upload, 1 to 10000 [default: 10000]",
    ),
    plain(
        "BACKUP_S3_PART_SIZE",
        "s3.part_size",
        "SIZE",
        "Size of the first parts, 5MiB to 5GiB; parts grow as the object does [default: 8MiB]",
    ),
    plain(
        "BACKUP_S3_RETRY_SECONDS",
        "s3.retry_seconds",
        "N",
        "How long a request is repeated when S3 keeps failing; a run ends sooner if its lease does [default: 35]",
    ),
    plain(
        "BACKUP_S3_CHECKSUMS",
        "s3.checksums",
        "WHEN",
        "always, or when_required for endpoints that refuse checksum headers [default: always]",
    ),
    plain(
        "AWS_REQUEST_CHECKSUM_CALCULATION",
        "aws.request_checksum_calculation",
        "WHEN",
        "The AWS SDK's own name for the same: when_supported or when_required",
    ),
    plain(
        "BACKUP_S3_SSE",
        "s3.sse",
        "METHOD",
        "Server-side encryption: AES256 or aws:kms [default: what the bucket does]",
    ),
    plain(
        "BACKUP_S3_KMS_KEY_ID",
        "s3.kms_key_id",
        "KEY",
        "The KMS key for aws:kms",
    ),
    plain(
        "BACKUP_S3_STORAGE_CLASS",
        "s3.storage_class",
        "CLASS",
        "Storage class of the archive, such as STANDARD_IA",
    ),
    plain(
        "BACKUP_S3_PATH_STYLE",
        "s3.path_style",
        "BOOL",
        "Path-style addressing [default: for a custom endpoint]",
    ),
    plain(
        "AWS_REGION",
        "aws.region",
        "REGION",
        "The AWS region (AWS_DEFAULT_REGION counts too)",
    ),
    Setting {
        variable: "AWS_DEFAULT_REGION",
        flag: None,
        key: None,
        kind: Kind::Text,
        value: "REGION",
        help: "The AWS region, where AWS_REGION is not set",
    },
    plain(
        "AWS_ENDPOINT_URL",
        "aws.endpoint_url",
        "URL",
        "Endpoint for every AWS service",
    ),
    plain(
        "AWS_ENDPOINT_URL_S3",
        "aws.endpoint_url_s3",
        "URL",
        "Endpoint of an S3-compatible store (MinIO, R2, Ceph)",
    ),
    plain(
        "AWS_ENDPOINT_URL_SECRETS_MANAGER",
        "aws.endpoint_url_secrets_manager",
        "URL",
        "Endpoint for Secrets Manager alone",
    ),
    plain(
        "AWS_ENDPOINT_URL_SNS",
        "aws.endpoint_url_sns",
        "URL",
        "Endpoint for SNS alone",
    ),
    plain(
        "AWS_ENDPOINT_URL_ECS",
        "aws.endpoint_url_ecs",
        "URL",
        "Endpoint for ECS alone",
    ),
    kind(
        Kind::Secret,
        plain("AWS_ACCESS_KEY_ID", "aws.access_key_id", "ID", "AWS credentials"),
    ),
    kind(
        Kind::Secret,
        plain(
            "AWS_SECRET_ACCESS_KEY",
            "aws.secret_access_key",
            "KEY",
            "AWS credentials",
        ),
    ),
    kind(
        Kind::Secret,
        plain(
            "AWS_SESSION_TOKEN",
            "aws.session_token",
            "TOKEN",
            "AWS credentials, where they are temporary",
        ),
    ),
];

pub fn by_variable(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.variable == name)
}

pub fn by_key(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == Some(key))
}

/// The name among `names` that a misspelt `name` most likely meant.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    names
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness > 0.88)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_settings_share_a_variable_a_flag_or_a_key() {
        let mut seen = BTreeSet::new();
        for setting in SETTINGS {
            assert!(seen.insert(setting.variable.to_owned()), "{}", setting.variable);
            if let Some(flag) = setting.flag {
                assert!(seen.insert(format!("--{flag}")), "{flag}");
            }
            if let Some(key) = setting.key {
                assert!(seen.insert(format!("{key} =")), "{key}");
            }
            assert!(!setting.help.is_empty());
        }
    }

    #[test]
    fn a_misspelt_name_finds_its_neighbour_and_a_strange_one_none() {
        let keys = || SETTINGS.iter().filter_map(|setting| setting.key);
        assert_eq!(nearest("retenton", keys()), Some("retention"));
        assert_eq!(nearest("Secret-Id", keys()), Some("secret_id"));
        assert_eq!(nearest("colour", keys()), None);
    }
}
