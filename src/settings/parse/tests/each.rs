//! Each setting of the table with a wrong value: the commands that use the setting refuse it, and no others.

use super::*;
use crate::settings::SETTINGS;
use Uses::{Backup, Drill, Keys, Prune, PrunePlan, Restore, Rules, RulesShown, Status, Store, Verify};

/// All commands except `doctor`, which only shows wrong values.
const COMMANDS: [Uses; 11] = [
    Backup, Restore, Verify, Drill, Prune, PrunePlan, Rules, RulesShown, Status, Store, Keys,
];
const NONE: &[Uses] = &[];
const ASKING_STORES: &[Uses] = &[Backup, Restore, Verify, Drill, Prune, PrunePlan, Rules, Status, Store];
const RETAINING: &[Uses] = &[Backup, Prune, PrunePlan, Rules, RulesShown, Status];
const KEEPING: &[Uses] = &[Backup, Verify, Drill, Prune, PrunePlan, Status];
const TAGGING: &[Uses] = &[Backup, Verify, Drill, Prune, PrunePlan, Rules, Status];
const TRUSTING: &[Uses] = &[Backup, Restore, Verify, Drill, Prune, PrunePlan, Status, Store];
const RUNNING: &[Uses] = &[Backup, Restore, Drill];
const TELLING: &[Uses] = &[Backup, Verify, Drill];

const BUCKET: (&str, &str) = ("BACKUP_STORE", "s3://bucket");
const CONTROL: &str = "\u{1}";

/// The setting, a wrong value (or one that contradicts the other settings), the settings that it needs to count, and
/// the commands that refuse it.
type Row = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [Uses],
);

