//! A passphrase for the session key: OpenPGP's "iterated and salted" derivation, and CFB.

use std::fmt;
use std::io::Read;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use super::cfb::{Decrypted, Encryptor};
use super::error::{KeyError, OpenError};
use super::packet::{FOR_PASSPHRASE, SessionKeyPacket};
use super::session_key::{SessionKey, random};
use super::start::Start;

const VERSION: u8 = 4;
const AES_256: u8 = 9;
const ITERATED: u8 = 3;
const SHA_1: u8 = 2;
const SHA_256: u8 = 8;
const SHA_512: u8 = 10;
const SALT: usize = 8;
/// The code of the most work that the format knows: 62 MiB are hashed.
const MOST_WORK: u8 = 255;
/// Each costs this work, and a message from elsewhere may have many.
const MOST_TRIED: usize = 8;
const AT_ONCE: usize = 4 << 10;

/// A secret from which the key of a session key is derived.
pub struct Passphrase(SecretString);

impl Passphrase {
    pub fn new(passphrase: SecretString) -> Self {
        Self(passphrase)
    }

    pub fn encrypt(&self, key: &SessionKey) -> Result<SessionKeyPacket, KeyError> {
        let mut salt = [0; SALT];
        random(&mut salt)?;
        let derived = derive::<Sha256>(&self.0, &salt, MOST_WORK);
        let mut encrypted = Zeroizing::new([0; 1 + SessionKey::LENGTH]);
        encrypted[0] = AES_256;
        encrypted[1..].copy_from_slice(key.expose());
        let mut encryptor = Encryptor::new(&derived);
        let whole = encryptor.encrypt(&mut encrypted[..]);
        encryptor.encrypt_last(&mut encrypted[whole..]);
        let mut body = vec![VERSION, AES_256, ITERATED, SHA_256];
        body.extend(salt);
        body.push(MOST_WORK);
        body.extend_from_slice(&encrypted[..]);
        Ok(SessionKeyPacket {
            tag: FOR_PASSPHRASE,
            body,
        })
    }

    /// The message's session key.
    pub fn open(&self, start: &Start) -> Result<SessionKey, OpenError> {
        let mut packets = start.packets.iter().filter(|packet| !packet.is_for_key()).peekable();
        if packets.peek().is_none() {
            return Err(OpenError::NoPassphrase);
        }
        let keys = packets.take(MOST_TRIED).filter_map(|packet| self.decrypt(&packet.body));
        let mut fitting = keys.filter(|key| start.fits(key));
        fitting.next().ok_or(OpenError::WrongPassphrase)
    }

    /// `None` if the packet asks for another method than these, or the passphrase is certainly not its own.
    fn decrypt(&self, body: &[u8]) -> Option<SessionKey> {
        let ([VERSION, AES_256, ITERATED, hash], rest) = body.split_first_chunk()? else {
            return None;
        };
        let (salt, rest) = rest.split_first_chunk::<SALT>()?;
        let (work, encrypted) = rest.split_first()?;
        let derived = match *hash {
            SHA_1 => derive::<Sha1>(&self.0, salt, *work),
            SHA_256 => derive::<Sha256>(&self.0, salt, *work),
            SHA_512 => derive::<Sha512>(&self.0, salt, *work),
            _ => return None,
        };
        // As `gpg --symmetric` alone writes it.
        if encrypted.is_empty() {
            return Some(derived);
        }
        let mut key = Zeroizing::new([0; 1 + SessionKey::LENGTH]);
        let whole = encrypted.len() == key.len();
        let read = Decrypted::from_start(encrypted, &derived).read_exact(&mut key[..]);
        let right = whole && read.is_ok() && key[0] == AES_256;
        right.then(|| SessionKey::from_slice(&key[1..]))?
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Passphrase(…)")
    }
}

/// Hashes salt and passphrase, over and over, up to a number of bytes. A longer key than the digest comes from a second
/// round, which begins with a zero byte.
fn derive<D: Digest>(passphrase: &SecretString, salt: &[u8; SALT], work: u8) -> SessionKey {
    let secret = Zeroizing::new([salt, passphrase.expose_secret().as_bytes()].concat());
    let count = (16 + usize::from(work & 15)) << ((work >> 4) + 6);
    let mut left = count.max(secret.len());
    // Few updates of many bytes each are quicker.
    let often = Zeroizing::new(secret.repeat((AT_ONCE / secret.len()).max(1)));
    let rounds = SessionKey::LENGTH.div_ceil(<D as Digest>::output_size());
    let mut hashes: Vec<D> = (0..rounds).map(|zeros| D::new_with_prefix(vec![0; zeros])).collect();
    while left > 0 {
        let bytes = &often[..left.min(often.len())];
        for hash in &mut hashes {
            hash.update(bytes);
        }
        left -= bytes.len();
    }
    let mut key = Zeroizing::new([0; SessionKey::LENGTH]);
    for (part, hash) in key.chunks_mut(<D as Digest>::output_size()).zip(hashes) {
        part.copy_from_slice(&hash.finalize()[..part.len()]);
    }
    SessionKey::new(key)
}
