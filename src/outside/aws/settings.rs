//! The settings for AWS and for services with its protocols.

use std::path::PathBuf;

use secrecy::SecretString;

/// Settings for the AWS SDK beside its own chain.
///
/// Region and endpoints may come from any source. Credentials are set here only if they came from `.env` or the
/// configuration file, which the SDK does not read. The SDK reads those of the process environment itself.
#[derive(Debug, Clone, Default)]
pub struct Aws {
    pub region: Option<String>,
    /// `AWS_ENDPOINT_URL`, for every service.
    pub endpoint: Option<String>,
    /// `AWS_ENDPOINT_URL_S3`, `_SECRETS_MANAGER`, `_SNS`, `_ECS`, `_KMS`: for one service, so they take precedence.
    pub endpoint_s3: Option<String>,
    pub endpoint_secrets: Option<String>,
    pub endpoint_sns: Option<String>,
    pub endpoint_ecs: Option<String>,
    pub endpoint_kms: Option<String>,
    /// `AWS_CA_BUNDLE`.
    pub ca_bundle: Option<PathBuf>,
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<SecretString>,
    pub session_token: Option<SecretString>,
    /// Credentials for the S3 store only (`MINIO_ACCESS_KEY`), if they differ.
    pub s3_access_key_id: Option<String>,
    pub s3_secret_access_key: Option<SecretString>,
}

/// Whether requests to S3 have checksums beyond those that the protocol requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    /// SHA-256 on every request and part, compared with our own.
    Always,
    /// Only where the protocol requires one: for endpoints that refuse the headers.
    WhenRequired,
}
