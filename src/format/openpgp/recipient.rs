//! Public keys that session keys are encrypted to. The crate `pgp` computes whether a signature is right; which
//! signatures count and which key may be used is decided here, in the way of gpg.

use std::io::Cursor;

use jiff::Timestamp;
use pgp::composed::{PublicOrSecret, RawSessionKey, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::ecc_curve::ECCCurve;
use pgp::crypto::sym::SymmetricKeyAlgorithm;
use pgp::packet::{
    PublicKey, PublicKeyEncryptedSessionKey, PublicSubkey, Signature, SignatureConfig, SignatureType, SubpacketData,
};
use pgp::ser::Serialize;
use pgp::types::{EcdhPublicParams, EcdsaPublicParams, KeyDetails, KeyVersion, PublicParams, SignedUser, Tag};
use rand_core::OsRng;

use super::error::KeyError;
use super::packet::{FOR_KEY, SessionKeyPacket};
use super::session_key::SessionKey;

/// gpg 2.2 still makes and takes shorter ones; they can be broken.
const SHORTEST_RSA: u16 = 2048;

/// A key that can be encrypted to.
#[derive(Debug)]
pub struct Recipient {
    name: String,
    key: Part,
}

#[derive(Debug)]
enum Part {
    Primary(PublicKey),
    Subkey(PublicSubkey),
}

impl Recipient {
    /// All keys in a file, armored or not: of each the newest part that may encrypt at this time.
    pub fn parse(file: &[u8], now: Timestamp) -> Result<Vec<Self>, KeyError> {
        let now = now.as_second();
        let found = keys(file)?.into_iter().map(|key| match key {
            PublicOrSecret::Public(key) => Self::choose(&key, now),
            PublicOrSecret::Secret(key) => Err(KeyError::Secret {
                key: name(&key.details.users, &key.primary_key),
            }),
        });
        found.collect()
    }

    /// Its owner and the fingerprint of the primary key.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id of the part that is encrypted to, as gpg prints it.
    pub fn key_id(&self) -> String {
        let id = match &self.key {
            Part::Primary(key) => key.legacy_key_id(),
            Part::Subkey(key) => key.legacy_key_id(),
        };
        hex::encode_upper(id.as_ref())
    }

    pub fn encrypt(&self, key: &SessionKey) -> Result<SessionKeyPacket, KeyError> {
        let session_key = RawSessionKey::from(&key.expose()[..]);
        let cipher = SymmetricKeyAlgorithm::AES256;
        let packet = match &self.key {
            Part::Primary(key) => PublicKeyEncryptedSessionKey::from_session_key_v3(OsRng, &session_key, cipher, key),
            Part::Subkey(key) => PublicKeyEncryptedSessionKey::from_session_key_v3(OsRng, &session_key, cipher, key),
        };
        let failed = || KeyError::Encrypting { key: self.name.clone() };
        let body = packet.and_then(|packet| packet.to_bytes()).map_err(|_| failed())?;
        Ok(SessionKeyPacket { tag: FOR_KEY, body })
    }

    fn choose(key: &SignedPublicKey, now: i64) -> Result<Self, KeyError> {
        let primary = &key.primary_key;
        let name = name(&key.details.users, primary);
        if primary.version() != KeyVersion::V4 {
            let algorithm = format!("a key of version {}", u8::from(primary.version()));
            return Err(KeyError::Algorithm { key: name, algorithm });
        }
        let mut revocations = key.details.revocation_signatures.iter();
        if revocations.any(|signature| signature.verify_key(primary).is_ok()) {
            return Err(KeyError::Revoked { key: name });
        }
        let Some(own) = own_signature(key, now) else {
            return Err(match primary.public_params() {
                PublicParams::ECDSA(EcdsaPublicParams::Unsupported { curve, .. }) => KeyError::Algorithm {
                    key: name,
                    algorithm: named(curve),
                },
                _ => KeyError::NotSigned { key: name },
            });
        };
        if has_expired(primary, own, now) {
            return Err(KeyError::Expired { key: name });
        }
        let mut choice = Choice::default();
        for subkey in &key.public_subkeys {
            choice.take_subkey(subkey, primary, now);
        }
        if let Some(subkey) = choice.newest {
            let key = Part::Subkey(subkey.clone());
            return Ok(Self { name, key });
        }
        if may_encrypt(primary, own) && refused(primary.public_params()).is_none() {
            let key = Part::Primary(primary.clone());
            return Ok(Self { name, key });
        }
        Err(match choice.algorithm {
            Some(algorithm) => KeyError::Algorithm { key: name, algorithm },
            None => KeyError::NoEncryption {
                key: name,
                parts: choice.unusable,
            },
        })
    }
}

/// All keys in a file, without signatures checked.
pub(super) fn keys(file: &[u8]) -> Result<Vec<PublicOrSecret>, KeyError> {
    if file.iter().all(u8::is_ascii_whitespace) {
        return Err(KeyError::Empty);
    }
    let mut all = Vec::new();
    for text in texts(file) {
        let (keys, _) = PublicOrSecret::from_reader_many(Cursor::new(text)).map_err(|why| unreadable(&why))?;
        let before = all.len();
        for key in keys {
            all.push(key.map_err(|why| unreadable(&why))?);
        }
        if all.len() == before {
            return Err(KeyError::Shape);
        }
    }
    Ok(all)
}

/// The crate reads all other curves that gpg makes, and names this one only in its error's text.
fn unreadable(why: &pgp::errors::Error) -> KeyError {
    match format!("{why:?}").contains("Secp256k1") {
        true => KeyError::Curve("secp256k1"),
        false => KeyError::Shape,
    }
}

/// The armored texts in a file, which may follow each other; or the file, if it is not armored.
fn texts(file: &[u8]) -> Vec<&[u8]> {
    const BEGIN: &[u8] = b"-----BEGIN PGP ";
    let mut begins: Vec<usize> = memchr::memmem::find_iter(file, BEGIN).collect();
    let is_text = file.iter().all(u8::is_ascii) && !begins.is_empty();
    if !is_text {
        return vec![file];
    }
    begins.push(file.len());
    begins.windows(2).map(|pair| &file[pair[0]..pair[1]]).collect()
}

/// The first name of the key's owner, and the key's fingerprint.
pub(super) fn name(users: &[SignedUser], primary: &impl KeyDetails) -> String {
    let fingerprint = hex::encode_upper(primary.fingerprint().as_bytes());
    match users.first() {
        Some(user) => format!("{} ({fingerprint})", String::from_utf8_lossy(user.id.id())),
        None => fingerprint,
    }
}

/// The part that is chosen, and why others are not.
#[derive(Default)]
struct Choice<'a> {
    newest: Option<&'a PublicSubkey>,
    /// An algorithm that pgstow does not use.
    algorithm: Option<String>,
    unusable: Vec<String>,
}

