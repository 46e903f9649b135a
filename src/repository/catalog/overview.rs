//! What lists, status and prune want to know of every backup: a listing, then one request per
//! manifest and one per verification, many at once.

use futures::stream::{self, StreamExt};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::genuine::{self, Doubt, Said};
use super::{BackupId, Listed, MANIFEST, VERIFICATION, backups};
use crate::error::{Code, Error, Result};
use crate::repository::backup_id::{SKEW, is_ahead};
use crate::repository::manifest::{Broken, Figures};
use crate::repository::signature::{Standing, Subject, Trust};
use crate::repository::verification::{Verdict, Verification};
use crate::store::{Object, Store, is_archived, limits};

/// Requests on their way at once.
const AT_ONCE: usize = 32;
/// What the objects on their way may have in memory together, in units of [`UNIT`]. One that is larger
/// than all of it comes alone.
const ROOM: u32 = 1024;
const UNIT: u64 = 64 << 10;
/// Files that may refuse to be read before the store itself counts as failing: each of them costs
/// all the patience that a request has.
const FAILURES: usize = 8;

/// One folder that has a manifest.
#[derive(Debug, Clone)]
pub struct Overview {
    pub listed: Listed,
    pub seen: Seen,
    /// Names of the files that the manifest names and that are not there with their sizes.
    pub lacks: Vec<String>,
    /// How the manifest stands, where signatures are asked for.
    pub signature: Option<Standing>,
    /// Why the manifest is not the one that was published.
    pub altered: Option<String>,
    /// Why nobody knows whether it is.
    pub unsealed: Option<String>,
    pub verification: Option<Verification>,
    /// Why there is none although its file is there.
    pub unverifiable: Option<String>,
    /// Why the verification, or a part of it, counts for nothing.
    pub doubtful: Option<String>,
}

/// What the manifest turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    Backup(Box<Figures>),
    Broken(Broken),
    /// It is in an archive class: whether the backup is good is not known until it was fetched back, as this says.
    Archived(String),
    /// The store failed to give it.
    Unread(String),
}

impl Overview {
    pub fn id(&self) -> &BackupId {
        &self.listed.id
    }

    pub fn figures(&self) -> Option<&Figures> {
        match &self.seen {
            Seen::Backup(figures) => Some(figures),
            Seen::Broken(_) | Seen::Archived(_) | Seen::Unread(_) => None,
        }
    }

    /// What is wrong with the manifest, in a sentence.
    pub fn flaw(&self) -> Option<String> {
        match &self.seen {
            Seen::Backup(_) => self.altered.clone(),
            Seen::Broken(broken) => Some(broken.to_string()),
            Seen::Archived(why) | Seen::Unread(why) => Some(why.clone()),
        }
    }

    pub fn is_archived(&self) -> bool {
        matches!(self.seen, Seen::Archived(_))
    }

    pub fn verdict(&self) -> Verdict {
        self.verification
            .as_ref()
            .map_or(Verdict::Unproved, Verification::verdict)
    }

    /// What is wrong with the manifest's signature, where it has one.
    pub fn forgery(&self) -> Option<String> {
        match &self.signature {
            Some(Standing::Bad { why }) => Some(format!("manifest.json {why}")),
            _ => None,
        }
    }

    /// Signed by a key that counts, or signatures are not asked for.
    pub fn is_trusted(&self) -> bool {
        self.signature.as_ref().is_none_or(Standing::is_signed)
    }

    /// Whether its id, or what it says of its own times, lies in the future.
    pub fn is_ahead(&self, now: Timestamp) -> bool {
        let said = self.figures().map(|figures| [figures.timestamp, figures.finished_at]);
        self.id().is_ahead(now) || said.into_iter().flatten().any(|time| is_ahead(time, now))
    }

    /// What its times say against each other, its id and the store's own.
    pub fn oddities(&self) -> Option<String> {
        let figures = self.figures()?;
        contradiction_of_times(self.id(), figures.timestamp, figures.finished_at)
            .or_else(|| stored_before(figures.finished_at.max(self.id().timestamp()), self.stored()))
    }

    fn stored(&self) -> Option<Timestamp> {
        self.listed.file(MANIFEST)?.modified
    }

    /// Its id's time, or when the store took it, where that is earlier: a clock that was ahead must not make
    /// it younger than it can be.
    pub fn since(&self) -> Timestamp {
        let id = self.id().timestamp();
        match self.stored().filter(|stored| *stored > KEEPS_TIMES) {
            Some(stored) if is_ahead(id, stored) => stored,
            _ => id,
        }
    }

