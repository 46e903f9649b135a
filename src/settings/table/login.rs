//! The parts of the login, as PostgreSQL's own programs name them.

use super::super::setting::{Kind, Setting, kind, plain};

pub const SETTINGS: &[Setting] = &[
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
];