impl<'a> Choice<'a> {
    fn take_subkey(&mut self, subkey: &'a SignedPublicSubKey, primary: &PublicKey, now: i64) {
        let key = &subkey.key;
        let id = hex::encode_upper(key.legacy_key_id().as_ref());
        let bindings = || {
            let signatures = subkey.signatures.iter();
            signatures.filter(|signature| signature.verify_subkey_binding(primary, key).is_ok())
        };
        // Even one that is older than the newest binding counts.
        if bindings().any(|signature| signature.typ() == Some(SignatureType::SubkeyRevocation)) {
            self.unusable.push(format!("{id} is revoked"));
            return;
        }
        let binds = |signature: &&Signature| signature.typ() == Some(SignatureType::SubkeyBinding);
        let Some(binding) = newest(bindings().filter(binds), now) else {
            self.unusable.push(format!("{id} has no valid signature"));
            return;
        };
        if !may_encrypt(key, binding) {
            self.unusable.push(format!("{id} may not encrypt"));
        } else if has_expired(key, binding, now) {
            self.unusable.push(format!("{id} has expired"));
        } else if let Some(algorithm) = refused(key.public_params()) {
            self.algorithm = Some(algorithm);
        } else if self.newest.is_none_or(|newest| newest.created_at() <= key.created_at()) {
            self.newest = Some(key);
        }
    }
}