    /// Whether what it says of its own times cannot be.
    pub fn contradicts_itself(&self) -> bool {
        let figures = self.figures();
        figures.is_some_and(|one| contradiction_of_times(self.id(), one.timestamp, one.finished_at).is_some())
    }

    /// Its manifest is whole and as it must be signed, its files are there, and nobody has found
    /// them wanting.
    pub fn is_good(&self) -> bool {
        self.is_trusted()
            && self.figures().is_some()
            && self.altered.is_none()
            && self.lacks.is_empty()
            && self.verdict() != Verdict::Damaged
    }
}

/// What a backup's times say against each other and against its id, whose time is that of its start.
pub fn contradiction_of_times(id: &BackupId, begun: Timestamp, finished: Timestamp) -> Option<String> {
    // Ids are made later where others were taken, by seconds.
    let close = |one: Timestamp, other: Timestamp| one.duration_since(other).abs() <= SKEW * 2;
    if !close(begun, id.timestamp()) {
        return Some(format!(
            "says that it was begun at {begun:.0}, which is not the time of its id"
        ));
    }
    (finished < begun).then(|| format!("says that it was finished at {finished:.0}, before it was begun"))
}

/// What the store's time of a manifest says against the backup's: a clock was wrong when it was made, or
/// the time was lost on its way here.
pub fn stored_before(finished: Timestamp, stored: Option<Timestamp>) -> Option<String> {
    // Some file systems keep no times.
    let stored = stored.filter(|stored| *stored > KEEPS_TIMES)?;
    is_ahead(finished, stored).then(|| {
        format!(
            "says that it was finished at {finished:.0}, but the store has had it since {stored:.0}: a clock was wrong"
        )
    })
}

/// Bytes of a manifest that is read again when it is broken: it may tell of some ten thousands of tables.
const READ_AGAIN: u64 = 8 << 20;

/// Earlier times of files mean that there are none.
const KEEPS_TIMES: Timestamp = Timestamp::constant(315_532_800, 0);

/// As [`backups`], of a store that is there. One whose folder is gone lists as empty, and would
/// pass for a store without backups; one that may not be written to can be read all the same.
pub async fn reachable_folders(store: &dyn Store, database: Option<&str>) -> Result<Vec<Listed>> {
    is_reachable(store).await?;
    backups(store, database).await
}

/// For whoever only reads: that it may not be written to is no failure.
pub async fn is_reachable(store: &dyn Store) -> Result<()> {
    match store.is_there().await {
        Err(error) if error.code() != Code::Eacces => Err(error),
        _ => Ok(()),
    }
}

/// For a command that was asked for backups of a store that has none of them.
pub async fn nothing_found(store: &dyn Store, database: Option<&str>, since: Option<Timestamp>) -> Error {
    // They may be where nobody has looked.
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
    // For the hint alone: without it, the error is the same.
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

/// Reads the manifests of these folders, in their order; those without one are passed over. What
/// is wrong with one backup is told with it; an error means that the store keeps failing.
///
/// Where `trust` asks for signatures, each manifest costs one request more, and a verification
/// without a good one counts for nothing.
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
    Ok(found)
}

