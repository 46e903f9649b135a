//! Why a message or a key cannot be used.

/// The bytes are no message as pgstow writes it, or another key encrypted it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("it ends too early")]
    Cut,
    #[error("it has a packet of the kind {0} before its data")]
    Packet(u8),
    #[error("it is no OpenPGP message")]
    NoPacket,
    #[error("a packet before its data has no length")]
    NoLength,
    #[error("its data has the version {0}; pgstow reads version 1")]
    Version(u8),
    #[error("its pieces have other lengths than they should")]
    Pieces,
    #[error("its first bytes are not those of a message with this key")]
    Prefix,
    #[error("it is damaged: the SHA-1 in it is not that of its content")]
    Damaged,
    #[error("bytes follow its end")]
    Rest,
}

impl From<MessageError> for std::io::Error {
    fn from(error: MessageError) -> Self {
        let kind = match error {
            MessageError::Cut => std::io::ErrorKind::UnexpectedEof,
            _ => std::io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// Why a file of keys cannot be used. `key` is the key's owner and fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("it is not an OpenPGP key")]
    Shape,
    #[error("there is no key in it")]
    Empty,
    #[error("the key of {key} is a secret key")]
    Secret { key: String },
    #[error("the key of {key} is a public key")]
    Public { key: String },
    #[error("the key of {key} is revoked")]
    Revoked { key: String },
    #[error("the key of {key} has expired")]
    Expired { key: String },
    #[error("the key of {key} has no valid signature of its own")]
    NotSigned { key: String },
    #[error("the key of {key} has no part that may encrypt{}", listed(.parts))]
    NoEncryption { key: String, parts: Vec<String> },
    #[error("the key of {key} uses {algorithm}, which pgstow cannot do")]
    Algorithm { key: String, algorithm: String },
    #[error("a key in it uses the curve {0}, which pgstow cannot do")]
    Curve(&'static str),
    #[error("the session key cannot be encrypted to {key}")]
    Encrypting { key: String },
    #[error("the system gives no random numbers")]
    NoRandom,
    #[error("the keys of {readers} readers need {needed} bytes, there is room for {room}")]
    TooMany { readers: usize, needed: usize, room: usize },
}

fn listed(parts: &[String]) -> String {
    if parts.is_empty() {
        return String::new();
    }
    format!(": {}", parts.join(", "))
}

/// Why a message's session key cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("it is not encrypted to this key{}", encrypted_to(.readers))]
    OtherReaders { readers: Vec<String> },
    #[error("it is not encrypted with a passphrase")]
    NoPassphrase,
    #[error("the passphrase is wrong")]
    WrongPassphrase,
    #[error("the secret key of {key} is protected by a passphrase")]
    Protected { key: String },
    #[error("the secret key of {key} cannot be used: the passphrase is wrong, or the key is not in the file")]
    Locked { key: String },
    #[error("the session key for {key} cannot be decrypted")]
    Undecryptable { key: String },
    #[error("its session key is not for AES-256")]
    Cipher,
}

fn encrypted_to(readers: &[String]) -> String {
    if readers.is_empty() {
        return String::new();
    }
    format!(", but to {}", readers.join(", "))
}
