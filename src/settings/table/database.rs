//! The databases: the one that is read, and the one that a restore fills.

use super::super::setting::{Kind, Setting, flag, kind, plain};

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
];