/// `None`: removed since it was listed. The error is the store's, and stands in the overview too.
async fn overview(
    store: &dyn Store,
    room: &Semaphore,
    listed: Listed,
    trust: &Trust,
) -> (Option<Overview>, Option<Error>) {
    let id = &listed.id;
    let (mut signature, mut manifest, mut doubt) = (None, None, Doubt::default());
    let subject = Subject::manifest(id);
    let figures = async || {
        read(store, room, &listed, MANIFEST, trust, subject, |bytes| {
            (<[u8; 32]>::from(Sha256::digest(bytes)), Figures::parse(bytes, id))
        })
        .await
    };
    let is_honest = listed.file(MANIFEST).is_some_and(|file| file.bytes <= READ_AGAIN);
    let is_wrong = |standing: &Option<Standing>, broken: bool| broken || matches!(standing, Some(Standing::Bad { .. }));
    let figures = match figures().await {
        // A bit that was flipped on the way says nothing about what is stored. Giants are not read again: they are
        // made to cost much.
        Ok(Some((standing, (_, parsed)))) if is_wrong(&standing, parsed.is_err()) && is_honest => figures().await,
        Err(error) if error.code() == Code::Integrity && is_honest => figures().await,
        read => read,
    };
    let (seen, mut failed) = match figures {
        Ok(None) => return (None, None),
        Ok(Some((standing, (sha256, figures)))) => {
            let is_signed = standing.as_ref().is_some_and(Standing::is_signed);
            (signature, manifest) = (standing, Some(sha256));
            match figures {
                Ok(figures) if is_signed => (Seen::Backup(Box::new(figures)), None),
                Ok(figures) => match doubt_of(store, &listed, &sha256, &figures).await {
                    Ok(found) => {
                        doubt = found;
                        (Seen::Backup(Box::new(figures)), None)
                    }
                    Err(error) if is_archived(&error) => (Seen::Archived(told(&error)), None),
                    Err(error) => (Seen::Unread(error.message()), Some(error)),
                },
                Err(broken) => (Seen::Broken(broken), None),
            }
        }
        // What lies there is no file of a manifest's length: nothing is wrong with the store.
        Err(error) if error.code() == Code::Integrity => (Seen::Broken(Broken::Unreadable(error.message())), None),
        Err(error) if is_archived(&error) => (Seen::Archived(told(&error)), None),
        Err(error) => (Seen::Unread(error.message()), Some(error)),
    };
    let (mut verification, mut unverifiable, mut doubtful) = (None, None, None);
    let is_read = failed.is_none() && !matches!(seen, Seen::Archived(_));
    if listed.file(VERIFICATION).is_some() && is_read {
        let parse = |bytes: &[u8]| Verification::parse_outline(bytes, id);
        match read(
            store,
            room,
            &listed,
            VERIFICATION,
            trust,
            Subject::verification(id),
            parse,
        )
        .await
        {
            Ok(None) => {}
            Ok(Some((Some(standing), _))) if !standing.is_signed() => {
                doubtful = Some(format!("{VERIFICATION} {}, so it counts for nothing", standing.said()));
            }
            Ok(Some((_, Ok(read)))) => {
                let (about, others) = match manifest {
                    Some(sha256) => read.about(&sha256, trust.asks()),
                    None => (read, false),
                };
                doubtful = others.then(|| {
                    format!(
                        "{VERIFICATION} speaks of another manifest than the one beside it, so that counts for nothing"
                    )
                });
                verification = Some(about);
            }
            Ok(Some((_, Err(broken)))) => unverifiable = Some(broken.to_string()),
            Err(error) if matches!(error.code(), Code::Integrity | Code::Eacces) => {
                unverifiable = Some(error.message());
            }
            Err(error) if is_archived(&error) => unverifiable = Some(told(&error)),
            Err(error) => {
                unverifiable = Some(error.message());
                failed = Some(error);
            }
        }
    }
    let lacks = match &seen {
        Seen::Backup(figures) => listed.lacking(&figures.files).map(|file| file.name.clone()).collect(),
        Seen::Broken(_) | Seen::Archived(_) | Seen::Unread(_) => Vec::new(),
    };
    let overview = Overview {
        listed,
        seen,
        lacks,
        signature,
        altered: doubt.altered,
        unsealed: doubt.unsealed,
        verification,
        unverifiable,
        doubtful,
    };
    (Some(overview), failed)
}

/// With the command that fetches it back.
fn told(error: &Error) -> String {
    format!("{}: {}", error.message(), error.hint_text())
}

async fn doubt_of(store: &dyn Store, listed: &Listed, sha256: &[u8; 32], figures: &Figures) -> Result<Doubt> {
    let said = Said::new(figures.digest_file.as_ref(), figures.store.as_ref());
    genuine::doubt(store, listed, sha256, said).await
}

/// `None` where signatures are not asked for. The error is the store's.
async fn standing(store: &dyn Store, trust: &Trust, subject: Subject<'_>, bytes: &[u8]) -> Result<Option<Standing>> {
    if !trust.asks() {
        return Ok(None);
    }
    let checked = trust.look(store, subject, bytes).await?;
    Ok(Some(checked.into()))
}

