//! A manifest as those get it who act on it: its signature was looked at before anything in it.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::publish::digest_line;
use super::{BackupId, Broken, Found, Listed, MANIFEST, MANIFEST_DIGEST, backups, manifest_bytes};
use crate::error::{Code, Error, Result};
use crate::manifest::Manifest;
use crate::retention::SHA256_TAG;
use crate::signature::{KeyId, Subject, Trust};
use crate::store::{Store, unsteady};

/// What a command asks of the backup that it is to use.
#[derive(Clone, Copy)]
pub struct Demand<'a> {
    /// Whose signatures count.
    pub trust: &'a Trust,
    /// The SHA-256 that the manifest must have (`--expect-manifest`).
    pub manifest: Option<[u8; 32]>,
    /// What is dated later than this is not the latest.
    pub now: Timestamp,
    /// Whether a manifest is wanted all the same that is not what the digest beside it says.
    pub altered: bool,
}

/// A manifest, and what is known of where it comes from.
#[derive(Debug)]
pub struct Genuine {
    pub manifest: Manifest,
    pub sha256: [u8; 32],
    pub seal: Seal,
    /// Where signatures are asked for.
    pub signed_by: Option<KeyId>,
}

/// What the file beside a manifest says of its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seal {
    Same,
    /// There is none: a backup that was made before there was one, or it was taken away.
    None,
    /// Another than the manifest has, in a sentence: one of the two is not what it was.
    Different(String),
    /// The same; but the object's tag, or the next backup's manifest, knows this one.
    Attested(String),
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
///
/// A bit that was flipped on the way says nothing about what is stored: what is wrong with it, or what
/// nothing vouches for, has to come twice alike.
pub async fn read_genuine(store: &dyn Store, id: &BackupId, demand: &Demand<'_>) -> Result<Read> {
    let (key, url) = (id.manifest_key(), store.url());
    let mut before = None;
    for time in 0..READS {
        let Looked { read, sha256, is_sound } = look(store, id, demand, time > 0).await?;
        let same = before.replace(sha256).is_none_or(|before| before == sha256);
        if !same {
            tracing::warn!("{key} in {url} came differently when it was read again");
        }
        if is_sound || (time > 0 && same) {
            return Ok(read);
        }
    }
    Err(unsteady(&key, url))
}

/// Of one manifest, until it is sound, or comes twice alike.
const READS: usize = 4;

/// What was found at one time.
struct Looked {
    read: Read,
    /// Of what lay there, where it could be read.
    sha256: Option<[u8; 32]>,
    /// Something outside of it says that it is what it was.
    is_sound: bool,
}

/// Looks once. `again`: what contradicts the manifest is held against all others that know of it.
async fn look(store: &dyn Store, id: &BackupId, demand: &Demand<'_>, again: bool) -> Result<Looked> {
    let bytes = match manifest_bytes(store, id).await? {
        Found::Good(bytes) => bytes,
        Found::Missing => {
            return Ok(Looked {
                read: Read::Missing,
                sha256: None,
                is_sound: true,
            });
        }
        Found::Broken(broken) => {
            return Ok(Looked {
                read: Read::Broken(broken),
                sha256: None,
                is_sound: false,
            });
        }
    };
    let sha256: [u8; 32] = Sha256::digest(&bytes).into();
    let wrong = |read: Read| Looked {
        read,
        sha256: Some(sha256),
        is_sound: false,
    };
    let mut seal = seal(store, id, &sha256).await?;
    if again {
        seal = attested(store, id, &sha256, seal).await?;
    }
    if let Some(expected) = demand.manifest.filter(|expected| *expected != sha256) {
        let (found, expected) = (hex::encode(sha256), hex::encode(expected));
        let what = format!(
            "the manifest of {id} in {} has the SHA-256 {found}, expected was {expected}",
            store.url()
        );
        let error = Error::new(Code::Integrity, what).hint(
            "compare with `manifest_sha256` in the report of the backup that you mean: either it is another, or \
             somebody has written to the store",
        );
        return Ok(wrong(Read::Unexpected(error)));
    }
    let mut signed_by = None;
    if demand.trust.asks() {
        match demand.trust.look(store, Subject::manifest(id), &bytes).await? {
            Ok(key) => signed_by = Some(key),
            Err(flaw) => return Ok(wrong(Read::Unsigned(flaw.into_error(id, store.url())))),
        }
    }
    // Whoever names the very manifest, or has signed it, needs no file that does.
    let is_vouched_for = demand.manifest.is_some() || signed_by.is_some();
    if let Seal::Different(what) = &seal
        && !demand.altered
        && !is_vouched_for
    {
        return Ok(wrong(Read::Broken(Broken::Altered(what.clone()))));
    }
    let manifest = match Manifest::parse(&bytes, id) {
        Ok(manifest) => manifest,
        Err(broken) => return Ok(wrong(Read::Broken(broken))),
    };
    // A store may show what was put before the manifest after it.
    if seal == Seal::None && manifest.digest_file.is_some() {
        seal = self::seal(store, id, &sha256).await?;
    }
    let is_sound = match seal {
        Seal::Same | Seal::Attested(_) => true,
        Seal::None => is_vouched_for,
        Seal::Different(_) => false,
    };
    let genuine = Genuine {
        manifest,
        sha256,
        seal,
        signed_by,
    };
    Ok(Looked {
        read: Read::Genuine(Box::new(genuine)),
        sha256: Some(sha256),
        is_sound,
    })
}

