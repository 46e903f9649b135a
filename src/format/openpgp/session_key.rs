//! The key of AES-256 that encrypts messages.

use std::fmt;

use rand_core::{OsRng, RngCore};
use secrecy::zeroize::Zeroizing;

use super::error::KeyError;

/// A secret: it is never printed, and its memory is overwritten when it is dropped.
#[derive(Clone)]
pub struct SessionKey(Zeroizing<[u8; SessionKey::LENGTH]>);

impl SessionKey {
    pub const LENGTH: usize = 32;

    pub fn generate() -> Result<Self, KeyError> {
        let mut key = Zeroizing::new([0; Self::LENGTH]);
        random(&mut *key)?;
        Ok(Self(key))
    }

    pub fn new(bytes: Zeroizing<[u8; Self::LENGTH]>) -> Self {
        Self(bytes)
    }

    pub(super) fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut key = Zeroizing::new([0; Self::LENGTH]);
        (bytes.len() == Self::LENGTH).then(|| key.copy_from_slice(bytes))?;
        Some(Self(key))
    }

    /// Only for the cipher, and for those that encrypt the key itself.
    pub(super) fn expose(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SessionKey(…)")
    }
}

pub(super) fn random(bytes: &mut [u8]) -> Result<(), KeyError> {
    OsRng.try_fill_bytes(bytes).map_err(|_| KeyError::NoRandom)
}
