//! The `.env` of the working folder, which the user has not named: pgstow reads it only because it is there. So it
//! counts only if no other user than this one and root can write it. But a folder that was cloned or unpacked belongs
//! to this user too, with everything that its author wrote. So the file may name the database, the stores, and how
//! backups are made and kept, and nothing else: no programs, no files that hold keys or passwords, no walls of a
//! drill, no trusted keys. And credentials from elsewhere go to no place that it names: see `source::found` and
//! `parse::found`.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::geteuid;

use super::libpq;
use super::problems::Problems;
use super::{known, secret_file};
use crate::run::named_file;

/// Longer than any file of settings.
pub const LONGEST: u64 = 1 << 20;

/// Its text, or a warning that says why pgstow does not read it. A missing file gives neither.
pub fn read(path: &Path, problems: &mut Problems, warnings: &mut Vec<String>) -> Option<String> {
    let file = match open(path) {
        Ok(file) => file?,
        Err(Refused::Unsafe(why)) => {
            warnings.push(format!("{} was not read: {why}", path.display()));
            return None;
        }
        // It may belong to another program. If a setting in it is needed, pgstow reports that setting as missing.
        Err(Refused::Unreadable(error)) => {
            warnings.push(format!(
                "{} was not read: {error}; if it holds settings of pgstow, let this user read it",
                path.display()
            ));
            return None;
        }
    };
    let mut text = String::new();
    match file.take(LONGEST).read_to_string(&mut text) {
        Ok(_) => Some(text),
        Err(error) => {
            problems.unreadable(path, ".env", &error);
            None
        }
    }
}

enum Refused {
    Unsafe(String),
    Unreadable(std::io::Error),
}

impl From<std::io::Error> for Refused {
    fn from(error: std::io::Error) -> Self {
        Self::Unreadable(error)
    }
}

/// `None` if there is no such file. It may be a folder: Python virtual environments often have this name.
fn open(path: &Path) -> Result<Option<File>, Refused> {
    let link = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    trusted(link.uid())?;
    let file = match named_file::open_any(path) {
        Ok(file) => file,
        // The target of the link does not exist.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(None);
    }
    // Checked on the opened file, whatever link led to it.
    trusted(metadata.uid())?;
    if metadata.mode() & 0o022 != 0 {
        return Err(Refused::Unsafe(
            "other users than its owner can write it: run chmod go-w on it, or name it with --env-file".to_owned(),
        ));
    }
    if metadata.len() > LONGEST {
        return Err(Refused::Unsafe(
            "it is longer than 1 MiB, and so no file of settings".to_owned(),
        ));
    }
    Ok(Some(file))
}

fn trusted(owner: u32) -> Result<(), Refused> {
    if owner == 0 || owner == geteuid().as_raw() {
        return Ok(());
    }
    Err(Refused::Unsafe(format!(
        "it belongs to another user (uid {owner}): if you trust it, name it with --env-file"
    )))
}

/// What such a file may set, besides the older systems' names, and libpq's that choose no files. All other settings
/// need the user's own word, also each new one, until it is added here.
const MAY_SAY: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_CA_BUNDLE",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_ECS",
    "AWS_ENDPOINT_URL_KMS",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_SECRETS_MANAGER",
    "AWS_ENDPOINT_URL_SNS",
    "AWS_REGION",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "BACKUP_COMPRESSION",
    "BACKUP_COMPRESSION_LEVEL",
    "BACKUP_CONNECT_TIMEOUT_SECONDS",
    "BACKUP_DB_AUTH",
    "BACKUP_FORMAT",
    "BACKUP_INCREMENTAL",
    "BACKUP_INCREMENTAL_MAX_AGE",
    "BACKUP_JOBS",
    "BACKUP_KEEP_LAST",
    "BACKUP_LEASE_SECONDS",
    "BACKUP_LOCK_WAIT_SECONDS",
    "BACKUP_MAX_AGE",
    "BACKUP_MAX_RATE",
    "BACKUP_MAX_RUNS",
    "BACKUP_MD5",
    "BACKUP_MEMORY",
    "BACKUP_METRICS",
    "BACKUP_METRICS_NAMESPACE",
    "BACKUP_METRICS_SERVICE",
    "BACKUP_NICE",
    "BACKUP_NICE_MAX_LAG",
    "BACKUP_NICE_MAX_SESSIONS",
    "BACKUP_ON_CHANGED_TABLES",
    "BACKUP_PG_DUMP_MAJOR",
    "BACKUP_PITR",
    "BACKUP_PROVE_CHAIN",
    "BACKUP_RETENTION",
    "BACKUP_RETENTION_DAYS",
    "BACKUP_S3_CHECKSUMS",
    "BACKUP_S3_KMS_KEY_ID",
    "BACKUP_S3_MAX_PARTS",
    "BACKUP_S3_PART_SIZE",
    "BACKUP_S3_PATH_STYLE",
    "BACKUP_S3_RETRY_SECONDS",
    "BACKUP_S3_SSE",
    "BACKUP_S3_STORAGE_CLASS",
    "BACKUP_S3_TAGGING",
    "BACKUP_SECRET_ID",
    "BACKUP_SHUTDOWN_SECONDS",
    "BACKUP_SNS_TOPIC_ARN",
    "BACKUP_STALL_SECONDS",
    "BACKUP_STORE",
    "BACKUP_TARGET_AUTH",
    "BACKUP_TARGET_HOST",
    "BACKUP_TARGET_NAME",
    "BACKUP_TARGET_PASSWORD",
    "BACKUP_TARGET_PORT",
    "BACKUP_TARGET_SECRET_ID",
    "BACKUP_TARGET_URL",
    "BACKUP_TARGET_USER",
    "BACKUP_THREADS",
    "BACKUP_TIMEZONE",
    "DATABASE_URL",
    "DB_HOST",
    "DB_NAME",
    "DB_PASSWORD",
    "DB_PORT",
    "DB_USER",
    "LOG_FORMAT",
    "PGSSLMODE",
    "PGSSLROOTCERT",
    "RUST_LOG",
];

