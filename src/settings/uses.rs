//! Which settings a command uses. A wrong value of another setting must not stop it, least of all a restore.

/// A command, or a group of commands, that uses the same settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Uses {
    /// All settings, for a process that serves any command.
    #[default]
    All,
    Backup,
    /// Shows wrong values, and continues.
    Doctor,
    Restore,
    Verify,
    /// Verifies, and restores into a server of its own.
    Drill,
    /// Removes expired backups.
    Prune,
    /// Shows which backups `prune` would remove.
    PrunePlan,
    /// Installs the rules by which a bucket removes expired backups.
    Rules,
    /// Shows those rules, without a request to a store.
    RulesShown,
    Status,
    /// Reads backups in the store.
    Store,
    /// Makes keys, in the files that its arguments name.
    Keys,
    /// Drops a replication slot, whatever became of the store.
    Slot,
}

/// How to log in to the source.
const OF_LOGINS: &[&str] = &[
    "AWS_",
    "BACKUP_CONNECT_TIMEOUT_SECONDS",
    "BACKUP_DB_AUTH",
    "BACKUP_SECRET_ID",
    "DATABASE_URL",
    "DB_",
    "PGPASSWORD",
];
/// Which database a backup reads, and how.
const OF_BACKUPS: &[&str] = &[
    "DATABASE_URL",
    "DB_",
    "BACKUP_SECRET_ID",
    "BACKUP_ADOPT",
    "BACKUP_COMPRESSION",
    "BACKUP_COMPRESSION_LEVEL",
    "BACKUP_DB_AUTH",
    "BACKUP_ENCRYPT",
    "BACKUP_FORMAT",
    "BACKUP_INCREMENTAL",
    "BACKUP_LEASE_SECONDS",
    "BACKUP_MAX_RATE",
    "BACKUP_MD5",
    "BACKUP_MEMORY",
    "BACKUP_NICE",
    "BACKUP_ON_CHANGED_TABLES",
    "BACKUP_PROVE_CHAIN",
    "BACKUP_REMOTE",
    "BACKUP_S3_KMS_KEY_ID",
    "BACKUP_S3_MAX_PARTS",
    "BACKUP_S3_PART_SIZE",
    "BACKUP_S3_SSE",
    "BACKUP_S3_STORAGE_CLASS",
    "BACKUP_STORE_CREATE",
];
const OF_RESTORES: &[&str] = &["BACKUP_TARGET_"];
/// Backups and restores use these.
const OF_SESSIONS: &[&str] = &["BACKUP_STALL_SECONDS", "PGPASSWORD"];
/// For commands that set or read tags.
const OF_TAGS: &[&str] = &["BACKUP_S3_TAGGING"];
const OF_SIGNERS: &[&str] = &["BACKUP_SIGN_KEY"];
/// For commands that read manifests.
const OF_TRUST: &[&str] = &["BACKUP_VERIFY_KEYS"];
/// How many of the newest backups stay.
const OF_THE_NEWEST: &[&str] = &["BACKUP_KEEP_LAST"];
/// How long the other backups stay.
const OF_RETENTION: &[&str] = &["BACKUP_PITR", "BACKUP_RETENTION"];
const OF_STATUS: &[&str] = &["BACKUP_INCREMENTAL_MAX_AGE", "BACKUP_MAX_AGE"];
const OF_PROGRAMS: &[&str] = &[
    "BACKUP_CONNECT_TIMEOUT_SECONDS",
    "BACKUP_JOBS",
    "BACKUP_LOCK_WAIT_SECONDS",
    "BACKUP_PG_BIN",
];
/// For commands that read a database. A drill reads its throwaway database, to compare.
const OF_READERS: &[&str] = &["BACKUP_PG_DUMP_MAJOR", "BACKUP_THREADS"];
const OF_TELLING: &[&str] = &["BACKUP_METRICS", "BACKUP_SNS_TOPIC_ARN"];
const OF_DRILLS: &[&str] = &["BACKUP_DRILL_UNCONFINED"];
/// What a Lambda function accepts, and which container task takes over its backups.
const OF_FUNCTIONS: &[&str] = &[
    "AWS_ENDPOINT_URL_ECS",
    "BACKUP_ALLOW_",
    "BACKUP_ECS_",
    "BACKUP_HANDOVER",
];
/// How `serve` is reached, and by whom.
const OF_SERVING: &[&str] = &[
    "BACKUP_ALLOWED_HOSTS",
    "BACKUP_API_TOKENS_FILE",
    "BACKUP_JWT_",
    "BACKUP_LISTEN",
    "BACKUP_LOG_",
    "BACKUP_MAX_RUNS",
    "BACKUP_SHUTDOWN_SECONDS",
    "BACKUP_TIMEZONE",
    "BACKUP_TRUSTED_PROXIES",
    "BACKUP_USERS_FILE",
];
/// A wrong value of these never stops a command: the default shows enough.
const OF_LOGS: &[&str] = &["LOG_FORMAT", "RUST_LOG"];

