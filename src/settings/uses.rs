//! Which settings a command goes by: what is wrong with another must not stop it, least of all a restore.

/// What a command needs of the settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Uses {
    /// Everything: whatever serves any command.
    #[default]
    All,
    Backup,
    /// Shows what is wrong, and goes on.
    Doctor,
    Restore,
    /// Drills, too.
    Verify,
    /// Removes what is not kept any longer, or says by what rules a bucket does.
    Retention,
    /// Shows what is kept how long.
    RetentionShown,
    /// Reads what is in the store.
    Store,
    /// Makes keys, in files that it is told.
    Keys,
}

/// How a backup is made, and of what.
const OF_BACKUPS: &[&str] = &[
    "DATABASE_URL",
    "DB_",
    "BACKUP_SECRET_ID",
    "BACKUP_ADOPT",
    "BACKUP_COMPRESSION",
    "BACKUP_COMPRESSION_LEVEL",
    "BACKUP_DB_AUTH",
    "BACKUP_ECS_",
    "BACKUP_ENCRYPT",
    "BACKUP_FORMAT",
    "BACKUP_HANDOVER",
    "BACKUP_MAX_RATE",
    "BACKUP_MD5",
    "BACKUP_NICE",
    "BACKUP_ON_CHANGED_TABLES",
    "BACKUP_REMOTE",
    "BACKUP_S3_KMS_KEY_ID",
    "BACKUP_S3_MAX_PARTS",
    "BACKUP_S3_PART_SIZE",
    "BACKUP_S3_SSE",
    "BACKUP_S3_STORAGE_CLASS",
    "BACKUP_STORE_CREATE",
];
const OF_RESTORES: &[&str] = &["BACKUP_TARGET_"];
/// What either goes by.
const OF_SESSIONS: &[&str] = &["PGPASSWORD"];
/// How objects are written.
const OF_WRITERS: &[&str] = &["BACKUP_S3_TAGGING"];
const OF_RETENTION: &[&str] = &["BACKUP_KEEP_LAST", "BACKUP_MAX_AGE", "BACKUP_RETENTION"];
const OF_PROGRAMS: &[&str] = &[
    "BACKUP_CONNECT_TIMEOUT_SECONDS",
    "BACKUP_JOBS",
    "BACKUP_LOCK_WAIT_SECONDS",
    "BACKUP_MEMORY",
    "BACKUP_PG_",
    "BACKUP_STALL_SECONDS",
    "BACKUP_THREADS",
];
const OF_TELLING: &[&str] = &["BACKUP_METRICS", "BACKUP_SNS_TOPIC_ARN"];
const OF_LEASES: &[&str] = &["BACKUP_LEASE_SECONDS"];
const OF_DRILLS: &[&str] = &["BACKUP_DRILL_UNCONFINED"];
/// What somebody who invokes a function may ask it for.
const OF_EVENTS: &[&str] = &["BACKUP_ALLOW_"];

impl Uses {
    /// Whether it is stopped by what is wrong with this setting.
    pub fn go_by(self, variable: &str) -> bool {
        // The default shows enough.
        if variable == "RUST_LOG" {
            return false;
        }
        let unused: &[&[&str]] = match self {
            Self::All => &[],
            Self::Doctor => return false,
            // Of a key's file, the password is all that may be given.
            Self::Keys => return variable.starts_with("BACKUP_SIGN_KEY_PASSWORD") || variable == "LOG_FORMAT",
            Self::Backup => &[OF_RESTORES, OF_DRILLS, OF_EVENTS],
            Self::Restore => &[
                OF_BACKUPS,
                OF_WRITERS,
                OF_RETENTION,
                OF_TELLING,
                OF_LEASES,
                OF_DRILLS,
                OF_EVENTS,
            ],
            Self::Verify => &[OF_BACKUPS, OF_RESTORES, OF_SESSIONS, OF_LEASES, OF_EVENTS],
            Self::Retention | Self::RetentionShown => &[
                OF_BACKUPS,
                OF_RESTORES,
                OF_SESSIONS,
                OF_PROGRAMS,
                OF_TELLING,
                OF_DRILLS,
                OF_EVENTS,
            ],
            Self::Store => &[
                OF_BACKUPS,
                OF_RESTORES,
                OF_SESSIONS,
                OF_WRITERS,
                OF_RETENTION,
                OF_PROGRAMS,
                OF_TELLING,
                OF_LEASES,
                OF_DRILLS,
                OF_EVENTS,
            ],
        };
        !unused
            .iter()
            .copied()
            .flatten()
            .any(|start| variable.starts_with(start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_goes_by_its_own_settings_alone() {
        assert!(Uses::All.go_by("BACKUP_COMPRESSION") && Uses::Restore.go_by("BACKUP_TARGET_URL"));
        assert!(!Uses::Restore.go_by("BACKUP_RETENTION_DAYS") && !Uses::Store.go_by("DATABASE_URL"));
        assert!(Uses::Retention.go_by("BACKUP_RETENTION") && Uses::Store.go_by("BACKUP_STORE"));
        assert!(!Uses::Doctor.go_by("BACKUP_STORE"));
        assert!(!Uses::Backup.go_by("BACKUP_TARGET_PORT") && Uses::Backup.go_by("BACKUP_LEASE_SECONDS"));
        assert!(!Uses::Store.go_by("DB_PASSWORD") && Uses::Backup.go_by("DB_PASSWORD"));
        assert!(Uses::Restore.go_by("PGPASSWORD") && !Uses::Verify.go_by("PGPASSWORD"));
        assert!(!Uses::Restore.go_by("BACKUP_S3_TAGGING") && Uses::Verify.go_by("BACKUP_S3_TAGGING"));
        assert!(!Uses::Keys.go_by("BACKUP_STORE") && Uses::Keys.go_by("BACKUP_SIGN_KEY_PASSWORD"));
        assert!(!Uses::All.go_by("RUST_LOG"));
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