/// The primary key's newest signature of itself: it says until when the key is valid.
fn own_signature(key: &SignedPublicKey, now: i64) -> Option<&Signature> {
    let primary = &key.primary_key;
    let of_users = key.details.users.iter().filter_map(|user| {
        let valid = |signature: &&Signature| {
            let is_own = signature.is_certification() || signature.typ() == Some(SignatureType::CertRevocation);
            is_own && signature.verify_certification(primary, Tag::UserId, &user.id).is_ok()
        };
        // A name that is revoked says nothing more.
        newest(user.signatures.iter().filter(valid), now).filter(|signature| signature.is_certification())
    });
    let direct = key.details.direct_signatures.iter();
    let direct =
        direct.filter(|signature| signature.typ() == Some(SignatureType::Key) && signature.verify_key(primary).is_ok());
    newest(of_users.chain(direct), now)
}

/// The newest signature that holds at this time.
fn newest<'a>(signatures: impl Iterator<Item = &'a Signature>, now: i64) -> Option<&'a Signature> {
    let holds = |signature: &&Signature| {
        let expires = signature.signature_expiration_time();
        let created = signature.created();
        created.is_some_and(|created| i64::from(created.as_secs()) <= now && !has_ended(created, expires, now))
    };
    signatures.filter(holds).max_by_key(|signature| signature.created())
}

fn has_expired(key: &impl KeyDetails, signature: &Signature, now: i64) -> bool {
    has_ended(key.created_at(), signature.key_expiration_time(), now)
}

/// No time and a time of zero mean for ever.
fn has_ended(created: pgp::types::Timestamp, span: Option<pgp::types::Duration>, now: i64) -> bool {
    let seconds = span
        .map(|span| i64::from(span.as_secs()))
        .filter(|seconds| *seconds > 0);
    seconds.is_some_and(|seconds| i64::from(created.as_secs()) + seconds <= now)
}

/// Whether the signature lets the key encrypt. An old one without flags lets it do what its algorithm can do.
fn may_encrypt(key: &impl KeyDetails, signature: &Signature) -> bool {
    let mut subpackets = signature
        .config()
        .into_iter()
        .flat_map(SignatureConfig::hashed_subpackets);
    let has_flags = subpackets.any(|subpacket| matches!(subpacket.data, SubpacketData::KeyFlags(_)));
    let flags = signature.key_flags();
    let can_encrypt = matches!(
        key.public_params(),
        PublicParams::RSA(_)
            | PublicParams::ECDH(_)
            | PublicParams::Elgamal(_)
            | PublicParams::X25519(_)
            | PublicParams::X448(_)
    );
    can_encrypt && (!has_flags || flags.encrypt_comms() || flags.encrypt_storage())
}

fn named(curve: &ECCCurve) -> String {
    format!("the curve {curve}")
}

/// The name of an algorithm that pgstow does not encrypt with.
fn refused(params: &PublicParams) -> Option<String> {
    match params {
        PublicParams::RSA(rsa) => {
            // A number begins with its length in bits.
            let bytes = rsa.to_bytes().unwrap_or_default();
            let bits = bytes.first_chunk().map_or(0, |bits| u16::from_be_bytes(*bits));
            (bits < SHORTEST_RSA).then(|| format!("RSA with {bits} bits"))
        }
        PublicParams::ECDH(
            EcdhPublicParams::Curve25519Legacy { .. }
            | EcdhPublicParams::P256 { .. }
            | EcdhPublicParams::P384 { .. }
            | EcdhPublicParams::P521 { .. },
        ) => None,
        PublicParams::ECDH(other) => Some(named(&other.curve())),
        PublicParams::Elgamal(_) => Some("ElGamal".to_owned()),
        PublicParams::X25519(_) | PublicParams::X448(_) => {
            Some("a key of RFC 9580, which gpg 2.2 does not know".to_owned())
        }
        _ => Some("an unknown algorithm".to_owned()),
    }
}
