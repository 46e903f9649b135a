//! What `list`, `status` and `prune` need of every backup: one listing, then one request per manifest and one per
//! verification, many at the same time.

use std::collections::HashMap;

use futures::stream::{self, StreamExt};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::genuine::{self, Doubt, Said};
use super::{BackupId, Listed, MANIFEST, VERIFICATION, backups, is_committed};
use crate::error::{Code, Error, Result};
use crate::repository::backup_id::{SKEW, is_ahead};
use crate::repository::manifest::{Figures, ManifestError};
use crate::repository::signature::{SignatureState, Subject, Trust};
use crate::repository::verification::{Verdict, Verification};
use crate::store::{Object, Store, is_archived, limits};

/// Requests in progress at the same time.
const AT_ONCE: usize = 32;
/// The memory for all files that are being read, in units of [`UNIT`]. A file that is larger than all of it is read
/// alone.
const ROOM: u32 = 1024;
const UNIT: u64 = 64 << 10;
/// How many files may fail to be read before the store itself counts as failed. Each of them takes all the retries of
/// a request.
const FAILURES: usize = 8;

/// One folder that has a manifest.
#[derive(Debug, Clone)]
pub struct Overview {
    pub listed: Listed,
    pub seen: ManifestState,
    /// Names of the files in the manifest that are missing or have another size.
    pub lacks: Vec<String>,
    /// The state of the manifest's signature, if signatures are required.
    pub signature: Option<SignatureState>,
    /// Why it is not the manifest that was published.
    pub altered: Option<String>,
    /// Why pgstow cannot know whether it is the manifest that was published.
    pub unsealed: Option<String>,
    pub verification: Option<Verification>,
    /// Why there is no verification although its file is there.
    pub unverifiable: Option<String>,
    /// Why the verification, or a part of it, does not count.
    pub doubtful: Option<String>,
}

/// The result of reading the manifest.
#[derive(Debug, Clone, PartialEq)]
pub enum ManifestState {
    Backup(Box<Figures>),
    Broken(ManifestError),
    /// It is in an archive class. Whether the backup is good is known only after a person fetches it back; the text
    /// says how.
    Archived(String),
    /// The store failed to return it.
    Unread(String),
}

impl Overview {
    pub fn id(&self) -> &BackupId {
        &self.listed.id
    }

    pub fn figures(&self) -> Option<&Figures> {
        match &self.seen {
            ManifestState::Backup(figures) => Some(figures),
            ManifestState::Broken(_) | ManifestState::Archived(_) | ManifestState::Unread(_) => None,
        }
    }

    /// What is wrong with the manifest, in a sentence.
    pub fn flaw(&self) -> Option<String> {
        match &self.seen {
            ManifestState::Backup(_) => self.altered.clone(),
            ManifestState::Broken(broken) => Some(broken.to_string()),
            ManifestState::Archived(why) | ManifestState::Unread(why) => Some(why.clone()),
        }
    }

    pub fn is_archived(&self) -> bool {
        matches!(self.seen, ManifestState::Archived(_))
    }

    pub fn verdict(&self) -> Verdict {
        self.verification
            .as_ref()
            .map_or(Verdict::Unproved, Verification::verdict)
    }

    /// What is wrong with the manifest's signature, if it has one.
    pub fn forgery(&self) -> Option<String> {
        match &self.signature {
            Some(SignatureState::Bad { why }) => Some(format!("manifest.json {why}")),
            _ => None,
        }
    }

    /// Whether a trusted key signed it, or signatures are not required.
    pub fn is_trusted(&self) -> bool {
        self.signature.as_ref().is_none_or(SignatureState::is_signed)
    }

    /// Whether its id, or one of its own times, is in the future.
    pub fn is_ahead(&self, now: Timestamp) -> bool {
        let said = self.figures().map(|figures| [figures.timestamp, figures.finished_at]);
        self.id().is_ahead(now) || said.into_iter().flatten().any(|time| is_ahead(time, now))
    }

    /// How its times contradict each other, its id and the store's own time.
    pub fn oddities(&self) -> Option<String> {
        let figures = self.figures()?;
        contradiction_of_times(self.id(), figures.timestamp, figures.finished_at)
            .or_else(|| stored_before(figures.finished_at.max(self.id().timestamp()), self.stored()))
    }

    fn stored(&self) -> Option<Timestamp> {
        self.listed.file(MANIFEST)?.modified
    }

