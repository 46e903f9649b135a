//! A manifest for commands that act on it: pgstow checks the signature before it uses anything in the manifest.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{BackupId, Found, Listed, MANIFEST, MANIFEST_DIGEST, ManifestError, backups, manifest_bytes};
use crate::error::{Code, Error, Result};
use crate::repository::manifest::Manifest;
use crate::repository::retention::SHA256_TAG;
use crate::repository::signature::{KeyId, Subject, Trust};
use crate::store::{Store, unsteady};

/// What a command requires of the backup that it will use.
#[derive(Clone, Copy)]
pub struct Demand<'a> {
    /// The keys whose signatures are accepted.
    pub trust: &'a Trust,
    /// The SHA-256 that the manifest must have (`--expect-manifest`).
    pub manifest: Option<[u8; 32]>,
    /// A backup dated later than this is not the latest.
    pub now: Timestamp,
    /// Whether the command also takes a manifest that contradicts the digest file beside it.
    pub altered: bool,
}

/// A manifest, and the evidence for it.
#[derive(Debug)]
pub struct Genuine {
    pub manifest: Manifest,
    pub sha256: [u8; 32],
    pub seal: Seal,
    /// The key that signed it, if signatures are required.
    pub signed_by: Option<KeyId>,
    /// The caller named exactly this manifest, or a trusted key signed it.
    is_vouched_for: bool,
}

impl Genuine {
    /// Nothing confirms the manifest, although it says that a digest file must be beside it.
    pub fn lacks_its_seal(&self) -> bool {
        self.seal == Seal::None && self.manifest.digest_file.is_some() && !self.is_vouched_for
    }
}

/// What the digest file beside a manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seal {
    Same,
    /// There is no digest file: an older version made the backup, or the file was removed. Nothing else confirms or
    /// contradicts the manifest.
    None,
    /// The file has another digest than the manifest, in a sentence: one of the two was changed. Or there is no file,
    /// and other records name another digest.
    Different(String),
    /// The digest file contradicts the manifest or is missing, but the object's tag or the next backup's manifest
    /// confirms it.
    Attested(String),
}

/// What was found under the name of a manifest.
#[derive(Debug)]
pub enum Read {
    Genuine(Box<Genuine>),
    Broken(ManifestError),
    Missing,
    /// The manifest lacks the required signature: `SIGNATURE`. Nothing in it was used.
    Unsigned(Error),
    /// The manifest is not the expected one: `INTEGRITY`. Nothing in it was used.
    Unexpected(Error),
}

/// Reads the manifest in `id`'s folder. An error is the store's.
///
/// A bit that flipped on the way from the store does not prove that the stored file is damaged. So a manifest that is
/// wrong, or that nothing confirms, is read until two reads agree.
pub async fn read_genuine(store: &dyn Store, id: &BackupId, demand: &Demand<'_>) -> Result<Read> {
    let (key, url) = (id.manifest_key(), store.url());
    let mut before = None;
    for time in 0..READS {
        let Looked { read, sha256, is_sound } = look(store, id, demand, time > 0).await?;
        let same = before.replace(sha256).is_none_or(|before| before == sha256);
        if !same {
            tracing::warn!("{key} in {url} had other bytes when it was read again");
        }
        if is_sound || (time > 0 && same) {
            return Ok(read);
        }
    }
    Err(unsteady(&key, url))
}

/// How often a manifest is read, until it is sound or two reads agree.
const READS: usize = 4;

/// The result of one read.
struct Looked {
    read: Read,
    /// The digest of the bytes, if they could be read.
    sha256: Option<[u8; 32]>,
    /// Something outside the manifest confirms it.
    is_sound: bool,
}

impl Looked {
    fn without_bytes(read: Read, is_sound: bool) -> Self {
        Self {
            read,
            sha256: None,
            is_sound,
        }
    }
}