/// The groups of settings, with the commands that use them. A setting that is in none of these groups stops every
/// command.
fn groups() -> [(&'static [&'static str], &'static [Uses]); 15] {
    use Uses::{Backup, Drill, Prune, PrunePlan, Restore, Rules, RulesShown, Status, Store, Verify};
    [
        (OF_BACKUPS, &[Backup]),
        (OF_RESTORES, &[Restore]),
        (OF_SESSIONS, &[Backup, Restore]),
        (OF_TAGS, &[Backup, Verify, Drill, Prune, PrunePlan, Rules, Status]),
        (OF_SIGNERS, &[Backup, Verify, Drill]),
        (
            OF_TRUST,
            &[Backup, Restore, Verify, Drill, Prune, PrunePlan, Status, Store],
        ),
        (OF_THE_NEWEST, &[Backup, Verify, Drill, Prune, PrunePlan, Status]),
        (OF_RETENTION, &[Backup, Prune, PrunePlan, Rules, RulesShown, Status]),
        (OF_STATUS, &[Status]),
        (OF_PROGRAMS, &[Backup, Restore, Drill]),
        (OF_READERS, &[Backup, Drill]),
        (OF_TELLING, &[Backup, Verify, Drill]),
        (OF_DRILLS, &[Drill]),
        (OF_FUNCTIONS, &[]),
        (OF_SERVING, &[]),
    ]
}

impl Uses {
    /// Whether a wrong value of this setting stops the command.
    pub fn go_by(self, variable: &str) -> bool {
        let is_of = |group: &[&str]| group.iter().any(|start| variable.starts_with(start));
        if is_of(OF_LOGS) {
            return false;
        }
        match self {
            Self::All => true,
            Self::Doctor => false,
            // `keygen` takes only the new key's password from settings.
            Self::Keys => variable.starts_with("BACKUP_SIGN_KEY_PASSWORD"),
            Self::Slot => is_of(OF_LOGINS),
            _ => {
                // A setting whose name begins with another's belongs to its own group.
                let length = |group: &[&str]| {
                    let starts = group.iter().filter(|start| variable.starts_with(**start));
                    starts.map(|start| start.len()).max().unwrap_or(0)
                };
                let groups = groups();
                let longest = groups.iter().map(|(group, _)| length(group)).max().unwrap_or(0);
                let mut own = groups.iter().filter(|(group, _)| length(group) == longest);
                longest == 0 || own.all(|(_, users)| users.contains(&self))
            }
        }
    }

    /// Whether the command sends requests to a store.
    pub fn asks_stores(self) -> bool {
        !matches!(self, Self::Keys | Self::RulesShown | Self::Slot)
    }

    /// Whether the command removes backups, or installs rules that do.
    pub fn removes(self) -> bool {
        matches!(self, Self::Prune | Self::Rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_goes_by_its_own_settings_alone() {
        assert!(Uses::All.go_by("BACKUP_COMPRESSION") && Uses::Restore.go_by("BACKUP_TARGET_URL"));
        assert!(!Uses::Restore.go_by("BACKUP_RETENTION_DAYS") && !Uses::Store.go_by("DATABASE_URL"));
        assert!(Uses::Rules.go_by("BACKUP_RETENTION") && Uses::Store.go_by("BACKUP_STORE"));
        assert!(!Uses::Doctor.go_by("BACKUP_STORE"));
        assert!(!Uses::Backup.go_by("BACKUP_TARGET_PORT") && Uses::Backup.go_by("BACKUP_LEASE_SECONDS"));
        assert!(!Uses::Store.go_by("DB_PASSWORD") && Uses::Backup.go_by("DB_PASSWORD"));
        assert!(Uses::Restore.go_by("PGPASSWORD") && !Uses::Verify.go_by("PGPASSWORD"));
        assert!(!Uses::Restore.go_by("BACKUP_S3_TAGGING") && Uses::Verify.go_by("BACKUP_S3_TAGGING"));
        assert!(!Uses::Keys.go_by("BACKUP_STORE") && Uses::Keys.go_by("BACKUP_SIGN_KEY_PASSWORD"));
        assert!(Uses::Slot.go_by("DATABASE_URL") && !Uses::Slot.go_by("BACKUP_STORE"));
        assert!(!Uses::All.go_by("RUST_LOG") && !Uses::All.go_by("LOG_FORMAT"));
        assert!(!Uses::Store.go_by("BACKUP_SIGN_KEY") && Uses::Verify.go_by("BACKUP_SIGN_KEY"));
        for other in [
            "LEASE_SECONDS",
            "S3_PART_SIZE",
            "S3_MAX_PARTS",
            "ALLOW_RESTORE",
            "DRILL_UNCONFINED",
        ] {
            assert!(!Uses::Restore.go_by(&format!("BACKUP_{other}")), "{other}");
        }
    }
}
