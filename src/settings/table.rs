//! The one table of settings. The flags of the command line, the variables that are read, the
//! keys of the TOML file, the help text and the guard on secrets all come from here.

use super::setting::{Kind, Setting, flag, kind, plain};

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
    plain(
        "BACKUP_DB_AUTH",
        "db.auth",
        "WAY",
        "password; or iam: log in with a token that the task's AWS credentials sign, as RDS and Aurora take it for a role \
         with rds_iam, made anew for each connection; needs TLS [default: password]",
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
        "Secrets Manager secret with the target's credentials; a URL without a password completes it",
    ),
    plain(
        "BACKUP_TARGET_HOST",
        "target_host",
        "HOST",
        "The target's host, where no URL names it",
    ),
    plain("BACKUP_TARGET_PORT", "target_port", "PORT", "Its port"),
    plain("BACKUP_TARGET_NAME", "target_name", "NAME", "The database's name there"),
    plain(
        "BACKUP_TARGET_USER",
        "target_user",
        "USER",
        "The role to log in as there",
    ),
    plain(
        "BACKUP_TARGET_AUTH",
        "target_auth",
        "WAY",
        "As BACKUP_DB_AUTH, for the target [default: password]",
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
        "BACKUP_STORE_CREATE",
        "store-create",
        "store_create",
        "WHEN",
        "What a backup does where a store's folder has no backup yet: auto begins there unless something says that \
         there were some (a mount that is missing, another folder of its name, other stores' manifests); always; \
         never [default: auto]",
    ),
    flag(
        "BACKUP_STATE_DIR",
        "state-dir",
        "state_dir",
        "FOLDER",
        "What this machine remembers between runs: the folders in which backups were made [default: $STATE_DIRECTORY of \
         systemd, /var/lib/pgstow for root, else ~/.local/state/pgstow]",
    ),
    kind(
        Kind::Switch,
        flag(
            "BACKUP_ADOPT",
            "adopt",
            "adopt",
            "BOOL",
            "The database is the one whose backups are in the store, though its server is another: it was moved, \
             restored or upgraded. Give it for one backup [default: false]",
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
        "Streams read from, or restored into, the database at once, as pg_dump's and pg_restore's -j [default: 1]",
    ),
    flag(
        "BACKUP_THREADS",
        "threads",
        "threads",
        "N",
        "Compression threads [default: the CPUs that the task has]",
    ),
    flag(
        "BACKUP_MEMORY",
        "memory",
        "memory",
        "SIZE",
        "Bytes of data that a backup may have in memory at once, beside the 30 MiB of the program itself [default: a \
         quarter of what the task has, at most 32 MiB and 32 MiB for each job or thread]",
    ),
    flag(
        "BACKUP_MAX_RATE",
        "max-rate",
        "max_rate",
        "SIZE",
        "Bytes per second that a backup reads from the database at most, as pg_basebackup's --max-rate [default: none]",
    ),
    kind(
        Kind::Switch,
        flag(
            "BACKUP_NICE",
            "nice",
            "nice",
            "BOOL",
            "Keep the server's load low: one stream, which pauses while replicas lag or sessions are many [default: false]",
        ),
    ),
    plain(
        "BACKUP_NICE_MAX_LAG",
        "nice_max_lag",
        "N",
        "Seconds by which a replica may lag before --nice pauses [default: 10]",
    ),
    plain(
        "BACKUP_NICE_MAX_SESSIONS",
        "nice_max_sessions",
        "N",
        "Active sessions of others before --nice pauses [default: 20]",
    ),
    flag(
        "BACKUP_SIGN_KEY",
        "sign-key",
        "sign_key",
        "FILE|KMS-ARN",
        "Sign manifests and the results of verifications: minisign's secret key (pgstow keygen, minisign -G), or the ARN \
         of a KMS key for SIGN_VERIFY of the spec ECC_NIST_EDWARDS25519 or ECC_NIST_P256",
    ),
    kind(
        Kind::Secret,
        plain(
            "BACKUP_SIGN_KEY_PASSWORD",
            "sign_key_password",
            "PASSWORD",
            "The password of that file, where it has one; of a key that `keygen` makes",
        ),
    ),
    plain(
        "BACKUP_SIGN_KEY_PASSWORD_FILE",
        "sign_key_password_file",
        "FILE",
        "A file with that password",
    ),
    kind(
        Kind::List,
        flag(
            "BACKUP_VERIFY_KEYS",
            "verify-key",
            "verify_keys",
            "KEY",
            "Refuse a backup whose manifest none of these keys has signed: public keys as files, as minisign's line of \
             base64, or as ARNs of KMS keys. Repeat it for several; several in the variable, separated by spaces",
        ),
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
        "How long a backup waits for a table's lock [default: 60]",
    ),
    plain(
        "BACKUP_ON_CHANGED_TABLES",
        "on_changed_tables",
        "WHAT",
        "fail, or warn and store the rest, if tables are always emptied or rewritten before their locks can be had \
         [default: fail]",
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
        "BACKUP_ALLOW_DRILL",
        "allow_drill",
        "BOOL",
        "Whether a Lambda function takes `verify` events with a drill, which runs functions of the database: false where \
         the function may read the database's secret and another one drills [default: true]",
    ),
    kind(
        Kind::Switch,
        flag(
            "BACKUP_DRILL_UNCONFINED",
            "unconfined",
            "drill_unconfined",
            "BOOL",
            "Drill although this system cannot confine the throwaway server, which runs functions of the database \
             [default: false]",
        ),
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
        "BACKUP_S3_TAGGING",
        "s3.tagging",
        "WHEN",
        "Object tags, by which a bucket's rules expire backups: on, off, or auto: without where the store refuses them \
         (R2, B2); prune --allow-delete applies the retention then [default: auto]",
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
    plain(
        "AWS_ENDPOINT_URL_KMS",
        "aws.endpoint_url_kms",
        "URL",
        "Endpoint for KMS alone, where it signs",
    ),
    plain(
        "AWS_CA_BUNDLE",
        "aws.ca_bundle",
        "FILE",
        "Certificate authorities (PEM) for AWS's services and S3-compatible stores, instead of the system's",
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
