//! How objects are kept in S3.

use super::super::setting::{Setting, plain};

pub const SETTINGS: &[Setting] = &[
    plain(
        "BACKUP_S3_MAX_PARTS",
        "s3.max_parts",
        "N",
        "Parts that the provider allows in one upload, 1 to 10000 [default: 10000]",
    ),
    plain(
        "BACKUP_S3_PART_SIZE",
        "s3.part_size",
        "SIZE",
        "Size of the first parts, 5MiB to 5GiB; parts grow as the object does [default: 8MiB]",
    ),
    plain(
        "BACKUP_S3_RETRY_SECONDS",
        "s3.retry_seconds",
        "N",
        "How long a request is repeated when S3 keeps failing; a run ends sooner if its lease does [default: 35]",
    ),
    plain(
        "BACKUP_S3_CHECKSUMS",
        "s3.checksums",
        "WHEN",
        "always, or when_required for endpoints that refuse checksum headers [default: always]",
    ),
    plain(
        "BACKUP_S3_TAGGING",
        "s3.tagging",
        "WHEN",
        "Object tags, by which a bucket's rules expire backups: on, off, or auto: without where the store refuses them \
         (R2, B2); prune --allow-delete applies the retention then [default: auto]",
    ),
    plain(
        "AWS_REQUEST_CHECKSUM_CALCULATION",
        "aws.request_checksum_calculation",
        "WHEN",
        "The AWS SDK's own name for the same: when_supported or when_required",
    ),
    plain(
        "BACKUP_S3_SSE",
        "s3.sse",
        "METHOD",
        "Server-side encryption: AES256 or aws:kms [default: what the bucket does]",
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
        "Path-style addressing [default: for a custom endpoint]",
    ),
];
