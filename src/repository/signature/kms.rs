//! An asymmetric key in AWS KMS: KMS signs, and the secret key never leaves it.

use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{MessageType, SigningAlgorithmSpec};

use super::key::{PublicKey, SignatureAlgorithm};
use crate::error::{Code, Error, Result};
use crate::outside::aws;

#[derive(Debug, Clone)]
pub(super) struct KmsKey {
    pub client: Client,
    /// The ARN of the key or of an alias.
    pub arn: String,
}

impl KmsKey {
    pub async fn public(&self) -> Result<PublicKey> {
        let what = format!("cannot read the public key of {}", self.arn);
        let answer = self.client.get_public_key().key_id(&self.arn).send().await;
        let answer = answer
            .map_err(|error| aws::error_needing(Code::Signature, &what, &error, &["kms:GetPublicKey"], &self.arn))?;
        let der = answer.public_key().map(Blob::as_ref).unwrap_or_default();
        PublicKey::of_spki(der).map_err(|why| {
            Error::config(format!("{} cannot sign backups: {why}", self.arn))
                .hint("create a key for SIGN_VERIFY with the key spec ECC_NIST_EDWARDS25519 or ECC_NIST_P256")
        })
    }

    /// `message` has at most 4 KiB; the algorithm is that of the key.
    pub async fn sign(&self, algorithm: SignatureAlgorithm, message: Vec<u8>) -> Result<Vec<u8>> {
        let what = format!("cannot sign with {}", self.arn);
        let answer = self
            .client
            .sign()
            .key_id(&self.arn)
            .message(Blob::new(message))
            .message_type(MessageType::Raw)
            .signing_algorithm(match algorithm {
                SignatureAlgorithm::Ed25519 => SigningAlgorithmSpec::Ed25519Sha512,
                SignatureAlgorithm::P256 => SigningAlgorithmSpec::EcdsaSha256,
            })
            .send()
            .await
            .map_err(|error| aws::error_needing(Code::Signature, &what, &error, &["kms:Sign"], &self.arn))?;
        let signature = answer.signature().map(|signature| signature.as_ref().to_vec());
        signature.ok_or_else(|| Error::new(Code::Signature, format!("{what}: the answer has no signature")))
    }
}
