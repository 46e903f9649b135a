//! minisign's secret key file, with a password or without.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use scrypt::Params;
use secrecy::zeroize::Zeroizing;

use super::key::{KeyId, PublicKey, SignatureAlgorithm};

/// The letters of signature, derivation and checksum; the salt and the limits of the derivation.
const HEAD: usize = 2 + 2 + 2 + 32 + 8 + 8;
/// The id, the key and its checksum: a password encrypts these.
const HIDDEN: usize = 8 + 64 + 32;
const WITH_PASSWORD: [u8; 2] = *b"Sc";
const PLAIN: [u8; 2] = [0, 0];
/// The limit that stock minisign uses for its own keys. A file must not demand more, since the memory is allocated at
/// once.
const MOST_MEMORY: u64 = 1 << 30;
const MOST_OPERATIONS: u64 = 1 << 26;
/// For the keys that pgstow makes: 128 MiB, so that they can be used in a small container.
const OPERATIONS: u64 = 1 << 22;
const MEMORY: u64 = 1 << 27;

pub(super) struct SecretKey {
    pub pair: Ed25519KeyPair,
    pub public: PublicKey,
}

/// Why a key file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error("it is not a secret key in minisign's format: {0}")]
    Shape(&'static str),
    #[error("it needs a password")]
    NeedsPassword,
    #[error("the password is wrong, or the file is damaged")]
    Wrong,
}

impl SecretKey {
    /// Takes a second, and as much memory as was used to encrypt the key.
    pub fn parse(text: &str, password: Option<&[u8]>) -> Result<Self, Unusable> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let line = lines.find(|line| !line.starts_with("untrusted comment:"));
        let whole = Zeroizing::new(
            STANDARD
                .decode(line.unwrap_or_default())
                .map_err(|_| Unusable::Shape("it is not base64"))?,
        );
        if whole.len() != HEAD + HIDDEN {
            return Err(Unusable::Shape("it has the wrong length"));
        }
        let (head, hidden) = whole.split_at(HEAD);
        if head[..2] != *b"Ed" || head[4..6] != *b"B2" {
            return Err(Unusable::Shape("its algorithm is not known"));
        }
        let mut hidden = Zeroizing::new(hidden.to_vec());
        let encrypted = match [head[2], head[3]] {
            WITH_PASSWORD => true,
            PLAIN => false,
            _ => return Err(Unusable::Shape("it is encrypted in an unknown way")),
        };
        if encrypted {
            let password = password.ok_or(Unusable::NeedsPassword)?;
            let number = |at: usize| {
                head[at..]
                    .first_chunk::<8>()
                    .map_or(0, |bytes| u64::from_le_bytes(*bytes))
            };
            apply(&mut hidden, password, &head[6..38], number(38), number(46))?;
        }
        let (id, rest) = hidden.split_first_chunk::<8>().ok_or(Unusable::Wrong)?;
        let (key, sum) = rest.split_at(64);
        // Stock minisign writes no checksum if there is no password.
        let unchecked = !encrypted && sum.iter().all(|byte| *byte == 0);
        if !unchecked && *sum != checksum(&hidden[..72]) {
            return Err(if encrypted {
                Unusable::Wrong
            } else {
                Unusable::Shape("its checksum is wrong")
            });
        }
        let pair = Ed25519KeyPair::from_seed_and_public_key(&key[..32], &key[32..]);
        let pair = pair.map_err(|_| Unusable::Shape("its secret and public key do not belong together"))?;
        let public = PublicKey::new(KeyId(*id), SignatureAlgorithm::Ed25519, pair.public_key().as_ref());
        Ok(Self { pair, public })
    }

    /// Makes a new key: returns its public key, and the secret key's file.
    pub fn generate(password: Option<&[u8]>) -> Result<(PublicKey, Zeroizing<String>), String> {
        let random = SystemRandom::new();
        let fill = |bytes: &mut [u8]| {
            random
                .fill(bytes)
                .map_err(|_| "the system gives no random bytes".to_owned())
        };
        let (mut id, mut salt) = ([0; 8], [0; 32]);
        let mut seed = Zeroizing::new([0; 32]);
        fill(&mut id)?;
        fill(&mut *seed)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).map_err(|error| error.to_string())?;
        let half = pair.public_key().as_ref();
        let mut hidden = Zeroizing::new([&id[..], &*seed, half].concat());
        let (letters, operations, memory, sum) = match password {
            Some(_) => {
                fill(&mut salt)?;
                (WITH_PASSWORD, OPERATIONS, MEMORY, checksum(&hidden))
            }
            None => (PLAIN, 0, 0, [0; 32]),
        };
        hidden.extend_from_slice(&sum);
        if let Some(password) = password {
            apply(&mut hidden, password, &salt, operations, memory).map_err(|error| error.to_string())?;
        }
        let head = [
            &b"Ed"[..],
            &letters,
            b"B2",
            &salt,
            &operations.to_le_bytes(),
            &memory.to_le_bytes(),
        ]
        .concat();
        let whole = Zeroizing::new([&head[..], &hidden].concat());
        let comment = match password {
            Some(_) => "minisign encrypted secret key",
            None => "minisign secret key",
        };
        let text = format!("untrusted comment: {comment}\n{}\n", STANDARD.encode(&*whole));
        Ok((
            PublicKey::new(KeyId(id), SignatureAlgorithm::Ed25519, half),
            Zeroizing::new(text),
        ))
    }
}

/// The checksum of the letters, the id and the key.
fn checksum(id_and_key: &[u8]) -> [u8; 32] {
    let mut digest = Blake2b::<U32>::new();
    digest.update(b"Ed");
    digest.update(id_and_key);
    digest.finalize().into()
}

/// Encrypts plain bytes, and decrypts encrypted ones.
fn apply(hidden: &mut [u8], password: &[u8], salt: &[u8], operations: u64, memory: u64) -> Result<(), Unusable> {
    if operations > MOST_OPERATIONS || memory > MOST_MEMORY {
        return Err(Unusable::Shape(
            "its password needs more memory or time than minisign's keys do",
        ));
    }
    let (log_n, p) = cost(operations, memory);
    let params =
        Params::new(log_n, BLOCK, p).map_err(|_| Unusable::Shape("its memory and time limits are not valid"))?;
    let mut stream = Zeroizing::new([0; HIDDEN]);
    scrypt::scrypt(password, salt, &params, &mut *stream).map_err(|_| Unusable::Wrong)?;
    for (byte, mask) in hidden.iter_mut().zip(stream.iter()) {
        *byte ^= mask;
    }
    Ok(())
}

const BLOCK: u32 = 8;

/// scrypt's N (as a logarithm) and p, from the limits in the file, as libsodium chooses them.
fn cost(operations: u64, memory: u64) -> (u8, u32) {
    let operations = operations.max(32_768);
    let log_below = |limit: u64| (1..63).find(|log| 1_u64 << log > limit / 2).unwrap_or(63);
    let block = u64::from(BLOCK);
    if operations < memory / 32 {
        return (log_below(operations / (block * 4)), 1);
    }
    let log_n = log_below(memory / (block * 128));
    let products = (operations / 4 / (1 << log_n)).min(0x3fff_ffff);
    (log_n, u32::try_from(products / block).unwrap_or(1).max(1))
}
