//! How `pgstow serve` is reached, and by whom.

use super::super::setting::{Setting, ValueKind, flag, kind, plain};

pub const SETTINGS: &[Setting] = &[
    flag(
        "BACKUP_LISTEN",
        "listen",
        "serve.listen",
        "ADDR",
        "The address and port on which `serve` answers HTTP requests [default: 127.0.0.1:8080]",
    ),
    plain(
        "BACKUP_API_TOKENS_FILE",
        "serve.api_tokens_file",
        "FILE",
        "The tokens that `serve` accepts: lines name:role:sha256, with the SHA-256 of the token in hex. The roles are \
         viewer, operator and admin",
    ),
    plain(
        "BACKUP_USERS_FILE",
        "serve.users_file",
        "FILE",
        "The people who may log in to the pages of `serve`: lines name:role:hash, with the hash that `pgstow serve \
         hash-password` makes",
    ),
    kind(
        ValueKind::Secret,
        plain(
            "BACKUP_JWT_SECRET",
            "serve.jwt_secret",
            "KEY",
            "The key, of 32 bytes or more, with which other programs sign JSON Web Tokens (HS256) for `serve`",
        ),
    ),
    plain(
        "BACKUP_JWT_DEFAULT_ROLE",
        "serve.jwt_default_role",
        "ROLE",
        "The role of a JSON Web Token without the claim `role` [default: operator]",
    ),
    plain(
        "BACKUP_JWT_AUDIENCE",
        "serve.jwt_audience",
        "NAME",
        "What must be in the claim `aud` of a JSON Web Token. Without it, a token for any audience is accepted",
    ),
    plain(
        "BACKUP_JWT_ISSUER",
        "serve.jwt_issuer",
        "NAME",
        "What the claim `iss` of a JSON Web Token must be. Without it, a token of any issuer is accepted",
    ),
    kind(
        ValueKind::List,
        plain(
            "BACKUP_ALLOWED_HOSTS",
            "serve.allowed_hosts",
            "NAMES",
            "The names under which `serve` is reached. Its addresses and localhost need not be among them",
        ),
    ),
    kind(
        ValueKind::List,
        plain(
            "BACKUP_TRUSTED_PROXIES",
            "serve.trusted_proxies",
            "ADDRS",
            "The addresses or networks of the proxies in front of `serve`: what they say about a client's address is \
             believed",
        ),
    ),
    plain(
        "BACKUP_TIMEZONE",
        "serve.timezone",
        "ZONE",
        "The time zone in which `serve` reads the schedules, such as Europe/Berlin [default: TZ, else UTC]",
    ),
    plain(
        "BACKUP_LOG_DIR",
        "serve.log_dir",
        "FOLDER",
        "The folder in which `serve` writes its log too, a file of each kind per day",
    ),
    plain(
        "BACKUP_LOG_DAYS",
        "serve.log_days",
        "N",
        "For how many days `serve` keeps these files [default: 30]",
    ),
    plain(
        "BACKUP_MAX_RUNS",
        "serve.max_runs",
        "N",
        "How many runs `serve` carries out at once; of one database never more than one [default: 1]",
    ),
    plain(
        "BACKUP_SHUTDOWN_SECONDS",
        "serve.shutdown_seconds",
        "SECONDS",
        "How long runs may take to clean up when `serve` is asked to end [default: 90]",
    ),
];