/// Why the manifest in a listed folder, which had this digest when it was read, is not the one that was
/// published: by the file beside it and all others that speak of it, and twice alike.
pub(super) async fn altered(store: &dyn Store, listed: &Listed, sha256: &[u8; 32]) -> Result<Option<String>> {
    let id = &listed.id;
    let unlike = |seal: &Seal| matches!(seal, Seal::Different(_));
    if listed.file(MANIFEST_DIGEST).is_none() || !unlike(&seal(store, id, sha256).await?) {
        return Ok(None);
    }
    let Found::Good(bytes) = manifest_bytes(store, id).await? else {
        return Ok(None);
    };
    let again: [u8; 32] = Sha256::digest(&bytes).into();
    match attested(store, id, &again, seal(store, id, &again).await?).await? {
        Seal::Different(what) => Ok(Some(what)),
        _ => Ok(None),
    }
}

/// Where the file beside a manifest contradicts it, others are asked which of the two is what it was.
async fn attested(store: &dyn Store, id: &BackupId, sha256: &[u8; 32], seal: Seal) -> Result<Seal> {
    let Seal::Different(what) = seal else {
        return Ok(seal);
    };
    let hex = hex::encode(sha256);
    if let Some(lifecycle) = store.lifecycle() {
        let tags = lifecycle.tags(&id.manifest_key()).await?.unwrap_or_default();
        if tags.iter().any(|(name, said)| name == SHA256_TAG && *said == hex) {
            return Ok(Seal::Attested(what));
        }
    }
    let later = backups(store, Some(id.database())).await?;
    let later = later.iter().filter(|one| one.has_manifest && one.id > *id);
    let Some(next) = later.map(|one| &one.id).min() else {
        return Ok(Seal::Different(what));
    };
    let next = manifest_bytes(store, next).await?.good().and_then(|bytes| {
        let manifest = Manifest::parse(&bytes, next).ok()?;
        manifest.predecessor
    });
    match next {
        Some(before) if before.id == *id && before.manifest_sha256 == hex => Ok(Seal::Attested(what)),
        _ => Ok(Seal::Different(what)),
    }
}

async fn seal(store: &dyn Store, id: &BackupId, sha256: &[u8; 32]) -> Result<Seal> {
    let said = match store.get(&id.key(MANIFEST_DIGEST)).await {
        Ok(Some(object)) => object.body,
        Ok(None) => return Ok(Seal::None),
        Err(error) if error.code() == Code::Integrity => {
            return Ok(Seal::Different(format!(
                "{MANIFEST_DIGEST} cannot be read: {}",
                error.message()
            )));
        }
        Err(error) => return Err(error),
    };
    if said == digest_line(sha256) {
        return Ok(Seal::Same);
    }
    let line = String::from_utf8_lossy(&said[..said.len().min(100)])
        .trim_end()
        .to_owned();
    Ok(Seal::Different(format!(
        "{MANIFEST} has the SHA-256 {}, but {MANIFEST_DIGEST} beside it says {:?}: one of the two is not what it was",
        hex::encode(sha256),
        crate::plain::line(&line)
    )))
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
