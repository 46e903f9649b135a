//! How pgstow stores objects in S3.

use super::super::setting::{Setting, plain};

pub const SETTINGS: &[Setting] = &[
    plain(
        "BACKUP_S3_MAX_PARTS",
        "s3.max_parts",
        "N",
        "How many parts the provider allows in one upload, 1 to 10000 [default: 10000]",
    ),
    plain(
        "BACKUP_S3_PART_SIZE",
        "s3.part_size",
        "SIZE",
        "Size of the first parts of an upload, 5MiB to 5GiB; parts grow with the object [default: 8MiB]",
    ),
    plain(
        "BACKUP_S3_RETRY_SECONDS",
        "s3.retry_seconds",
        "N",
        "For how many seconds pgstow retries if S3 fails; a run fails earlier if its lease ends [default: 35]",
    ),
    plain(
        "BACKUP_S3_CHECKSUMS",
        "s3.checksums",
        "WHEN",
        "When pgstow sends checksums: always, or when_required for endpoints that refuse checksum headers [default: \
         always]",
    ),
    plain(
        "BACKUP_S3_TAGGING",
        "s3.tagging",
        "WHEN",
        "Whether objects get tags, by which a bucket's rules expire backups: on, off, or auto (no tags if the store \
         refuses them, as R2 and B2 do). Without tags, `prune --allow-delete` applies the retention [default: \
         auto]",
    ),
    plain(
        "AWS_REQUEST_CHECKSUM_CALCULATION",
        "aws.request_checksum_calculation",
        "WHEN",
        "The AWS SDK's own name for BACKUP_S3_CHECKSUMS: when_supported (always) or when_required",
    ),
    plain(
        "BACKUP_S3_SSE",
        "s3.sse",
        "METHOD",
        "Server-side encryption: AES256 or aws:kms [default: the bucket's own setting]",
    ),
    plain(
        "BACKUP_S3_KMS_KEY_ID",
        "s3.kms_key_id",
        "KEY",
        "The KMS key for aws:kms",
    ),
    plain(
        "BACKUP_S3_STORAGE_CLASS",
        "s3.storage_class",
        "CLASS",
        "Storage class of the archive, such as STANDARD_IA",
    ),
    plain(
        "BACKUP_S3_PATH_STYLE",
        "s3.path_style",
        "BOOL",
        "Put the bucket's name into the URL's path, not its host name [default: true for a custom endpoint]",
    ),
];