/// Reads once. `again`: if the digest file contradicts the manifest, compares with all other records of its digest.
async fn look(store: &dyn Store, id: &BackupId, demand: &Demand<'_>, again: bool) -> Result<Looked> {
    let bytes = match manifest_bytes(store, id).await? {
        Found::Good(bytes) => bytes,
        Found::Missing => return Ok(Looked::without_bytes(Read::Missing, true)),
        Found::Broken(broken) => return Ok(Looked::without_bytes(Read::Broken(broken), false)),
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
        return Ok(wrong(Read::Unexpected(unexpected(store, id, (&sha256, &expected)))));
    }
    let signed_by = match signer(store, id, demand.trust, &bytes).await? {
        Ok(key) => key,
        Err(unsigned) => return Ok(wrong(Read::Unsigned(unsigned))),
    };
    // A manifest that the caller named exactly, or that is signed, needs no digest file.
    let is_vouched_for = demand.manifest.is_some() || signed_by.is_some();
    let is_refused = !demand.altered && !is_vouched_for;
    let refused = |what: &str| wrong(Read::Broken(ManifestError::Altered(what.to_owned())));
    if let (Seal::Different(what), true) = (&seal, is_refused) {
        return Ok(refused(what));
    }
    let manifest = match Manifest::parse(&bytes, id) {
        Ok(manifest) => manifest,
        Err(broken) => return Ok(wrong(Read::Broken(broken))),
    };
    if seal == Seal::None {
        seal = late_seal(store, &manifest, &sha256, again).await?;
    }
    if let (Seal::Different(what), true) = (&seal, is_refused) {
        return Ok(refused(what));
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
        is_vouched_for,
    };
    Ok(Looked {
        read: Read::Genuine(Box::new(genuine)),
        sha256: Some(sha256),
        is_sound,
    })
}

/// The key that signed the manifest, if signatures are asked for.
async fn signer(store: &dyn Store, id: &BackupId, trust: &Trust, bytes: &[u8]) -> Result<Result<Option<KeyId>>> {
    if !trust.asks() {
        return Ok(Ok(None));
    }
    let found = trust.look(store, Subject::manifest(id), bytes).await?;
    Ok(found.map(Some).map_err(|flaw| flaw.into_error(id, store.url())))
}

/// Looks once more for what confirms a manifest.
async fn late_seal(store: &dyn Store, manifest: &Manifest, sha256: &[u8; 32], again: bool) -> Result<Seal> {
    let mut found = Seal::None;
    // A store may show the manifest before it shows a file that was put earlier.
    if manifest.digest_file.is_some() {
        found = seal(store, &manifest.id, sha256).await?;
    }
    if found == Seal::None && again {
        let said = Said::new(manifest.digest_file.as_ref(), manifest.store.as_ref());
        found = attested_alone(store, &manifest.id, sha256, said).await?;
    }
    Ok(found)
}

/// The error for a manifest with another digest than the caller has named.
fn unexpected(store: &dyn Store, id: &BackupId, (found, expected): (&[u8; 32], &[u8; 32])) -> Error {
    let (found, expected) = (hex::encode(found), hex::encode(expected));
    let what = format!(
        "the manifest of {id} in {} has the SHA-256 {found}, expected was {expected}",
        store.url()
    );
    Error::new(Code::Integrity, what).hint(
        "compare the expected digest with `manifest_sha256` in the backup's report: if they are equal, a person has \
         changed the store; if not, give the digest of the right backup",
    )
}

/// The evidence against a manifest in a listed folder. The manifest itself is whole.
#[derive(Default)]
pub(super) struct Doubt {
    /// Why it is not the manifest that was published.
    pub altered: Option<String>,
    /// Why pgstow cannot know whether it is the manifest that was published.
    pub unsealed: Option<String>,
}

/// What a manifest says of where it is stored.
#[derive(Clone, Copy)]
pub(super) struct Said<'a> {
    /// A file with its digest must be beside it. An older version wrote none.
    names_its_seal: bool,
    /// The store that it was made for, if it says so.
    made_for: Option<&'a str>,
}

impl<'a> Said<'a> {
    pub(super) fn new(digest_file: Option<&String>, store: Option<&'a String>) -> Self {
        Self {
            names_its_seal: digest_file.is_some(),
            made_for: store.map(String::as_str),
        }
    }
}

/// What the digest file beside a manifest, and all other records of its digest, say against it. A second read must
/// confirm it. `sha256` is the digest of the manifest when it was first read.
pub(super) async fn doubt(store: &dyn Store, listed: &Listed, sha256: &[u8; 32], said: Said<'_>) -> Result<Doubt> {
    let id = &listed.id;
    let has_file = listed.file(MANIFEST_DIGEST).is_some();
    if !has_file && !said.names_its_seal {
        return Ok(Doubt::default());
    }
    match seal(store, id, sha256).await? {
        Seal::Different(_) => {}
        // The file was removed after the listing.
        Seal::None if said.names_its_seal => {}
        _ => return Ok(Doubt::default()),
    }
    let Found::Good(bytes) = manifest_bytes(store, id).await? else {
        return Ok(Doubt::default());
    };
    let again: [u8; 32] = Sha256::digest(&bytes).into();
    let seal = match seal(store, id, &again).await? {
        Seal::None => attested_alone(store, id, &again, said).await?,
        seal => attested(store, id, &again, seal).await?,
    };
    Ok(match seal {
        Seal::Different(what) => Doubt {
            altered: Some(what),
            unsealed: None,
        },
        Seal::None => Doubt {
            altered: None,
            unsealed: Some(format!(
                "{MANIFEST_DIGEST} is missing, and nothing else confirms {MANIFEST}, so it may not be the one that was \
                 stored"
            )),
        },
        Seal::Same | Seal::Attested(_) => Doubt::default(),
    })
}

