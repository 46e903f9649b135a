//! Finds the backup that a command was given: by its exact id, or the latest good one. Never by a prefix: `app` is
//! not `app_prod`.

mod meant;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::spelling::{COMPARED, others};
use super::{
    BackupId, BackupKind, Demand, Found, Genuine, Listed, Read, Seal, VERIFICATION, backups, gather, is_reachable,
    overviews, read_genuine, read_manifest,
};
use crate::error::{Code, Error, Result};
use crate::repository::manifest::Manifest;
use crate::repository::signature::KeyId;
use crate::repository::verification::Verdict;
use crate::store::Store;

pub use meant::{Meant, meant};

/// How many ids or names an error lists as a choice.
const NEAREST: usize = 3;

/// A backup, and the store to read it from.
pub struct Located {
    pub store: Arc<dyn Store>,
    pub manifest: Manifest,
    pub manifest_sha256: [u8; 32],
    /// What the digest file beside the manifest says.
    pub seal: Seal,
    /// The trusted key that signed the manifest, if signatures are required.
    pub signed_by: Option<KeyId>,
    /// Warnings about a backup that was found: for example a store that was skipped, or a newer backup that cannot be
    /// used.
    pub warnings: Vec<String>,
}

impl Located {
    pub fn new(store: &Arc<dyn Store>, genuine: Genuine, mut warnings: Vec<String>) -> Self {
        if let Seal::Attested(what) = &genuine.seal {
            warnings.push(format!(
                "{what}; the manifest is confirmed from elsewhere, so it is used"
            ));
        }
        Self {
            store: Arc::clone(store),
            manifest: genuine.manifest,
            manifest_sha256: genuine.sha256,
            seal: genuine.seal,
            signed_by: genuine.signed_by,
            warnings,
        }
    }
}

/// Finds `wanted`, an id or `latest` (the newest full backup), in the first store that has it whole. `database`, if
/// given, is the database whose latest backup is wanted. If no store has it, the error is that of the first store, the
/// primary.
///
/// A backup without the required signature ends the search: pgstow uses neither another backup nor its copy instead,
/// because a person has written to that store.
///
/// If an id was given and some of that backup's files are missing, pgstow uses it with a warning, unless a copy has
/// the files: the command may not need them.
///
/// A backup dated later than the demand's time is never the latest. Neither is a backup that a check found damaged.
pub async fn find(
    stores: &[Arc<dyn Store>],
    wanted: &str,
    database: Option<&str>,
    demand: &Demand<'_>,
) -> Result<Located> {
    if wanted == "latest" {
        return latest(stores, database, demand).await;
    }
    match wanted.parse() {
        Ok(id) => exact(stores, &id, demand).await,
        Err(_) => Err(no_id(stores, wanted).await),
    }
}

/// Like [`backups`], but a missing folder is an error. [`backups`] lists such a store as empty, which is not the
/// same.
async fn there(store: &dyn Store, database: Option<&str>) -> Result<Vec<Listed>> {
    let listed = backups(store, database).await?;
    if listed.is_empty() {
        is_reachable(store).await?;
    }
    Ok(listed)
}

/// For a text that is not an id.
async fn no_id(stores: &[Arc<dyn Store>], wanted: &str) -> Error {
    let mut asked = Asked::default();
    for store in stores {
        match there(store.as_ref(), None).await {
            Ok(listed) => {
                let what = format!("there is no backup {wanted:?} in {}", store.url());
                return Error::new(Code::NotFound, what).hint(nearest(wanted, None, &listed));
            }
            Err(error) => asked.failed(error),
        }
    }
    asked.error()
}

/// The error for an exact backup that this store does not have.
pub async fn not_there(store: &dyn Store, id: &BackupId) -> Result<Error> {
    // If the folder is missing, there is no backup, and the folder may be the wrong one.
    if let Err(error) = is_reachable(store).await {
        return Ok(error);
    }
    let has_folder = !store.list(&id.folder()).await?.is_empty();
    // Only the hint needs this: without it, the error is the same.
    let there = backups(store, None).await.unwrap_or_default();
    Ok(missing(store, id, has_folder).hint(nearest(&id.to_string(), Some(id), &there)))
}