const ROWS: &[Row] = &[
    ("DATABASE_URL", "postgres://u@h:x/d", &[], &[Backup]),
    ("BACKUP_SECRET_ID", "one", &[], &[Backup]),
    ("BACKUP_DB_AUTH", "x", &[], &[Backup]),
    ("BACKUP_TARGET_URL", "postgres://u@h:x/d", &[], &[Restore]),
    ("BACKUP_TARGET_SECRET_ID", "one", &[], &[Restore]),
    ("BACKUP_TARGET_HOST", "other", &[], &[Restore]),
    ("BACKUP_TARGET_PORT", "x", &[], &[Restore]),
    ("BACKUP_TARGET_NAME", "other", &[], &[Restore]),
    ("BACKUP_TARGET_USER", "other", &[], &[Restore]),
    ("BACKUP_TARGET_AUTH", "x", &[], &[Restore]),
    (
        "BACKUP_STORE",
        "s3://",
        &[],
        &[
            Backup, Restore, Verify, Drill, Prune, PrunePlan, Rules, RulesShown, Status, Store,
        ],
    ),
    ("BACKUP_STORE_CREATE", "x", &[], &[Backup]),
    ("BACKUP_ADOPT", "x", &[], &[Backup]),
    ("BACKUP_RETENTION", "x", &[], RETAINING),
    ("BACKUP_RETENTION_DAYS", "x", &[], RETAINING),
    ("BACKUP_KEEP_LAST", "x", &[], KEEPING),
    ("BACKUP_PITR", "x", &[], RETAINING),
    ("BACKUP_MAX_AGE", "x", &[], &[Status]),
    ("BACKUP_INCREMENTAL_MAX_AGE", "x", &[], &[Status]),
    ("BACKUP_COMPRESSION", "x", &[], &[Backup]),
    ("BACKUP_COMPRESSION_LEVEL", "x", &[], &[Backup]),
    ("BACKUP_FORMAT", "x", &[], &[Backup]),
    ("BACKUP_JOBS", "x", &[], RUNNING),
    ("BACKUP_THREADS", "x", &[], &[Backup, Drill]),
    ("BACKUP_MEMORY", "x", &[], &[Backup]),
    ("BACKUP_MAX_RATE", "x", &[], &[Backup]),
    ("BACKUP_NICE", "x", &[], &[Backup]),
    ("BACKUP_NICE_MAX_LAG", "x", &[], &[Backup]),
    ("BACKUP_NICE_MAX_SESSIONS", "x", &[], &[Backup]),
    ("BACKUP_SIGN_KEY", "arn:x", &[], TELLING),
    (
        "BACKUP_SIGN_KEY_PASSWORD",
        "x",
        &[("BACKUP_SIGN_KEY_PASSWORD_FILE", "file")],
        &[Backup, Verify, Drill, Keys],
    ),
    (
        "BACKUP_SIGN_KEY_PASSWORD_FILE",
        "file",
        &[("BACKUP_SIGN_KEY_PASSWORD", "x")],
        &[Backup, Verify, Drill, Keys],
    ),
    ("BACKUP_VERIFY_KEYS", "arn:x", &[], TRUSTING),
    ("BACKUP_SNS_TOPIC_ARN", "x", &[], TELLING),
    ("BACKUP_METRICS", "x", &[], TELLING),
    ("BACKUP_METRICS_NAMESPACE", "AWS/x", &[], TELLING),
    ("BACKUP_METRICS_SERVICE", ":x", &[], TELLING),
    ("BACKUP_METRICS_FILE", "folder/", &[], TELLING),
    ("LOG_FORMAT", "xml", &[], NONE),
    ("RUST_LOG", "zz:://", &[], NONE),
    ("DB_HOST", "other", &[], &[Backup]),
    ("DB_PORT", "x", &[], &[Backup]),
    ("DB_NAME", "other", &[], &[Backup]),
    ("DB_USER", "other", &[], &[Backup]),
    ("PGSSLMODE", "x", &[], &[Backup, Restore]),
    ("BACKUP_PG_BIN", ":", &[], RUNNING),
    ("BACKUP_PG_DUMP_MAJOR", "x", &[], &[Backup, Drill]),
    ("BACKUP_LOCK_WAIT_SECONDS", "x", &[], RUNNING),
    ("BACKUP_INCREMENTAL", "x", &[], &[Backup]),
    ("BACKUP_ON_CHANGED_TABLES", "x", &[], &[Backup]),
    ("BACKUP_STALL_SECONDS", "x", &[], &[Backup, Restore]),
    ("BACKUP_CONNECT_TIMEOUT_SECONDS", "x", &[], RUNNING),
    ("BACKUP_LEASE_SECONDS", "x", &[], &[Backup]),
    ("BACKUP_MD5", "x", &[], &[Backup]),
    ("BACKUP_PROVE_CHAIN", "x", &[], &[Backup]),
    ("BACKUP_HANDOVER", "x", &[], NONE),
    ("BACKUP_ECS_CLUSTER", CONTROL, &[], NONE),
    ("BACKUP_ECS_TASK_DEFINITION", CONTROL, &[], NONE),
    ("BACKUP_ECS_CONTAINER", CONTROL, &[], NONE),
    ("BACKUP_ECS_SUBNETS", ",", &[], NONE),
    ("BACKUP_ECS_SECURITY_GROUPS", ",", &[], NONE),
    ("BACKUP_ECS_ASSIGN_PUBLIC_IP", "x", &[], NONE),
    ("BACKUP_ALLOW_RESTORE", "x", &[], NONE),
    ("BACKUP_ALLOW_DRILL", "x", &[], NONE),
    ("BACKUP_DRILL_UNCONFINED", "x", &[], &[Drill]),
    ("BACKUP_S3_MAX_PARTS", "x", &[BUCKET], &[Backup]),
    ("BACKUP_S3_PART_SIZE", "x", &[BUCKET], &[Backup]),
    ("BACKUP_S3_RETRY_SECONDS", "x", &[BUCKET], ASKING_STORES),
    ("BACKUP_S3_CHECKSUMS", "x", &[BUCKET], ASKING_STORES),
    ("BACKUP_S3_TAGGING", "x", &[BUCKET], TAGGING),
    ("AWS_REQUEST_CHECKSUM_CALCULATION", "x", &[BUCKET], ASKING_STORES),
    ("BACKUP_S3_SSE", "x", &[BUCKET], &[Backup]),
    ("BACKUP_S3_KMS_KEY_ID", CONTROL, &[BUCKET], &[Backup]),
    ("BACKUP_S3_STORAGE_CLASS", "?", &[BUCKET], &[Backup]),
    ("BACKUP_S3_PATH_STYLE", "x", &[BUCKET], ASKING_STORES),
    ("AWS_REGION", "x/", &[BUCKET], ASKING_STORES),
    ("AWS_DEFAULT_REGION", "x/", &[BUCKET], ASKING_STORES),
    ("AWS_ENDPOINT_URL", "x", &[BUCKET], ASKING_STORES),
    ("AWS_ENDPOINT_URL_S3", "x", &[BUCKET], ASKING_STORES),
    (
        "AWS_ENDPOINT_URL_SECRETS_MANAGER",
        "x",
        &[("DATABASE_URL", ""), ("BACKUP_SECRET_ID", "one")],
        &[Backup],
    ),
    (
        "AWS_ENDPOINT_URL_SNS",
        "x",
        &[("BACKUP_SNS_TOPIC_ARN", "arn:aws:sns:eu-central-1:000000000000:backups")],
        TELLING,
    ),
    ("AWS_ENDPOINT_URL_ECS", "x", &[BUCKET], NONE),
    (
        "AWS_ENDPOINT_URL_KMS",
        "x",
        &[("BACKUP_SIGN_KEY", "arn:aws:kms:eu-central-1:000000000000:key/one")],
        TELLING,
    ),
    ("AWS_CA_BUNDLE", CONTROL, &[BUCKET], ASKING_STORES),
    ("BACKUP_LISTEN", "x", &[], NONE),
    ("BACKUP_JWT_SECRET", "x", &[], NONE),
    ("BACKUP_JWT_DEFAULT_ROLE", "x", &[], NONE),
    ("BACKUP_TRUSTED_PROXIES", "x", &[], NONE),
    ("BACKUP_TIMEZONE", "x", &[], NONE),
    ("BACKUP_MAX_RUNS", "0", &[], NONE),
    ("BACKUP_LOG_DAYS", "0", &[], NONE),
    ("BACKUP_SHUTDOWN_SECONDS", "x", &[], NONE),
];