/// If the digest file contradicts the manifest, other records decide which of the two was changed.
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
    Ok(match remembered(store, id).await? {
        Some(memory) if memory.sha256 == hex => Seal::Attested(what),
        _ => Seal::Different(what),
    })
}

/// If the digest file is missing, only the object's tag and the next backup's manifest can confirm or contradict the
/// manifest.
async fn attested_alone(store: &dyn Store, id: &BackupId, sha256: &[u8; 32], manifest: Said<'_>) -> Result<Seal> {
    let hex = hex::encode(sha256);
    let against = |whose: &str, said: &str| {
        Seal::Different(format!(
            "{MANIFEST} has the SHA-256 {hex}, {whose} says {said:?}, and {MANIFEST_DIGEST} is missing: the \
             manifest was changed",
            said = crate::printable::line(said)
        ))
    };
    let mut is_known = false;
    if let Some(lifecycle) = store.lifecycle() {
        // A role that may read objects but not their tags still has the next backup's manifest.
        let tags = lifecycle.tags(&id.manifest_key()).await.unwrap_or_else(|error| {
            tracing::debug!("the tags of {} were not read: {error}", id.manifest_key());
            None
        });
        let tag = tags
            .unwrap_or_default()
            .into_iter()
            .find(|(name, _)| name == SHA256_TAG);
        match tag {
            Some((_, said)) if said != hex => return Ok(against("the object's tag", &said)),
            said => is_known = said.is_some(),
        }
    }
    // A copy that was repaired from another store has that store's manifest, so this store's records do not apply.
    let is_from_here = manifest.made_for.is_none_or(|url| url == store.url());
    match remembered(store, id).await? {
        Some(memory) if memory.sha256 == hex => is_known = true,
        Some(memory) if memory.is_sealed && is_from_here => {
            return Ok(against(&format!("the manifest of {}", memory.by), &memory.sha256));
        }
        _ => {}
    }
    Ok(if is_known && manifest.names_its_seal {
        Seal::Attested(format!("{MANIFEST_DIGEST} is missing"))
    } else {
        Seal::None
    })
}

/// What the next backup's manifest records of this one's.
struct Memory {
    by: BackupId,
    sha256: String,
    /// The next backup's manifest agrees with the digest file beside it.
    is_sealed: bool,
}

async fn remembered(store: &dyn Store, id: &BackupId) -> Result<Option<Memory>> {
    let later = backups(store, Some(id.database())).await?;
    // Each kind has its own row of predecessors.
    let is_later = |one: &&Listed| one.has_manifest && one.id.kind() == id.kind() && one.id > *id;
    let later = later.iter().filter(is_later);
    let Some(by) = later.map(|one| one.id.clone()).min() else {
        return Ok(None);
    };
    let Some(bytes) = manifest_bytes(store, &by).await?.good() else {
        return Ok(None);
    };
    let before = Manifest::parse(&bytes, &by)
        .ok()
        .and_then(|manifest| manifest.predecessor);
    let Some(before) = before.filter(|before| before.id == *id) else {
        return Ok(None);
    };
    let digest: [u8; 32] = Sha256::digest(&bytes).into();
    Ok(Some(Memory {
        is_sealed: seal(store, &by, &digest).await? == Seal::Same,
        by,
        sha256: before.manifest_sha256,
    }))
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
        "{MANIFEST} has the SHA-256 {}, but {MANIFEST_DIGEST} beside it says {:?}: one of the two was changed",
        hex::encode(sha256),
        crate::printable::line(&line)
    )))
}

impl Read {
    /// For a command that was given exactly this backup.
    pub fn require(self, id: &BackupId) -> Result<Genuine> {
        match self {
            Read::Genuine(genuine) => Ok(*genuine),
            Read::Broken(broken) => Err(broken.into_error(id)),
            Read::Missing => Err(Error::new(Code::NotFound, format!("no backup {id} in the store"))),
            Read::Unsigned(error) | Read::Unexpected(error) => Err(error),
        }
    }
}

