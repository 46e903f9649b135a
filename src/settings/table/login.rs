//! The parts of the login, as PostgreSQL's own programs name them.

use super::super::setting::{Setting, ValueKind, kind, plain};

pub const SETTINGS: &[Setting] = &[
    plain("DB_HOST", "db.host", "HOST", "The database's host, if no URL names it"),
    plain("DB_PORT", "db.port", "PORT", "The database's port [default: 5432]"),
    plain("DB_NAME", "db.name", "NAME", "The database's name"),
    plain("DB_USER", "db.user", "USER", "The role to log in as"),
    kind(
        ValueKind::Secret,
        plain("DB_PASSWORD", "db.password", "PASSWORD", "The role's password"),
    ),
    plain(
        "PGSSLMODE",
        "db.sslmode",
        "MODE",
        "libpq's sslmode (disable to verify-full), if the URL has none [default: prefer; require for iam, verify-full if \
         PGSSLROOTCERT is `system`]",
    ),
    plain(
        "PGSSLROOTCERT",
        "db.sslrootcert",
        "FILE",
        "File with the certificate authorities for verify-ca and verify-full, or `system` for those of the system",
    ),
    plain("PGSSLCERT", "db.sslcert", "FILE", "File with the client's certificate"),
    plain("PGSSLKEY", "db.sslkey", "FILE", "File with the client's key"),
];