    /// The time of its id, or the time when the store got it, if that is earlier: a clock that was ahead must not
    /// make the backup younger than it can be.
    pub fn since(&self) -> Timestamp {
        let id = self.id().timestamp();
        match self.stored().filter(|stored| *stored > KEEPS_TIMES) {
            Some(stored) if is_ahead(id, stored) => stored,
            _ => id,
        }
    }

    /// Whether its own times are impossible.
    pub fn contradicts_itself(&self) -> bool {
        let figures = self.figures();
        figures.is_some_and(|one| contradiction_of_times(self.id(), one.timestamp, one.finished_at).is_some())
    }

    /// The manifest is whole and has the required signature, its files are there, and no check found them damaged.
    pub fn is_good(&self) -> bool {
        self.is_trusted()
            && self.figures().is_some()
            && self.altered.is_none()
            && self.lacks.is_empty()
            && self.verdict() != Verdict::Damaged
    }
}

/// How a backup's times contradict each other, or its id, whose time is that of the start.
pub fn contradiction_of_times(id: &BackupId, begun: Timestamp, finished: Timestamp) -> Option<String> {
    // If an id was taken, the run took one that is some seconds later.
    let close = |one: Timestamp, other: Timestamp| one.duration_since(other).abs() <= SKEW * 2;
    if !close(begun, id.timestamp()) {
        return Some(format!(
            "says that it started at {begun:.0}, which is not the time of its id"
        ));
    }
    (finished < begun).then(|| format!("says that it finished at {finished:.0}, before it started"))
}

/// How the store's time of a manifest contradicts the backup's: a clock was wrong when it was made, or a copy here
/// did not keep the time.
pub fn stored_before(finished: Timestamp, stored: Option<Timestamp>) -> Option<String> {
    // Some file systems keep no times.
    let stored = stored.filter(|stored| *stored > KEEPS_TIMES)?;
    is_ahead(finished, stored).then(|| {
        format!("says that it finished at {finished:.0}, but the store has had it since {stored:.0}: a clock was wrong")
    })
}

/// The largest manifest that is read again when it is broken: this is enough for some ten thousand tables.
const READ_AGAIN: u64 = 8 << 20;

/// An earlier time of a file counts as no time.
const KEEPS_TIMES: Timestamp = Timestamp::constant(315_532_800, 0);

/// Like [`backups`], but a missing folder is an error: it would be listed as empty, and look like a store without
/// backups. A store that is read-only can be read.
pub async fn reachable_folders(store: &dyn Store, database: Option<&str>) -> Result<Vec<Listed>> {
    is_reachable(store).await?;
    backups(store, database).await
}

/// For commands that only read: a read-only store is no failure.
pub async fn is_reachable(store: &dyn Store) -> Result<()> {
    match store.is_there().await {
        Err(error) if error.code() != Code::Eacces => Err(error),
        _ => Ok(()),
    }
}

/// The error if the backups that a command was given are not in the store.
pub async fn nothing_found(store: &dyn Store, database: Option<&str>, since: Option<Timestamp>) -> Error {
    // The missing backups may be in a store that was not given.
    let passed_over = match (database, since) {
        (None, None) => store.passed_over().await.unwrap_or_default(),
        _ => Vec::new(),
    };
    if let Some(first) = passed_over.into_iter().reduce(Error::also) {
        return first;
    }
    let of = database.map_or(String::new(), |database| format!(" of {database}"));
    let since = since.map_or(String::new(), |since| format!(" since {since}"));
    let error = Error::new(
        Code::NotFound,
        format!("there is no backup{of}{since} in {}", store.url()),
    );
    // Only the hint needs this: without it, the error is the same.
    let others = match database {
        Some(database) => super::spelling::others(store, database, &backups(store, None).await.unwrap_or_default()),
        None => None,
    };
    let hint = match store.lifecycle() {
        Some(_) => "check --store, its prefix, and --database",
        None => "check --store and --database; the folder's disk may not be mounted",
    };
    error.hint(others.as_deref().unwrap_or(hint))
}

/// Reads the manifests of these folders, in their order; skips folders without one. A problem of one backup is
/// reported with that backup; an error says that the store fails again and again.
///
/// If `trust` requires signatures, each manifest takes one more request, and a verification without a good signature
/// does not count.
pub async fn overviews(store: &dyn Store, listed: Vec<Listed>, trust: &Trust) -> Result<Vec<Overview>> {
    let folders = listed.into_iter().filter(|one| one.has_manifest);
    let room = Semaphore::new(ROOM as usize);
    let mut reads = stream::iter(folders)
        .map(|listed| overview(store, &room, listed, trust))
        .buffered(AT_ONCE);
    let mut found = Vec::new();
    let mut failures = 0;
    while let Some((overview, failed)) = reads.next().await {
        if let Some(error) = failed {
            failures += 1;
            if failures > FAILURES {
                return Err(error);
            }
        }
        found.extend(overview);
    }
    look_at_bases(store, &mut found).await;
    Ok(found)
}

