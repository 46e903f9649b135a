//! How backups are made, and how long they are kept.

use super::super::setting::{Kind, Setting, flag, kind, plain};

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
        "BACKUP_MAX_AGE",
        "max-age",
        "max_age",
        "TIME",
        "How old the last good backup may be before `status` calls for a person: 90m, 26h, 2d [default: 26h]",
    ),
    flag(
        "BACKUP_COMPRESSION",
        "compress",
        "compress",
        "SPEC",
        "auto, zstd, zstd:1..19, gzip, gzip:1..9 or none; auto takes zstd where pg_restore can read it [default: auto]",
    ),
    plain(
        "BACKUP_COMPRESSION_LEVEL",
        "compression_level",
        "LEVEL",
        "The level for the algorithm that BACKUP_COMPRESSION names; alone, it means gzip",
    ),
    flag(
        "BACKUP_FORMAT",
        "format",
        "format",
        "FORMAT",
        "custom (for pg_restore: parallel, single tables) or plain (SQL text) [default: custom]",
    ),
    flag(
        "BACKUP_JOBS",
        "jobs",
        "jobs",
        "N",
        "Streams read from, or restored into, the database at once, as pg_dump's and pg_restore's -j [default: 1]",
    ),
    flag(
        "BACKUP_THREADS",
        "threads",
        "threads",
        "N",
        "Compression threads [default: the CPUs that the task has]",
    ),
    flag(
        "BACKUP_MEMORY",
        "memory",
        "memory",
        "SIZE",
        "Bytes of data that a backup may have in memory at once, beside the 30 MiB of the program itself [default: a \
         quarter of what the task has, at most 32 MiB and 32 MiB for each job or thread]",
    ),
    flag(
        "BACKUP_MAX_RATE",
        "max-rate",
        "max_rate",
        "SIZE",
        "Bytes per second that a backup reads from the database at most, as pg_basebackup's --max-rate [default: none]",
    ),
    kind(
        Kind::Switch,
        flag(
            "BACKUP_NICE",
            "nice",
            "nice",
            "BOOL",
            "Keep the server's load low: one stream, which pauses while replicas lag or sessions are many [default: false]",
        ),
    ),
    plain(
        "BACKUP_NICE_MAX_LAG",
        "nice_max_lag",
        "N",
        "Seconds by which a replica may lag before --nice pauses [default: 10]",
    ),
    plain(
        "BACKUP_NICE_MAX_SESSIONS",
        "nice_max_sessions",
        "N",
        "Active sessions of others before --nice pauses [default: 20]",
    ),
];
