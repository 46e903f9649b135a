//! What a user can say of AWS, and of what speaks its protocols.

use std::path::PathBuf;

use secrecy::SecretString;

/// What the AWS SDK is told beyond its own chain.
///
/// Region and endpoints come from any layer. Credentials are set only where they came from `.env`
/// or the configuration file, which the SDK does not see: those of the process environment stay
/// with the SDK's own chain.
#[derive(Debug, Clone, Default)]
pub struct Aws {
    pub region: Option<String>,
    /// `AWS_ENDPOINT_URL`, for every service.
    pub endpoint: Option<String>,
    /// `AWS_ENDPOINT_URL_S3`, `_SECRETS_MANAGER`, `_SNS`, `_ECS`, `_KMS`: more specific, so stronger.
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
    /// Credentials for the S3 store alone (`MINIO_ACCESS_KEY`), where they differ.
    pub s3_access_key_id: Option<String>,
    pub s3_secret_access_key: Option<SecretString>,
}

/// Whether requests to S3 bear checksums beyond those that its protocol demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    /// SHA-256 on every request and part, compared with ours.
    Always,
    /// Only where the protocol demands one: for endpoints that refuse the headers.
    WhenRequired,
}