fn missing(store: &dyn Store, id: &BackupId, has_folder: bool) -> Error {
    let url = store.url();
    let what = if has_folder {
        format!("{id} in {url} is not a backup: it has no manifest; its run is still running, or it did not finish")
    } else {
        format!("there is no backup {id} in {url}")
    };
    Error::new(Code::NotFound, what)
}

async fn exact(stores: &[Arc<dyn Store>], id: &BackupId, demand: &Demand<'_>) -> Result<Located> {
    let mut asked = Asked::default();
    let mut lacking = None;
    for store in stores {
        match look(store.as_ref(), id, demand).await {
            Ok((genuine, None)) => return Ok(asked.found(store, genuine)),
            Ok((genuine, Some(lack))) => {
                lacking.get_or_insert((store, genuine));
                asked.failed(lack);
            }
            Err(NotUsed::Unsigned(error)) => return Err(error),
            // Each store's manifest has its own digest.
            Err(NotUsed::Unexpected(error) | NotUsed::Otherwise(error)) => asked.failed(error),
        }
    }
    if let Some((store, genuine)) = lacking {
        let warnings = asked.failures.iter().map(Error::message).collect();
        return Ok(located(store, genuine, warnings));
    }
    let error = asked.error();
    match stores.first() {
        Some(primary) if error.code() == Code::NotFound => {
            // Only the hint needs this: without it, the error is the same.
            let there = backups(primary.as_ref(), None).await.unwrap_or_default();
            Err(error.hint(nearest(&id.to_string(), Some(id), &there)))
        }
        _ => Err(error),
    }
}

/// Why a backup in one store cannot be used.
enum NotUsed {
    Unsigned(Error),
    Unexpected(Error),
    Otherwise(Error),
}

impl From<Error> for NotUsed {
    fn from(error: Error) -> Self {
        NotUsed::Otherwise(error)
    }
}

/// A backup's manifest with the files that the store lacks; or why the backup cannot be used at all.
async fn look(
    store: &dyn Store,
    id: &BackupId,
    demand: &Demand<'_>,
) -> std::result::Result<(Genuine, Option<Error>), NotUsed> {
    let listed = gather(store.list(&id.folder()).await?.into_iter()).pop();
    match read_genuine(store, id, demand).await? {
        Read::Genuine(genuine) => {
            if lack(store, &genuine.manifest, listed.as_ref()).is_none() {
                return Ok((*genuine, None));
            }
            // A listing has no checksum, so a second listing must confirm that a file is missing or has another size.
            let listed = gather(store.list(&id.folder()).await?.into_iter()).pop();
            let lack = lack(store, &genuine.manifest, listed.as_ref());
            Ok((*genuine, lack))
        }
        Read::Unsigned(error) => Err(NotUsed::Unsigned(error)),
        Read::Unexpected(error) => Err(NotUsed::Unexpected(error)),
        Read::Broken(broken) => Err(broken.into_error(id).into()),
        Read::Missing => {
            is_reachable(store).await?;
            Err(missing(store, id, listed.is_some()).into())
        }
    }
}

fn located(store: &Arc<dyn Store>, genuine: Genuine, mut warnings: Vec<String>) -> Located {
    if genuine.lacks_its_seal() {
        warnings.push(format!(
            "the file with the digest of the manifest of {} is not in {}, and nothing else confirms the \
             manifest, so it may not be the one that was stored",
            genuine.manifest.id,
            store.url()
        ));
    }
    Located::new(store, genuine, warnings)
}

fn lack(store: &dyn Store, manifest: &Manifest, listed: Option<&Listed>) -> Option<Error> {
    let of_size = |name: &str| Some(listed?.file(name)?.bytes);
    let lacks: Vec<String> = manifest
        .files
        .values()
        .filter_map(|file| match of_size(&file.name) {
            Some(bytes) if bytes == file.bytes => None,
            Some(bytes) => Some(format!("{} has {bytes} bytes and not {}", file.name, file.bytes)),
            None => Some(format!("{} is missing", file.name)),
        })
        .collect();
    (!lacks.is_empty()).then(|| {
        let (id, url) = (&manifest.id, store.url());
        Error::new(
            Code::Integrity,
            format!("{id} in {url} is not whole: {}", lacks.join(", ")),
        )
    })
}

