//! How backups are made, and how long they are kept.

use super::super::setting::{Setting, ValueKind, flag, kind, plain};

pub const SETTINGS: &[Setting] = &[
    flag(
        "BACKUP_RETENTION",
        "retention",
        "retention",
        "SPEC",
        "How long backups are kept: 30d, 4w, or daily=7,weekly=4,monthly=12,yearly=3 [default: 30d]",
    ),
    plain(
        "BACKUP_RETENTION_DAYS",
        "retention_days",
        "DAYS",
        "The same as BACKUP_RETENTION=<DAYS>d",
    ),
    flag(
        "BACKUP_KEEP_LAST",
        "keep-last",
        "keep_last",
        "N",
        "The newest N good backups never expire, whatever the retention says [default: 1]",
    ),
    flag(
        "BACKUP_PITR",
        "pitr",
        "pitr",
        "TIME",
        "How far back every moment can be restored, if increments are made: 7d, 36h. Increments are kept for two days \
         longer, and full backups must be kept as long as that [default: 7d, or less if full backups go sooner]",
    ),
    flag(
        "BACKUP_MAX_AGE",
        "max-age",
        "max_age",
        "TIME",
        "How old the last good backup may be before `status` says that a person has to act: 90m, 26h, 2d [default: \
         26h]",
    ),
    plain(
        "BACKUP_INCREMENTAL_MAX_AGE",
        "incremental_max_age",
        "TIME",
        "How old the newest increment may be before `status` says that a person has to act: 15m, 2h [default: 2h, if \
         increments are made]",
    ),
    flag(
        "BACKUP_COMPRESSION",
        "compress",
        "compress",
        "SPEC",
        "auto, zstd, zstd:1..19, gzip, gzip:1..9 or none; auto is zstd if pg_restore can read it, else gzip \
         [default: auto]",
    ),
    plain(
        "BACKUP_COMPRESSION_LEVEL",
        "compression_level",
        "LEVEL",
        "The level for the algorithm in BACKUP_COMPRESSION; if only the level is set, the algorithm is gzip \
         [default: 3 for zstd, 6 for gzip]",
    ),
    flag(
        "BACKUP_FORMAT",
        "format",
        "format",
        "FORMAT",
        "custom (pg_restore can restore it in parallel, or single tables of it) or plain (SQL text) [default: \
         custom]",
    ),
    flag(
        "BACKUP_JOBS",
        "jobs",
        "jobs",
        "N",
        "How many streams pgstow reads from the database, or restores into it, at once: -j of pg_dump and pg_restore \
         [default: 1]",
    ),
    flag(
        "BACKUP_THREADS",
        "threads",
        "threads",
        "N",
        "How many threads compress [default: the number of CPUs that the task has]",
    ),
    flag(
        "BACKUP_MEMORY",
        "memory",
        "memory",
        "SIZE",
        "How much data a backup may hold in memory at once, besides the 30 MiB of the program itself [default: a \
         quarter of the task's memory, at most 32 MiB plus 32 MiB for each job or thread]",
    ),
    flag(
        "BACKUP_MAX_RATE",
        "max-rate",
        "max_rate",
        "SIZE",
        "How many bytes per second a backup may read from the database, like pg_basebackup's --max-rate [default: no \
         limit]",
    ),
    kind(
        ValueKind::Switch,
        flag(
            "BACKUP_NICE",
            "nice",
            "nice",
            "BOOL",
            "Keep the server's load low: read one stream, and pause while replicas lag or many sessions are active \
             [default: false]",
        ),
    ),
    plain(
        "BACKUP_NICE_MAX_LAG",
        "nice_max_lag",
        "N",
        "How many seconds a replica may lag before --nice pauses [default: 10]",
    ),
    plain(
        "BACKUP_NICE_MAX_SESSIONS",
        "nice_max_sessions",
        "N",
        "How many sessions of others may be active before --nice pauses [default: 20]",
    ),
];
