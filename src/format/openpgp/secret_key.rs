//! Secret keys, which decrypt the session keys of messages.

use std::fmt;

use pgp::composed::{PlainSessionKey, PublicOrSecret, SignedSecretKey};
use pgp::crypto::sym::SymmetricKeyAlgorithm;
use pgp::packet::{PacketHeader, PublicKeyEncryptedSessionKey};
use pgp::types::{DecryptionKey, EskType, Password, Tag};
use secrecy::{ExposeSecret, SecretString};

use super::error::{KeyError, OpenError};
use super::packet::SessionKeyPacket;
use super::recipient::{keys, name};
use super::session_key::SessionKey;
use super::start::Start;

/// A message hides its readers, so each key is tried on each packet. gpg makes a few.
const MOST_TRIED: usize = 64;

/// The secret keys in a file. A key that is expired or revoked decrypts as before.
pub struct SecretKey {
    keys: Vec<SignedSecretKey>,
    passphrase: Option<Password>,
}

/// What a part of a secret key makes of an encrypted session key.
enum Tried {
    Right(SessionKey),
    /// It hides its reader, and it is not this key.
    Other,
    Failed(OpenError),
}

impl SecretKey {
    /// A file, armored or not, as `gpg --export-secret-keys` writes it. The passphrase, if one protects the keys, is
    /// used and tried only in [`SecretKey::open`].
    pub fn parse(file: &[u8], passphrase: Option<&SecretString>) -> Result<Self, KeyError> {
        let secret = keys(file)?.into_iter().map(|key| match key {
            PublicOrSecret::Secret(key) => Ok(key),
            PublicOrSecret::Public(key) => Err(KeyError::Public {
                key: name(&key.details.users, &key.primary_key),
            }),
        });
        Ok(Self {
            keys: secret.collect::<Result<_, _>>()?,
            passphrase: passphrase.map(|passphrase| Password::from(passphrase.expose_secret())),
        })
    }

    /// The message's session key.
    pub fn open(&self, start: &Start) -> Result<SessionKey, OpenError> {
        let mut failed = None;
        for packet in start
            .packets
            .iter()
            .filter(|packet| packet.is_for_key())
            .take(MOST_TRIED)
        {
            for key in &self.keys {
                match self.try_key(key, packet) {
                    Tried::Right(key) if start.fits(&key) => return Ok(key),
                    Tried::Right(_) | Tried::Other => {}
                    Tried::Failed(error) => failed = failed.or(Some(error)),
                }
            }
        }
        Err(failed.unwrap_or_else(|| OpenError::OtherReaders {
            readers: start.packets.iter().filter_map(SessionKeyPacket::reader).collect(),
        }))
    }

    fn try_key(&self, key: &SignedSecretKey, packet: &SessionKeyPacket) -> Tried {
        let header = PacketHeader::new_fixed(Tag::PublicKeyEncryptedSessionKey, packet.body.len() as u32);
        let Ok(encrypted) = PublicKeyEncryptedSessionKey::try_from_reader(header, &packet.body[..]) else {
            return Tried::Other;
        };
        let name = || name(&key.details.users, key.primary_key.public_key());
        let subkeys = key.secret_subkeys.iter();
        let mut tried = subkeys
            .filter(|subkey| encrypted.match_identity(subkey.key.public_key()))
            .map(|subkey| {
                self.decrypt(
                    &subkey.key,
                    subkey.key.secret_params().is_encrypted(),
                    &encrypted,
                    &name,
                )
            });
        let of_subkeys = tried.find(|tried| !matches!(tried, Tried::Other));
        let primary = &key.primary_key;
        match of_subkeys {
            Some(tried) => tried,
            None if encrypted.match_identity(primary.public_key()) => {
                self.decrypt(primary, primary.secret_params().is_encrypted(), &encrypted, &name)
            }
            None => Tried::Other,
        }
    }

    fn decrypt(
        &self,
        key: &impl DecryptionKey,
        is_protected: bool,
        packet: &PublicKeyEncryptedSessionKey,
        name: &dyn Fn() -> String,
    ) -> Tried {
        let (Ok(values), Ok(id)) = (packet.values(), packet.id()) else {
            return Tried::Other;
        };
        let none = Password::empty();
        let passphrase = match (&self.passphrase, is_protected) {
            (Some(passphrase), _) => passphrase,
            (None, false) => &none,
            (None, true) => return Tried::Failed(OpenError::Protected { key: name() }),
        };
        match key.decrypt(passphrase, values, EskType::V3_4) {
            Ok(Ok(PlainSessionKey::V3_4 { sym_alg, ref key })) => {
                let right = sym_alg == SymmetricKeyAlgorithm::AES256;
                match SessionKey::from_slice(key.as_ref()).filter(|_| right) {
                    Some(key) => Tried::Right(key),
                    None => Tried::Failed(OpenError::Cipher),
                }
            }
            Ok(_) if id.is_wildcard() => Tried::Other,
            Ok(_) => Tried::Failed(OpenError::Undecryptable { key: name() }),
            Err(_) => Tried::Failed(OpenError::Locked { key: name() }),
        }
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretKey(…)")
    }
}