async fn latest(stores: &[Arc<dyn Store>], database: Option<&str>, demand: &Demand<'_>) -> Result<Located> {
    let mut asked = Asked::default();
    for (at, store) in stores.iter().enumerate() {
        if let Some(found) = latest_in(store, &stores[at + 1..], database, demand, &mut asked).await? {
            return Ok(found);
        }
    }
    Err(asked.error())
}

/// The newest good backup that `store` lists. If it is not good there, pgstow looks for it in the copies before it
/// takes an older one. If there is none, `asked` holds the reasons; an error is a question to the user, which no copy
/// can answer.
async fn latest_in(
    store: &Arc<dyn Store>,
    copies: &[Arc<dyn Store>],
    database: Option<&str>,
    demand: &Demand<'_>,
    asked: &mut Asked,
) -> Result<Option<Located>> {
    let listed = match there(store.as_ref(), database).await {
        Ok(listed) => listed,
        Err(error) => {
            asked.failed(error);
            return Ok(None);
        }
    };
    let (ids, ahead) = dated(store.as_ref(), &listed, demand.now)?;
    asked.failures.extend(ahead);
    for id in ids {
        let mut unread = false;
        let mut unexpected = None;
        for (at, place) in std::iter::once(store).chain(copies).enumerate() {
            match look(place.as_ref(), id, demand).await {
                Ok((genuine, None)) if is_condemned(place.as_ref(), &genuine.manifest, demand).await? => {
                    let what = format!("{id} in {} was found damaged by verify or a drill", place.url());
                    asked.failed(Error::new(Code::Integrity, what).hint("give its id to use it anyway"));
                }
                Ok((genuine, None)) => {
                    asked.failures.extend(unexpected);
                    return Ok(Some(asked.found(place, genuine)));
                }
                Ok((_, Some(lack))) => asked.failed(lack),
                Err(NotUsed::Unsigned(error)) => return Err(error),
                Err(NotUsed::Unexpected(error)) => {
                    unexpected.get_or_insert(error);
                }
                Err(NotUsed::Otherwise(error)) => {
                    unread |= at == 0 && !matches!(error.code(), Code::Integrity | Code::NotFound);
                    asked.failed(error);
                }
            }
        }
        if let Some(error) = unexpected {
            // The latest backup is not the expected one: an older one is not meant.
            return Err(error);
        }
        if unread {
            // The backup may be good: to use an older one instead would be wrong.
            return Ok(None);
        }
    }
    asked.failed(none_good(store.as_ref(), database).await);
    Ok(None)
}

async fn none_good(store: &dyn Store, database: Option<&str>) -> Error {
    if let Err(error) = is_reachable(store).await {
        return error;
    }
    let url = store.url();
    let what = match database {
        Some(database) => format!("there is no good backup of {database} in {url}"),
        None => format!("there is no good backup in {url}"),
    };
    let there = backups(store, None).await.unwrap_or_default();
    let wanted = database.unwrap_or_default();
    let hint = others(store, wanted, &there).unwrap_or_else(|| nearest(wanted, None, &there));
    Error::new(Code::NotFound, what).hint(hint)
}

/// The backups that may be the latest, newest first, and a warning for backups dated in the future. An error if they
/// belong to several databases: that is a question to the user.
fn dated<'a>(store: &dyn Store, listed: &'a [Listed], now: Timestamp) -> Result<(Vec<&'a BackupId>, Option<Error>)> {
    let url = store.url();
    // An increment alone cannot be restored.
    let ids: Vec<&BackupId> = committed(listed).filter(|id| id.kind() == BackupKind::Full).collect();
    let databases: BTreeSet<&str> = ids.iter().map(|id| id.database()).collect();
    if databases.len() > 1 {
        let names: Vec<&str> = databases.into_iter().collect();
        let what = format!("{url} holds backups of several databases: {}", names.join(", "));
        return Err(Error::config(what).hint("name one of them: --database NAME"));
    }
    let (ahead, ids): (Vec<&BackupId>, Vec<&BackupId>) = ids.into_iter().partition(|id| id.is_ahead(now));
    let ahead = ahead.first().map(|first| {
        let more = match ahead.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let what = format!(
            "{first} in {url} is dated in the future{more}: the clock of the host that made it or of this host \
             is wrong, or a person forged it; `latest` skips it"
        );
        Error::new(Code::NotFound, what).hint("give its id if you want this one")
    });
    Ok((ids, ahead))
}

