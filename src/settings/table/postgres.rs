//! PostgreSQL's programs, and how long pgstow waits for the server.

use super::super::setting::{Setting, plain};

pub const SETTINGS: &[Setting] = &[
    plain(
        "BACKUP_PG_BIN",
        "pg.bin",
        "FOLDERS",
        "Folders with pg_dump and the like, separated by colons; if it is set, pgstow looks in no other folder",
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
        "How many seconds pgstow waits for a table's lock [default: 60]",
    ),
    plain(
        "BACKUP_ON_CHANGED_TABLES",
        "on_changed_tables",
        "WHAT",
        "What a backup does if, in every attempt, tables are emptied or rewritten before it has their locks: fail, \
         or warn (name these tables and store the rest) [default: fail]",
    ),
    plain(
        "BACKUP_STALL_SECONDS",
        "stall_seconds",
        "N",
        "A run fails if no byte moves for this many seconds [default: 300]",
    ),
    plain(
        "BACKUP_CONNECT_TIMEOUT_SECONDS",
        "connect_timeout_seconds",
        "N",
        "How many seconds the database may take to answer [default: 15]",
    ),
    plain(
        "BACKUP_LEASE_SECONDS",
        "lease_seconds",
        "N",
        "After how many seconds another run may take over the lease of a run that died [default: 120]",
    ),
    plain(
        "BACKUP_MD5",
        "md5",
        "BOOL",
        "Write MD5SUMS in addition to SHA256SUMS [default: false]",
    ),
    plain(
        "BACKUP_PROVE_CHAIN",
        "prove_chain",
        "BOOL",
        "Prove once for each full backup, without a server, that the increments since the full before lead exactly to \
         it; this reads the changed tables of both [default: true]",
    ),
];