/// Reads, judges and parses one file, when there is room for as many bytes as the listing says that it has.
/// The room is kept until nothing but the parsed value is left of it.
async fn read<T>(
    store: &dyn Store,
    room: &Semaphore,
    listed: &Listed,
    name: &str,
    trust: &Trust,
    subject: Subject<'_>,
    parse: impl FnOnce(&[u8]) -> T,
) -> Result<Option<(Option<Standing>, T)>> {
    let key = listed.id.key(name);
    let bytes = listed.file(name).map_or(0, |file| file.bytes).min(limits::most(&key));
    let units = u32::try_from(bytes / UNIT + 1).unwrap_or(ROOM).min(ROOM);
    let _place = room
        .acquire_many(units)
        .await
        .map_err(|error| Error::internal("the room for manifests was closed").source(error))?;
    // A verification may have been replaced since by one that is a little longer.
    let most = (u64::from(units) * UNIT).max(bytes).min(limits::most(&key));
    let object: Option<Object> = store.get_up_to(&key, most).await?;
    let Some(object) = object else { return Ok(None) };
    let standing = standing(store, trust, subject, &object.body).await?;
    Ok(Some((standing, parse(&object.body))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::catalog::tests::{id, plant};
    use crate::repository::manifest::tests::sample;
    use crate::repository::retention::Tier;
    use crate::store::memory::{Fault, MemoryStore, Op};

    async fn all(store: &MemoryStore) -> Result<Vec<Overview>> {
        let listed = reachable_folders(store, None).await?;
        overviews(store, listed, &Trust::default()).await
    }

    #[tokio::test]
    async fn five_thousand_backups_cost_one_listing_and_one_request_each() {
        let store = MemoryStore::without_lifecycle();
        let first = id("shop/20100101T040500Z-full").timestamp();
        for day in 0..5_000 {
            let at = first + jiff::SignedDuration::from_hours(24 * day);
            let id = BackupId::next("shop", crate::repository::backup_id::Kind::Full, at, None);
            let bytes = sample(&id, Tier::Daily).to_bytes().unwrap();
            store.plant(&id.manifest_key(), bytes, &[]);
        }
        let newest = "shop/20230909T040500Z-full";
        store.plant(&format!("{newest}/verification.json"), "{", &[]);
        let found = all(&store).await.unwrap();
        assert_eq!(found.len(), 5_000);
        assert_eq!(found[0].id().to_string(), newest);
        assert_eq!(found[0].figures().unwrap().tables.rows, 3);
        // To see whether it is there, the databases, the listing, and one verification.
        assert_eq!(store.requests(), 5_000 + 4);
        assert_eq!(store.calls(Op::Get).len(), 5_001);
    }

    #[tokio::test]
    async fn what_is_wrong_with_one_backup_is_told_with_it() {
        let store = MemoryStore::without_lifecycle();
        let day = |day: u32| id(&format!("shop/202501{day:02}T040500Z-full"));
        for number in 1..=5 {
            plant(&store, &sample(&day(number), Tier::Daily), "");
        }
        store.plant(&day(5).manifest_key(), "{\"schema\":", &[]);
        store.plant(&day(4).manifest_key(), "{\"schema\": 3}", &[]);
        let copied = sample(&day(1), Tier::Daily).to_bytes().unwrap();
        store.plant(&day(3).manifest_key(), copied, &[]);
        store.remove(&day(2).key("shop.toc"));
        store.plant(&day(1).key(VERIFICATION), "[]", &[]);
        store.plant("shop/20250106T040500Z-full/shop.dump", "x", &[]);
        let found = all(&store).await.unwrap();
        assert_eq!(found.len(), 5);
        for (overview, flaw) in found.iter().zip(["not JSON", "schema 3", "copied or moved"]) {
            assert!(overview.flaw().unwrap().contains(flaw), "{:?}", overview.seen);
            assert!(!overview.is_good());
        }
        assert_eq!(found[3].lacks, ["shop.toc"]);
        assert!(!found[3].is_good());
        assert!(found[4].unverifiable.is_some() && found[4].is_good());
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_told_and_a_store_that_keeps_failing_is_an_error() {
        let store = MemoryStore::without_lifecycle();
        for number in 1..=20 {
            plant(
                &store,
                &sample(&id(&format!("shop/202501{number:02}T040500Z-full")), Tier::Daily),
                "",
            );
        }
        store.fault(Op::Get, 1, Fault::Reject);
        let found = all(&store).await.unwrap();
        assert_eq!(found.iter().filter(|one| one.flaw().is_some()).count(), 1);
        for nth in 1..=20 {
            store.fault(Op::Get, nth, Fault::Reject);
        }
        assert_eq!(all(&store).await.unwrap_err().code(), Code::Store);
    }
}