/// A backup that refers to another one is only as good as that one. If the other is not in the list, the store is asked
/// whether it is there.
async fn look_at_bases(store: &dyn Store, found: &mut [Overview]) {
    let good: HashMap<BackupId, bool> = found.iter().map(|one| (one.id().clone(), one.is_good())).collect();
    for one in found {
        let Some(from) = one.figures().and_then(|figures| figures.references.as_ref()) else {
            continue;
        };
        let from = from.from.clone();
        let is_good = match good.get(&from) {
            Some(good) => *good,
            // If the store does not answer, nothing is known against it.
            None => is_committed(store, &from).await.unwrap_or(true),
        };
        if !is_good {
            one.lacks.push(format!("a good {from}, to which it refers"));
        }
    }
}

/// `None`: removed since the listing. The error is the store's, and is in the overview too.
async fn overview(
    store: &dyn Store,
    room: &Semaphore,
    listed: Listed,
    trust: &Trust,
) -> (Option<Overview>, Option<Error>) {
    let folder = Folder {
        store,
        room,
        listed: &listed,
        trust,
    };
    let Some(looked) = folder.manifest().await else {
        return (None, None);
    };
    let proof = match looked.failed {
        None if listed.file(VERIFICATION).is_some() && !matches!(looked.seen, ManifestState::Archived(_)) => {
            folder.verification(looked.sha256).await
        }
        _ => Proof::default(),
    };
    let lacks = match &looked.seen {
        ManifestState::Backup(figures) => listed.lacking(&figures.files).map(|file| file.name.clone()).collect(),
        ManifestState::Broken(_) | ManifestState::Archived(_) | ManifestState::Unread(_) => Vec::new(),
    };
    let overview = Overview {
        listed,
        seen: looked.seen,
        lacks,
        signature: looked.signature,
        altered: looked.doubt.altered,
        unsealed: looked.doubt.unsealed,
        verification: proof.verification,
        unverifiable: proof.unverifiable,
        doubtful: proof.doubtful,
    };
    (Some(overview), looked.failed.or(proof.failed))
}

/// The message, with the command that fetches the file back.
fn told(error: &Error) -> String {
    format!("{}: {}", error.message(), error.hint_text())
}

/// A backup's folder that is being read.
struct Folder<'a> {
    store: &'a dyn Store,
    room: &'a Semaphore,
    listed: &'a Listed,
    trust: &'a Trust,
}

/// What was found under the name of a manifest.
struct Looked {
    seen: ManifestState,
    signature: Option<SignatureState>,
    sha256: Option<[u8; 32]>,
    doubt: Doubt,
    failed: Option<Error>,
}

impl Looked {
    fn only(seen: ManifestState, failed: Option<Error>) -> Self {
        Self {
            seen,
            signature: None,
            sha256: None,
            doubt: Doubt::default(),
            failed,
        }
    }
}

/// What was found under the name of a verification.
#[derive(Default)]
struct Proof {
    verification: Option<Verification>,
    unverifiable: Option<String>,
    doubtful: Option<String>,
    failed: Option<Error>,
}

/// A manifest's digest, and its content.
type Parsed = ([u8; 32], Result<Figures, ManifestError>);