/// Any text is a valid value of these. `unused` tests other problems with them, such as a missing file.
const ANY_TEXT: [&str; 15] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "BACKUP_ALLOWED_HOSTS",
    "BACKUP_API_TOKENS_FILE",
    "BACKUP_JWT_AUDIENCE",
    "BACKUP_JWT_ISSUER",
    "BACKUP_LOG_DIR",
    "BACKUP_STATE_DIR",
    "BACKUP_TARGET_PASSWORD",
    "BACKUP_USERS_FILE",
    "DB_PASSWORD",
    "PGSSLCERT",
    "PGSSLKEY",
    "PGSSLROOTCERT",
];

fn place(row: &Row, uses: Uses) -> Place {
    let (variable, bad, beside, _) = row;
    let usual = [
        ("BACKUP_STORE", "/srv/backups"),
        ("DATABASE_URL", "postgres://u@h/d"),
        ("BACKUP_TARGET_URL", "postgres://u:p@h/d"),
    ];
    let mut place = env(&usual).env(beside).env(&[(*variable, *bad)]);
    place.input.uses = uses;
    place
}

#[test]
fn a_setting_that_is_wrong_stops_the_commands_that_use_it_and_no_other() {
    for row in ROWS {
        let (variable, _, _, users) = row;
        for uses in COMMANDS {
            match Settings::load(&place(row, uses).input) {
                Ok(settings) => {
                    assert!(!users.contains(&uses), "{variable} does not stop {uses:?}");
                    let told = settings.warnings.iter().any(|warning| {
                        warning.contains(variable) && warning.ends_with("(this command does not need it)")
                    });
                    assert!(told, "{variable}, {uses:?}: {:?}", settings.warnings);
                }
                Err(error) => {
                    let message = error.message();
                    assert!(users.contains(&uses), "{variable} stops {uses:?}: {message}");
                    assert!(message.contains(variable), "{variable}: {message}");
                }
            }
        }
        let shown = place(row, Uses::Doctor).load().problems;
        assert!(shown.iter().any(|problem| problem.contains(variable)), "{shown:?}");
        // A process that serves any command uses all of them.
        let serves_all = Settings::load(&place(row, Uses::All).input);
        let is_of_logs = matches!(*variable, "LOG_FORMAT" | "RUST_LOG");
        assert_eq!(serves_all.is_ok(), is_of_logs, "{variable}");
    }
}

#[test]
fn no_setting_of_the_table_is_left_out_here() {
    for setting in SETTINGS {
        let has_row = ROWS
            .iter()
            .filter(|(variable, ..)| *variable == setting.variable)
            .count();
        let is_any = ANY_TEXT.contains(&setting.variable);
        assert_eq!(has_row + usize::from(is_any), 1, "{}", setting.variable);
    }
    assert_eq!(ROWS.len() + ANY_TEXT.len(), SETTINGS.len());
}
