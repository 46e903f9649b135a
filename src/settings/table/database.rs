//! The database that a backup reads, and the one that a restore fills.

use super::super::setting::{Setting, ValueKind, flag, kind, plain};

pub const SETTINGS: &[Setting] = &[
    kind(
        ValueKind::Secret,
        flag(
            "DATABASE_URL",
            "database-url",
            "database_url",
            "URL",
            "The database to read: postgres://user@host:5432/name?sslmode=verify-full. A password in a flag is \
             visible to other users of the machine; give it in DATABASE_URL or DB_PASSWORD instead",
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
        "How to log in: password, or iam. iam signs a new token with the task's AWS credentials for each connection, \
         as RDS and Aurora accept it for a role with rds_iam; it needs TLS [default: password]",
    ),
    kind(
        ValueKind::Secret,
        plain(
            "BACKUP_TARGET_URL",
            "target_url",
            "URL",
            "The database that `restore` fills, if --target does not name it",
        ),
    ),
    kind(
        ValueKind::Secret,
        plain(
            "BACKUP_TARGET_PASSWORD",
            "target_password",
            "PASSWORD",
            "The password for the target, if its URL has none",
        ),
    ),
    plain(
        "BACKUP_TARGET_SECRET_ID",
        "target_secret_id",
        "ID",
        "Secrets Manager secret with the target's credentials; a URL without user and password completes it",
    ),
    plain(
        "BACKUP_TARGET_HOST",
        "target_host",
        "HOST",
        "The target's host, if no URL names it",
    ),
    plain(
        "BACKUP_TARGET_PORT",
        "target_port",
        "PORT",
        "The target's port [default: 5432]",
    ),
    plain(
        "BACKUP_TARGET_NAME",
        "target_name",
        "NAME",
        "The name of the target's database",
    ),
    plain(
        "BACKUP_TARGET_USER",
        "target_user",
        "USER",
        "The role to log in to the target as",
    ),
    plain(
        "BACKUP_TARGET_AUTH",
        "target_auth",
        "WAY",
        "How to log in to the target: password or iam, as for BACKUP_DB_AUTH [default: password]",
    ),
];
