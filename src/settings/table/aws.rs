//! AWS: region, endpoints, credentials.

use super::super::setting::{Setting, ValueKind, kind, plain};

pub const SETTINGS: &[Setting] = &[
    plain(
        "AWS_REGION",
        "aws.region",
        "REGION",
        "The AWS region; if it is not set, AWS_DEFAULT_REGION counts",
    ),
    Setting {
        variable: "AWS_DEFAULT_REGION",
        flag: None,
        key: None,
        kind: ValueKind::Text,
        value: "REGION",
        help: "The AWS region, if AWS_REGION is not set",
    },
    plain(
        "AWS_ENDPOINT_URL",
        "aws.endpoint_url",
        "URL",
        "Endpoint for every AWS service",
    ),
    plain(
        "AWS_ENDPOINT_URL_S3",
        "aws.endpoint_url_s3",
        "URL",
        "Endpoint of an S3-compatible store (MinIO, R2, Ceph)",
    ),
    plain(
        "AWS_ENDPOINT_URL_SECRETS_MANAGER",
        "aws.endpoint_url_secrets_manager",
        "URL",
        "Endpoint for Secrets Manager only",
    ),
    plain(
        "AWS_ENDPOINT_URL_SNS",
        "aws.endpoint_url_sns",
        "URL",
        "Endpoint for SNS only",
    ),
    plain(
        "AWS_ENDPOINT_URL_ECS",
        "aws.endpoint_url_ecs",
        "URL",
        "Endpoint for ECS only",
    ),
    plain(
        "AWS_ENDPOINT_URL_KMS",
        "aws.endpoint_url_kms",
        "URL",
        "Endpoint for KMS only, if keys of signatures are in KMS",
    ),
    plain(
        "AWS_CA_BUNDLE",
        "aws.ca_bundle",
        "FILE",
        "File with certificate authorities (PEM) for AWS's services and S3-compatible stores, instead of the \
         system's",
    ),
    kind(
        ValueKind::Secret,
        plain(
            "AWS_ACCESS_KEY_ID",
            "aws.access_key_id",
            "ID",
            "The access key ID of the AWS credentials",
        ),
    ),
    kind(
        ValueKind::Secret,
        plain(
            "AWS_SECRET_ACCESS_KEY",
            "aws.secret_access_key",
            "KEY",
            "The secret access key of the AWS credentials",
        ),
    ),
    kind(
        ValueKind::Secret,
        plain(
            "AWS_SESSION_TOKEN",
            "aws.session_token",
            "TOKEN",
            "The session token of temporary AWS credentials",
        ),
    ),
];
