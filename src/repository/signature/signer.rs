//! The key that signs pgstow's files.

use bytes::Bytes;
use jiff::Timestamp;
use ring::signature::Ed25519KeyPair;

use super::Subject;
use super::file::{SignatureFile, global_message, message};
use super::key::PublicKey;
use super::kms::KmsKey;
use super::secret::SecretKey;
use super::trust::Trust;
use crate::error::{Code, Error, Result};
use crate::repository::backup_id::{BackupId, BackupKind};

pub struct Signer {
    public: PublicKey,
    key: SigningKey,
}

enum SigningKey {
    Here(Box<Ed25519KeyPair>),
    Kms(KmsKey),
}

impl Signer {
    pub(super) fn here(key: SecretKey) -> Self {
        Self {
            public: key.public,
            key: SigningKey::Here(Box::new(key.pair)),
        }
    }

    pub(super) async fn in_kms(key: KmsKey) -> Result<Self> {
        Ok(Self {
            public: key.public().await?,
            key: SigningKey::Kms(key),
        })
    }

    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The signature file for these bytes. It was checked with the public key.
    pub async fn sign(&self, subject: Subject<'_>, bytes: &[u8], now: Timestamp) -> Result<Bytes> {
        let signature = self.raw(message(bytes)).await?;
        let comment = subject.comment(now);
        let global = self.raw(global_message(&signature, &comment)).await?;
        let file = SignatureFile {
            letters: self.public.algorithm.of_signature(),
            key: self.public.id(),
            signature,
            comment,
            global,
        };
        let printed = Bytes::from(file.print());
        match Trust::new(vec![self.public.clone()]).check(subject, bytes, Some(&printed)) {
            Ok(_) => Ok(printed),
            Err(flaw) => Err(Error::new(
                Code::Signature,
                format!("the signature just made by the key {} {flaw}", self.public.id()),
            )),
        }
    }

    /// Signs a test message, so that a backup finds out before it begins whether it can be signed at its end.
    pub async fn probe(&self) -> Result<()> {
        let id = BackupId::next("probe", BackupKind::Full, Timestamp::UNIX_EPOCH, None);
        // No file has this content: an empty text is no manifest and no verification.
        self.sign(Subject::manifest(&id), b"", Timestamp::UNIX_EPOCH)
            .await
            .map(|_| ())
    }

    async fn raw(&self, message: Vec<u8>) -> Result<Vec<u8>> {
        match &self.key {
            SigningKey::Here(pair) => Ok(pair.sign(&message).as_ref().to_vec()),
            SigningKey::Kms(key) => key.sign(self.public.algorithm, message).await,
        }
    }
}