impl Folder<'_> {
    /// `None`: removed since the listing.
    async fn manifest(&self) -> Option<Looked> {
        let is_honest = self.listed.file(MANIFEST).is_some_and(|file| file.bytes <= READ_AGAIN);
        let is_wrong = |standing: &Option<SignatureState>, broken: bool| {
            broken || matches!(standing, Some(SignatureState::Bad { .. }))
        };
        let figures = match self.figures().await {
            // A bit that flipped on the way from the store does not prove that the stored file is damaged, so the
            // file is read again. A giant file is not: it was made to cost time.
            Ok(Some((standing, (_, parsed)))) if is_wrong(&standing, parsed.is_err()) && is_honest => {
                self.figures().await
            }
            Err(error) if error.code() == Code::Integrity && is_honest => self.figures().await,
            read => read,
        };
        let (signature, (sha256, parsed)) = match figures {
            Ok(None) => return None,
            Ok(Some(read)) => read,
            // This is not a file, or too long for a manifest: the store itself works.
            Err(error) if error.code() == Code::Integrity => {
                return Some(Looked::only(
                    ManifestState::Broken(ManifestError::Unreadable(error.message())),
                    None,
                ));
            }
            Err(error) if is_archived(&error) => {
                return Some(Looked::only(ManifestState::Archived(told(&error)), None));
            }
            Err(error) => return Some(Looked::only(ManifestState::Unread(error.message()), Some(error))),
        };
        let is_signed = signature.as_ref().is_some_and(SignatureState::is_signed);
        let looked = match parsed {
            Ok(figures) if is_signed => Looked::only(ManifestState::Backup(Box::new(figures)), None),
            Ok(figures) => match self.doubt(&sha256, &figures).await {
                Ok(doubt) => Looked {
                    doubt,
                    ..Looked::only(ManifestState::Backup(Box::new(figures)), None)
                },
                Err(error) if is_archived(&error) => Looked::only(ManifestState::Archived(told(&error)), None),
                Err(error) => Looked::only(ManifestState::Unread(error.message()), Some(error)),
            },
            Err(broken) => Looked::only(ManifestState::Broken(broken), None),
        };
        Some(Looked {
            signature,
            sha256: Some(sha256),
            ..looked
        })
    }

    async fn figures(&self) -> Result<Option<(Option<SignatureState>, Parsed)>> {
        let id = &self.listed.id;
        let parse = |bytes: &[u8]| (Sha256::digest(bytes).into(), Figures::parse(bytes, id));
        self.read(MANIFEST, Subject::manifest(id), parse).await
    }

    async fn doubt(&self, sha256: &[u8; 32], figures: &Figures) -> Result<Doubt> {
        let said = Said::new(figures.digest_file.as_ref(), figures.store.as_ref());
        genuine::doubt(self.store, self.listed, sha256, said).await
    }

    /// `manifest` is the digest of the manifest beside it.
    async fn verification(&self, manifest: Option<[u8; 32]>) -> Proof {
        let id = &self.listed.id;
        let parse = |bytes: &[u8]| Verification::parse_outline(bytes, id);
        let mut proof = Proof::default();
        match self.read(VERIFICATION, Subject::verification(id), parse).await {
            Ok(None) => {}
            Ok(Some((Some(standing), _))) if !standing.is_signed() => {
                proof.doubtful = Some(format!("{VERIFICATION} {}, so it does not count", standing.said()));
            }
            Ok(Some((_, Ok(read)))) => {
                let (about, others) = match manifest {
                    Some(sha256) => read.about(&sha256, self.trust.asks()),
                    None => (read, false),
                };
                proof.doubtful = others.then(|| {
                    format!(
                        "{VERIFICATION} is about another manifest than the one beside it, so that part does not count"
                    )
                });
                proof.verification = Some(about);
            }
            Ok(Some((_, Err(broken)))) => proof.unverifiable = Some(broken.to_string()),
            Err(error) if is_archived(&error) => proof.unverifiable = Some(told(&error)),
            Err(error) => {
                proof.unverifiable = Some(error.message());
                let is_the_stores = !matches!(error.code(), Code::Integrity | Code::Eacces);
                proof.failed = is_the_stores.then_some(error);
            }
        }
        proof
    }

    /// Reads, judges and parses one file, when there is room for the size that the listing gives. Keeps the room
    /// until only the parsed value is left in memory.
    async fn read<T>(
        &self,
        name: &str,
        subject: Subject<'_>,
        parse: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<(Option<SignatureState>, T)>> {
        let key = self.listed.id.key(name);
        let bytes = self
            .listed
            .file(name)
            .map_or(0, |file| file.bytes)
            .min(limits::most(&key));
        let units = u32::try_from(bytes / UNIT + 1).unwrap_or(ROOM).min(ROOM);
        let _place = self
            .room
            .acquire_many(units)
            .await
            .map_err(|error| Error::internal("the room for manifests was closed").source(error))?;
        // A verification may have been replaced since the listing by one that is a little longer.
        let most = (u64::from(units) * UNIT).max(bytes).min(limits::most(&key));
        let object: Option<Object> = self.store.get_up_to(&key, most).await?;
        let Some(object) = object else { return Ok(None) };
        let standing = self.standing(subject, &object.body).await?;
        Ok(Some((standing, parse(&object.body))))
    }

    /// `None` if signatures are not required. The error is the store's.
    async fn standing(&self, subject: Subject<'_>, bytes: &[u8]) -> Result<Option<SignatureState>> {
        if !self.trust.asks() {
            return Ok(None);
        }
        let checked = self.trust.look(self.store, subject, bytes).await?;
        Ok(Some(checked.into()))
    }
}

#[cfg(test)]
mod tests;
