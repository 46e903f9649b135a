//! Public keys (minisign's, and those of AWS KMS), and the id of a key as it is shown.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Eight bytes that distinguish keys. They prove nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(pub(super) [u8; 8]);

/// As minisign prints it: a little-endian number in hex digits.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", u64::from_le_bytes(self.0))
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = u64::from_str_radix(&text, 16);
        let number = number.map_err(|_| D::Error::custom(format!("{text:?} is no key's id")))?;
        Ok(Self(number.to_le_bytes()))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignatureAlgorithm {
    /// minisign's own.
    Ed25519,
    /// ECDSA on P-256 with SHA-256, in DER: for AWS regions and other servers whose KMS has no Ed25519.
    P256,
}

impl SignatureAlgorithm {
    /// The two letters of a public key.
    pub(super) fn of_key(self) -> [u8; 2] {
        match self {
            SignatureAlgorithm::Ed25519 => *b"Ed",
            SignatureAlgorithm::P256 => *b"EP",
        }
    }

    /// The two letters of a signature, which covers the BLAKE2b-512 of the file.
    pub(super) fn of_signature(self) -> [u8; 2] {
        match self {
            SignatureAlgorithm::Ed25519 => *b"ED",
            SignatureAlgorithm::P256 => *b"EP",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    pub(super) id: KeyId,
    pub(super) algorithm: SignatureAlgorithm,
    bytes: Vec<u8>,
}

/// DER of a SubjectPublicKeyInfo up to the key itself, which has one length for each algorithm.
const SPKI_ED25519: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
const SPKI_P256: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
const ED25519_BYTES: usize = 32;
/// Uncompressed: the byte 4, and two coordinates.
const P256_BYTES: usize = 65;

impl PublicKey {
    pub(super) fn new(id: KeyId, algorithm: SignatureAlgorithm, bytes: &[u8]) -> Self {
        Self {
            id,
            algorithm,
            bytes: bytes.to_vec(),
        }
    }

    /// Reads a key in any of its forms: minisign's line with or without the comment above it, PEM, or the base64 of
    /// the PEM's content, as `aws kms get-public-key` prints it.
    pub fn parse(text: &str) -> Result<Self, String> {
        const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
        const END: &str = "-----END PUBLIC KEY-----";
        let encoded: String = match text.split_once(BEGIN) {
            Some((_, rest)) => {
                let (body, _) = rest.split_once(END).ok_or("the PEM has no end")?;
                body.split_whitespace().collect()
            }
            None => {
                let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                let line = lines.find(|line| !line.starts_with("untrusted comment:"));
                line.unwrap_or_default().to_owned()
            }
        };
        let bytes = STANDARD.decode(&encoded).map_err(|_| "it is not base64".to_owned())?;
        Self::of_bytes(&bytes)
    }

    fn of_bytes(bytes: &[u8]) -> Result<Self, String> {
        if let Ok(key) = Self::of_spki(bytes) {
            return Ok(key);
        }
        let (algorithm, length) = match bytes.get(..2) {
            Some(b"Ed") => (SignatureAlgorithm::Ed25519, ED25519_BYTES),
            Some(b"EP") => (SignatureAlgorithm::P256, P256_BYTES),
            _ => return Err("it is neither minisign's public key nor one of Ed25519 or P-256".into()),
        };
        let (id, key) = bytes[2..]
            .split_first_chunk::<8>()
            .filter(|(_, key)| key.len() == length)
            .ok_or("it is not a complete public key; a secret key belongs in BACKUP_SIGN_KEY only")?;
        Ok(Self::new(KeyId(*id), algorithm, key))
    }

    /// The format of KMS and PEM. It has no id, so the key's digest is used as one.
    pub(super) fn of_spki(der: &[u8]) -> Result<Self, String> {
        let of = |prefix, length, algorithm| {
            let key = der.strip_prefix(prefix).filter(|key: &&[u8]| key.len() == length)?;
            let id = *Sha256::digest(key).first_chunk::<8>()?;
            Some(Self::new(KeyId(id), algorithm, key))
        };
        of(SPKI_ED25519, ED25519_BYTES, SignatureAlgorithm::Ed25519)
            .or_else(|| of(SPKI_P256, P256_BYTES, SignatureAlgorithm::P256))
            .ok_or_else(|| "it is neither Ed25519 nor ECDSA on P-256".to_owned())
    }

    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Whether stock minisign can use it.
    pub fn is_minisigns(&self) -> bool {
        self.algorithm == SignatureAlgorithm::Ed25519
    }

    /// Whether it is the same key, even under another id.
    pub fn is_same(&self, other: &PublicKey) -> bool {
        self.algorithm == other.algorithm && self.bytes == other.bytes
    }

    /// The file that stock minisign reads as `-p`.
    pub fn to_file(&self) -> String {
        let whose = if self.is_minisigns() { "minisign" } else { "pgstow" };
        format!("untrusted comment: {whose} public key {}\n{self}\n", self.id)
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self.algorithm {
            SignatureAlgorithm::Ed25519 => UnparsedPublicKey::new(&ED25519, &self.bytes).verify(message, signature),
            SignatureAlgorithm::P256 => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.bytes).verify(message, signature)
            }
        };
        verified.is_ok()
    }
}

/// The line that `minisign -P` and `BACKUP_VERIFY_KEYS` accept.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = [&self.algorithm.of_key()[..], &self.id.0, &self.bytes].concat();
        f.write_str(&STANDARD.encode(whole))
    }
}