/// Whether a check found this backup damaged here. If signatures are required, an unsigned result does not count: it
/// could make pgstow use an older backup. A demand for an exact manifest means that backup, and a check for damage
/// must see it.
async fn is_condemned(store: &dyn Store, manifest: &Manifest, demand: &Demand<'_>) -> Result<bool> {
    if demand.altered || demand.manifest.is_some() {
        return Ok(false);
    }
    // A backup that refers to another one needs it.
    let other = manifest.references.as_ref().map(|references| &references.from);
    for id in std::iter::once(&manifest.id).chain(other) {
        let listed = gather(store.list(&id.folder()).await?.into_iter());
        if listed.first().is_none_or(|one| one.file(VERIFICATION).is_none()) {
            continue;
        }
        let seen = overviews(store, listed, demand.trust).await?;
        if seen.iter().any(|one| one.verdict() == Verdict::Damaged) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn committed(listed: &[Listed]) -> impl Iterator<Item = &BackupId> {
    listed.iter().filter(|one| one.has_manifest).map(|one| &one.id)
}

/// Why the stores that were read before could not give the backup, in the order of reading: the primary first.
#[derive(Default)]
struct Asked {
    failures: Vec<Error>,
}

impl Asked {
    fn failed(&mut self, error: Error) {
        self.failures.push(error);
    }

    /// The backup that was found after these failures.
    fn found(&self, store: &Arc<dyn Store>, genuine: Genuine) -> Located {
        let mut warnings: Vec<String> = self.failures.iter().map(Error::message).collect();
        if !warnings.is_empty() {
            warnings.push(format!("{} in {} is used instead", genuine.manifest.id, store.url()));
        }
        located(store, genuine, warnings)
    }

    fn error(self) -> Error {
        let mut failures = self.failures.into_iter();
        let first = failures.next().unwrap_or_else(|| Error::config("no store is set"));
        // If another store lacks the backup as well, the first store's message is enough.
        let code = first.code();
        failures.filter(|error| error.code() != code).fold(first, Error::also)
    }
}

/// The hint of an error about a backup that does not exist.
fn nearest(wanted: &str, id: Option<&BackupId>, listed: &[Listed]) -> String {
    let wants_increment = id.is_some_and(|id| id.kind() == BackupKind::Incremental);
    let mut ids: Vec<&BackupId> = committed(listed).collect();
    // There may be hundreds of increments around every full backup.
    ids.retain(|id| wants_increment || id.kind() == BackupKind::Full);
    if ids.is_empty() {
        return "the store has no backup at all: check --store and its prefix".to_owned();
    }
    let of_same = |other: &BackupId| id.is_some_and(|id| id.database() == other.database());
    if ids.iter().any(|other| of_same(other)) {
        ids.retain(|other| of_same(other));
        ids.sort_by_key(|other| id.map(|id| id.timestamp().duration_since(other.timestamp()).abs()));
    } else {
        let wanted: String = wanted.chars().take(COMPARED).collect();
        // Compares with the whole id, the database's name and the time: the user may have meant any of them.
        let distance = |id: &BackupId| {
            let text = id.to_string();
            let (database, time) = text.split_once('/').unwrap_or((&text, ""));
            [&text, database, time, id.database()]
                .map(|part| strsim::damerau_levenshtein(&wanted, part))
                .into_iter()
                .min()
        };
        ids.sort_by_cached_key(|id| (distance(id), Reverse(id.timestamp())));
    }
    let names: Vec<String> = ids.iter().take(NEAREST).map(ToString::to_string).collect();
    format!(
        "give one of the most similar ids in the store: {}; or give `latest`",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests;
