//! The settings for signatures.

use std::path::PathBuf;

use secrecy::SecretString;

/// The key that signs, and the keys whose signatures are required.
#[derive(Debug, Clone, Default)]
pub struct Signing {
    /// Signs manifests and the results of verifications.
    pub sign_key: Option<KeySource>,
    /// The password of the secret key's file.
    pub password: Option<SecretString>,
    pub password_file: Option<PathBuf>,
    /// Files that none of these keys has signed are refused. If there are none, nothing needs a signature.
    pub verify_keys: Vec<KeySource>,
}

impl Signing {
    pub fn uses_kms(&self) -> bool {
        self.signs_by_kms() || self.trusts_kms()
    }

    pub fn signs_by_kms(&self) -> bool {
        matches!(self.sign_key, Some(KeySource::Kms(_)))
    }

    pub fn trusts_kms(&self) -> bool {
        self.verify_keys.iter().any(|key| matches!(key, KeySource::Kms(_)))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    File(PathBuf),
    /// The ARN of a key or of an alias.
    Kms(String),
    /// A public key itself.
    Text(String),
}
