//! The signature file: minisign's four lines.
//!
//! ```text
//! untrusted comment: whatever
//! base64 of: two letters of the algorithm, the key's id, the signature of the file
//! trusted comment: covered by the line below
//! base64 of: the signature of the signature above and the trusted comment
//! ```

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use blake2::{Blake2b512, Digest};

use super::key::{KeyId, PublicKey, SignatureAlgorithm};

/// More than four lines ever need: a comment is one line of at most minisign's 8 KiB.
pub(super) const LIMIT: u64 = 16 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SignatureFile {
    pub letters: [u8; 2],
    pub key: KeyId,
    pub signature: Vec<u8>,
    pub comment: String,
    /// The signature of the first signature and the comment.
    pub global: Vec<u8>,
}

impl SignatureFile {
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() as u64 > LIMIT {
            return Err("it is too long for a signature".into());
        }
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
        let mut lines = text.lines();
        let mut line = |what: &str| lines.next().ok_or_else(|| format!("it ends before {what}"));
        line("its first line")?
            .strip_prefix("untrusted comment:")
            .ok_or("it does not begin with minisign's untrusted comment")?;
        let decode = |line: &str| {
            STANDARD
                .decode(line.trim_end())
                .map_err(|_| "a signature in it is not base64".to_owned())
        };
        let whole = decode(line("the signature")?)?;
        let comment = line("the trusted comment")?
            .strip_prefix("trusted comment: ")
            .ok_or("it has no trusted comment")?
            .trim_end_matches('\r')
            .to_owned();
        let global = decode(line("the signature of the comment")?)?;
        if lines.any(|line| !line.trim().is_empty()) {
            return Err("it has more text after its end".into());
        }
        let (letters, rest) = whole.split_first_chunk::<2>().ok_or("its signature is incomplete")?;
        let (key, signature) = rest.split_first_chunk::<8>().ok_or("its signature is incomplete")?;
        Ok(Self {
            letters: *letters,
            key: KeyId(*key),
            signature: signature.to_vec(),
            comment,
            global,
        })
    }

    pub fn print(&self) -> String {
        let whole = [&self.letters[..], &self.key.0, &self.signature].concat();
        format!(
            "untrusted comment: signature by pgstow, key {}\n{}\ntrusted comment: {}\n{}\n",
            self.key,
            STANDARD.encode(whole),
            self.comment,
            STANDARD.encode(&self.global)
        )
    }

    /// Whether the key made the signature of these bytes.
    pub fn is_of(&self, bytes: &[u8], key: &PublicKey) -> bool {
        // `minisign -S -l` signs the file itself.
        if self.letters == *b"Ed" && key.algorithm == SignatureAlgorithm::Ed25519 {
            return key.verifies(bytes, &self.signature);
        }
        self.letters == key.algorithm.of_signature() && key.verifies(&message(bytes), &self.signature)
    }

    /// Whether the same key has signed the comment.
    pub fn vouches_for_comment(&self, key: &PublicKey) -> bool {
        key.verifies(&global_message(&self.signature, &self.comment), &self.global)
    }
}

/// The message that is signed for a file. It is short enough for a KMS, which takes at most 4 KiB.
pub(super) fn message(bytes: &[u8]) -> Vec<u8> {
    Blake2b512::digest(bytes).to_vec()
}

pub(super) fn global_message(signature: &[u8], comment: &str) -> Vec<u8> {
    [signature, comment.as_bytes()].concat()
}
