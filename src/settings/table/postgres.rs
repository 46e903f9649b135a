//! PostgreSQL's programs, and how long is waited for the server.

use super::super::setting::{Setting, plain};

pub const SETTINGS: &[Setting] = &[
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
];