/// The content of the digest file beside a manifest: a line for `sha256sum -c`.
pub(super) fn digest_line(sha256: &[u8; 32]) -> String {
    format!("{}  {MANIFEST}\n", hex::encode(sha256))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::catalog::tests::{id, plant};
    use crate::repository::manifest::Predecessor;
    use crate::repository::manifest::tests::sample;
    use crate::repository::retention::{TIER_TAG, Tier};
    use crate::store::memory::MemoryStore;

    /// A backup whose manifest names a digest file that is missing.
    fn bare(store: &MemoryStore, tag: Option<&str>) -> (BackupId, String) {
        let mut manifest = sample(&id("shop/20250130T040500Z-full"), Tier::Daily);
        manifest.digest_file = Some(MANIFEST_DIGEST.to_owned());
        plant(store, &manifest, "daily");
        let bytes = manifest.to_bytes().unwrap();
        let sha256 = hex::encode(Sha256::digest(&bytes));
        let said = tag.map(|tag| if tag.is_empty() { sha256.clone() } else { tag.to_owned() });
        let mut tags = vec![(TIER_TAG, "daily")];
        tags.extend(said.as_deref().map(|said| (SHA256_TAG, said)));
        store.plant(&manifest.id.manifest_key(), bytes, &tags);
        (manifest.id, sha256)
    }

    async fn read(store: &MemoryStore, id: &BackupId) -> (Read, Doubt) {
        let demand = Demand {
            trust: &Trust::default(),
            manifest: None,
            now: Timestamp::now(),
            altered: false,
        };
        let listed = backups(store, Some("shop")).await.unwrap();
        let listed = listed.iter().find(|one| one.id == *id).unwrap();
        let bytes = store.body(&id.manifest_key()).unwrap();
        let said = Said {
            names_its_seal: true,
            made_for: None,
        };
        let sha256 = Sha256::digest(&bytes).into();
        let doubt = doubt(store, listed, &sha256, said).await.unwrap();
        (read_genuine(store, id, &demand).await.unwrap(), doubt)
    }

    #[tokio::test]
    async fn without_a_digest_beside_it_the_tag_speaks_for_a_manifest_or_against_it() {
        let store = MemoryStore::with_lifecycle();
        let (id, _) = bare(&store, None);
        let (found, doubt) = read(&store, &id).await;
        assert!(matches!(found, Read::Genuine(found) if found.seal == Seal::None && found.lacks_its_seal()));
        assert!(doubt.altered.is_none() && doubt.unsealed.is_some());
        let (id, _) = bare(&store, Some(""));
        let (found, doubt) = read(&store, &id).await;
        assert!(matches!(found, Read::Genuine(found) if matches!(found.seal, Seal::Attested(_))));
        assert!(doubt.altered.is_none() && doubt.unsealed.is_none());
        let (id, _) = bare(&store, Some("0815"));
        let (found, doubt) = read(&store, &id).await;
        assert!(matches!(found, Read::Broken(ManifestError::Altered(what)) if what.contains("the object's tag says")));
        assert!(doubt.altered.is_some());
    }

    #[tokio::test]
    async fn a_next_backup_that_is_itself_altered_speaks_against_nobody() {
        let store = MemoryStore::without_lifecycle();
        let (id, sha256) = bare(&store, None);
        let next = crate::repository::catalog::tests::id("shop/20250131T040500Z-full");
        let mut later = sample(&next, Tier::Daily);
        for (said, is_known) in [(&sha256, true), (&"ab".repeat(32), false)] {
            later.predecessor = Some(Predecessor {
                id: id.clone(),
                manifest_sha256: said.clone(),
            });
            plant(&store, &later, "latest");
            let (found, doubt) = read(&store, &id).await;
            assert!(matches!(found, Read::Genuine(found) if found.lacks_its_seal() != is_known));
            assert!(doubt.altered.is_none() && doubt.unsealed.is_none() == is_known);
        }
        // With its own digest it is accepted.
        let sealed = digest_line(&Sha256::digest(later.to_bytes().unwrap()).into());
        store.plant(&next.key(MANIFEST_DIGEST), sealed, &[]);
        let (found, doubt) = read(&store, &id).await;
        assert!(matches!(found, Read::Broken(ManifestError::Altered(_))));
        assert!(doubt.altered.unwrap().contains(&next.to_string()));
    }
}
