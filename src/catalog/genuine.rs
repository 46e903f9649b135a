//! A manifest as those get it who act on it: its signature was looked at before anything in it.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{BackupId, Broken, Found, manifest_bytes};
use crate::error::{Code, Error, Result};
use crate::manifest::Manifest;
use crate::signature::{KeyId, Subject, Trust};
use crate::store::Store;

/// What a command asks of the backup that it is to use.
#[derive(Clone, Copy)]
pub struct Demand<'a> {
    /// Whose signatures count.
    pub trust: &'a Trust,
    /// The SHA-256 that the manifest must have (`--expect-manifest`).
    pub manifest: Option<[u8; 32]>,
    /// What is dated later than this is not the latest.
    pub now: Timestamp,
}

/// A manifest, and what is known of where it comes from.
#[derive(Debug)]
pub struct Genuine {
    pub manifest: Manifest,
    pub sha256: [u8; 32],
    /// Where signatures are asked for.
    pub signed_by: Option<KeyId>,
}

/// What was found where a manifest should be.
#[derive(Debug)]
pub enum Read {
    Genuine(Box<Genuine>),
    Broken(Broken),
    Missing,
    /// Not signed as it must be: `SIGNATURE`. Nothing in it was looked at.
    Unsigned(Error),
    /// Another than the one that was expected: `INTEGRITY`. The same.
    Unexpected(Error),
}

/// Reads the manifest in `id`'s folder. An error is the store's.
pub async fn read_genuine(store: &dyn Store, id: &BackupId, demand: &Demand<'_>) -> Result<Read> {
    let bytes = match manifest_bytes(store, id).await? {
        Found::Good(bytes) => bytes,
        Found::Missing => return Ok(Read::Missing),
        Found::Broken(broken) => return Ok(Read::Broken(broken)),
    };
    let sha256: [u8; 32] = Sha256::digest(&bytes).into();
    if let Some(expected) = demand.manifest.filter(|expected| *expected != sha256) {
        let (found, expected) = (hex::encode(sha256), hex::encode(expected));
        let what = format!(
            "the manifest of {id} in {} has the SHA-256 {found}, expected was {expected}",
            store.url()
        );
        return Ok(Read::Unexpected(Error::new(Code::Integrity, what).hint(
            "compare with `manifest_sha256` in the report of the backup that you mean: either it is another, or \
             somebody has written to the store",
        )));
    }
    let mut signed_by = None;
    if demand.trust.asks() {
        match demand.trust.look(store, Subject::manifest(id), &bytes).await? {
            Ok(key) => signed_by = Some(key),
            Err(flaw) => return Ok(Read::Unsigned(flaw.into_error(id, store.url()))),
        }
    }
    Ok(match Manifest::parse(&bytes, id) {
        Ok(manifest) => Read::Genuine(Box::new(Genuine {
            manifest,
            sha256,
            signed_by,
        })),
        Err(broken) => Read::Broken(broken),
    })
}

impl Read {
    /// For a command that was asked for exactly this backup.
    pub fn require(self, id: &BackupId) -> Result<Genuine> {
        match self {
            Read::Genuine(genuine) => Ok(*genuine),
            Read::Broken(broken) => Err(broken.into_error(id)),
            Read::Missing => Err(Error::new(Code::NotFound, format!("no backup {id} in the store"))),
            Read::Unsigned(error) | Read::Unexpected(error) => Err(error),
        }
    }
}