/// These are errors, not warnings: if pgstow ignored them, a backup would not be signed, or pgstow would accept a
/// backup that no trusted key has signed.
const REFUSED: &[&str] = &[
    "BACKUP_SIGN_KEY",
    "BACKUP_SIGN_KEY_PASSWORD",
    "BACKUP_SIGN_KEY_PASSWORD_FILE",
    "BACKUP_VERIFY_KEYS",
];

/// Removes the variables that such a file may not set.
pub fn leave_out(pairs: &mut Vec<(String, String)>, problems: &mut Problems, warnings: &mut Vec<String>) {
    pairs.retain(|(name, text)| {
        if text.is_empty() || may_say(name) {
            return true;
        }
        let named = "name it with --env-file";
        if REFUSED.contains(&name.as_str()) {
            problems.add(format!(
                "{name} from .env: a .env found in the working folder may not choose the keys that sign or are \
                 trusted; {named}, or set {name} in the environment"
            ));
        } else {
            warnings.push(format!(
                "{name} from .env was ignored: a .env found in the working folder may not choose {}; {named}, or set \
                 {name} in the environment",
                what(name)
            ));
        }
        false
    });
}

fn may_say(name: &str) -> bool {
    if libpq::chooses_files(name) || secret_file::of_variable(name).is_some() {
        return false;
    }
    let ours = known::by_variable(name).is_some();
    // Variables of other programs do not matter, unless a user may think that they are pgstow's.
    MAY_SAY.contains(&name) || (!ours && !chooses_programs(name))
}

fn what(name: &str) -> &'static str {
    match name {
        name if chooses_programs(name) => "programs",
        name if libpq::chooses_files(name) => "libpq's files",
        name if secret_file::of_variable(name).is_some() => "files that hold secrets",
        "PGSSLCERT" | "PGSSLKEY" => "keys",
        "BACKUP_METRICS_FILE" | "BACKUP_STATE_DIR" => "what is written beside backups",
        _ => "what pgstow may do",
    }
}

fn chooses_programs(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    name.ends_with("_BIN") || name.ends_with("_COMMAND") || name.contains("_HOOK")
}

#[cfg(test)]
mod tests {
    use super::super::table::SETTINGS;
    use super::*;

    /// Settings that need the user's own word. Add a new setting to one of the two lists.
    const NOT: &[&str] = &[
        "BACKUP_ADOPT",
        "BACKUP_ALLOWED_HOSTS",
        "BACKUP_ALLOW_DRILL",
        "BACKUP_ALLOW_RESTORE",
        "BACKUP_API_TOKENS_FILE",
        "BACKUP_DRILL_UNCONFINED",
        "BACKUP_ECS_ASSIGN_PUBLIC_IP",
        "BACKUP_ECS_CLUSTER",
        "BACKUP_ECS_CONTAINER",
        "BACKUP_ECS_SECURITY_GROUPS",
        "BACKUP_ECS_SUBNETS",
        "BACKUP_ECS_TASK_DEFINITION",
        "BACKUP_HANDOVER",
        "BACKUP_JWT_AUDIENCE",
        "BACKUP_JWT_DEFAULT_ROLE",
        "BACKUP_JWT_ISSUER",
        "BACKUP_JWT_SECRET",
        "BACKUP_LISTEN",
        "BACKUP_LOG_DAYS",
        "BACKUP_LOG_DIR",
        "BACKUP_METRICS_FILE",
        "BACKUP_PG_BIN",
        "BACKUP_SIGN_KEY",
        "BACKUP_SIGN_KEY_PASSWORD",
        "BACKUP_SIGN_KEY_PASSWORD_FILE",
        "BACKUP_STATE_DIR",
        "BACKUP_STORE_CREATE",
        "BACKUP_TRUSTED_PROXIES",
        "BACKUP_USERS_FILE",
        "BACKUP_VERIFY_KEYS",
        "PGSSLCERT",
        "PGSSLKEY",
    ];

    #[test]
    fn of_every_setting_it_is_known_whether_a_found_file_may_say_it() {
        for setting in SETTINGS {
            let name = setting.variable;
            let listed = (MAY_SAY.contains(&name), NOT.contains(&name));
            assert!(listed.0 != listed.1, "{name}: {listed:?}");
            assert_eq!(may_say(name), listed.0, "{name}");
        }
        for name in MAY_SAY.iter().chain(NOT) {
            assert!(known::by_variable(name).is_some(), "{name}");
        }
    }

    #[test]
    fn a_found_file_names_no_file_that_holds_a_secret() {
        let secrets = SETTINGS.iter().map(|setting| setting.variable);
        let others = [
            "PGPASSWORD",
            "MINIO_ACCESS_KEY",
            "MINIO_SECRET_KEY",
            "DB_HOST",
            "DB_USER",
        ];
        for name in secrets.chain(others).map(|name| format!("{name}_FILE")) {
            let known = secret_file::of_variable(&name).is_some() || known::by_variable(&name).is_some();
            assert!(!known || !may_say(&name), "{name}");
        }
        for file in ["PGPASSFILE", "PGSERVICE", "PGSERVICEFILE", "PGSYSCONFDIR"] {
            assert!(!may_say(file), "{file}");
        }
    }
}
