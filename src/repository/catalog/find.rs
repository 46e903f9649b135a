//! The backup that somebody asks for: by its exact id, or the latest good one. Never by a prefix:
//! `app` is not `app_prod`.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::spelling::{COMPARED, others};
use super::{
    BackupId, Demand, Found, Genuine, Listed, Read, Seal, VERIFICATION, backups, gather, is_reachable, overviews,
    read_genuine, read_manifest,
};
use crate::error::{Code, Error, Result};
use crate::repository::manifest::Manifest;
use crate::repository::signature::KeyId;
use crate::repository::verification::Verdict;
use crate::store::Store;

/// How many ids or names an error gives to choose from.
const NEAREST: usize = 3;

/// A backup, and the store to read it from.
pub struct Located {
    pub store: Arc<dyn Store>,
    pub manifest: Manifest,
    pub manifest_sha256: [u8; 32],
    /// What the file beside the manifest says of its digest.
    pub seal: Seal,
    /// The trusted key that has signed it, where signatures are asked for.
    pub signed_by: Option<KeyId>,
    /// What a person should know although a backup was found: a store that was passed over, a
    /// newer backup that cannot be used.
    pub warnings: Vec<String>,
}

impl Located {
    pub fn new(store: &Arc<dyn Store>, genuine: Genuine, mut warnings: Vec<String>) -> Self {
        if let Seal::Attested(what) = &genuine.seal {
            warnings.push(format!("{what}; others know the manifest, so it is used"));
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

/// Finds `wanted`, an id or `latest`, in the first of the stores that has it whole. `database` is
/// whose latest is meant, where something names it. When no store has it, the error is that of the
/// first, the primary.
///
/// A backup that is not signed as it must be ends the search: it is never passed over for another
/// one, nor for its copy, since somebody has written to that store.
///
/// A backup asked for by its id whose files are not all there is found all the same, with a
/// warning, unless a copy has them: what is missing may not matter for what is wanted.
///
/// What is dated later than the demand's time is not the latest, whatever it is; nor is what a check has found
/// damaged.
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

/// As [`backups`]. A store whose folder is gone lists as empty: that it is not there is another answer than that it has
/// nothing.
async fn there(store: &dyn Store, database: Option<&str>) -> Result<Vec<Listed>> {
    let listed = backups(store, database).await?;
    if listed.is_empty() {
        is_reachable(store).await?;
    }
    Ok(listed)
}

/// For a text that is no id at all.
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

/// Which backup somebody asks for who wants to know how it stands, whole or not.
pub struct Meant {
    pub id: BackupId,
    /// It was made for the first store, which has none as new.
    pub is_lost: bool,
    /// Stores that could not be asked, by their number.
    pub failed: Vec<(usize, Error)>,
    pub warnings: Vec<String>,
}

/// What [`find`] looks for, but never another one in its place: `latest` is the newest that the first store has,
/// whatever is wrong with it, or a newer one that a copy has, and that was made for the first as well.
pub async fn meant(stores: &[Arc<dyn Store>], wanted: &str, database: Option<&str>, now: Timestamp) -> Result<Meant> {
    let mut meant = None;
    let (mut failed, mut warnings) = (Vec::new(), Vec::new());
    if wanted != "latest" {
        match wanted.parse() {
            Ok(id) => meant = Some((id, false)),
            Err(_) => return Err(no_id(stores, wanted).await),
        }
    } else {
        let mut database = database.map(str::to_owned);
        let mut none = None;
        for (at, store) in stores.iter().enumerate() {
            let listed = match there(store.as_ref(), database.as_deref()).await {
                Ok(listed) => listed,
                Err(error) => {
                    failed.push((at, error));
                    continue;
                }
            };
            let (ids, ahead) = dated(store.as_ref(), &listed, now)?;
            warnings.extend(ahead.map(|error| error.message()));
            let Some(&newest) = ids.first() else {
                if at == 0 {
                    none = Some(none_good(store.as_ref(), database.as_deref()).await);
                }
                continue;
            };
            database.get_or_insert_with(|| newest.database().to_owned());
            match &meant {
                None => {
                    let is_lost = none.is_some() && was_made_for(store.as_ref(), newest, stores).await?;
                    meant = Some((newest.clone(), is_lost));
                }
                // Where the first could not be asked nobody knows what it lacks.
                Some((id, _)) if newest.timestamp() > id.timestamp() => {
                    let first_failed = failed.iter().any(|(at, _)| *at == 0);
                    if first_failed || was_made_for(store.as_ref(), newest, stores).await? {
                        meant = Some((newest.clone(), !first_failed));
                    }
                }
                Some(_) => {}
            }
        }
        if meant.is_none() {
            let failures = failed.into_iter().map(|(_, error)| error).chain(none);
            return Err(Asked {
                failures: failures.collect(),
            }
            .error());
        }
    }
    let (id, is_lost) = meant.ok_or_else(|| Error::config("no store is set"))?;
    Ok(Meant {
        id,
        is_lost,
        failed,
        warnings,
    })
}

/// Whether the manifest of a backup in a copy says that it was made for the first store.
async fn was_made_for(copy: &dyn Store, id: &BackupId, stores: &[Arc<dyn Store>]) -> Result<bool> {
    let Some(first) = stores.first() else { return Ok(false) };
    Ok(match read_manifest(copy, id).await? {
        Found::Good(manifest) => manifest.stores.iter().any(|url| url == first.url()),
        Found::Broken(_) | Found::Missing => false,
    })
}

/// For somebody who asked for exactly this backup, which is not in this store.
pub async fn not_there(store: &dyn Store, id: &BackupId) -> Result<Error> {
    // A folder that is not there has no backup, and may not be the one that is meant.
    if let Err(error) = is_reachable(store).await {
        return Ok(error);
    }
    let has_folder = !store.list(&id.folder()).await?.is_empty();
    // For the hint alone: without it, the error is the same.
    let there = backups(store, None).await.unwrap_or_default();
    Ok(missing(store, id, has_folder).hint(nearest(&id.to_string(), Some(id), &there)))
}

fn missing(store: &dyn Store, id: &BackupId, has_folder: bool) -> Error {
    let url = store.url();
    let what = if has_folder {
        format!("{id} in {url} is not a backup: it has no manifest; its run is at work, or did not come to its end")
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
            // Each store's manifest has a digest of its own.
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
            // For the hint alone: without it, the error is the same.
            let there = backups(primary.as_ref(), None).await.unwrap_or_default();
            Err(error.hint(nearest(&id.to_string(), Some(id), &there)))
        }
        _ => Err(error),
    }
}

/// Why a backup cannot be used from one store.
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

/// A backup's manifest, and what the backup lacks of the files that it names; or why it cannot be
/// used here at all.
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
            // A list has no checksum: what it lacks, or says otherwise, it has to say twice.
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
            "the file that holds the digest of the manifest of {} is not in {}, and nothing else speaks for the \
             manifest, which may be another than was stored",
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

/// The newest good backup that `store` knows of. One that is not good there is looked for in the
/// copies before an older one is taken. Without any, `asked` knows why; an error is a question to
/// the user, which no copy can answer.
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
                Ok((_, None)) if is_condemned(place.as_ref(), id, demand).await? => {
                    let what = format!("{id} in {} was found damaged by verify or a drill", place.url());
                    asked.failed(Error::new(Code::Integrity, what).hint("name it by its id to use it all the same"));
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
            // The latest is another than the expected one: an older one is not meant.
            return Err(error);
        }
        if unread {
            // It may well be good: an older one in its place would be a wrong answer.
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

/// The backups that may be the latest, newest first, and what is to be said of those that cannot be since they are
/// dated in the future. An error where they are of several databases: that is a question to the user.
fn dated<'a>(store: &dyn Store, listed: &'a [Listed], now: Timestamp) -> Result<(Vec<&'a BackupId>, Option<Error>)> {
    let url = store.url();
    let ids: Vec<&BackupId> = committed(listed).collect();
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
            "{first} in {url} is dated in the future{more}: the clock was wrong that made it, or is here, or somebody \
             made it up; `latest` passes it over"
        );
        Error::new(Code::NotFound, what).hint("name it by its id if it is the one that you want")
    });
    Ok((ids, ahead))
}

/// Whether a check has found the backup wanting here. Where signatures are asked for, a result without one counts
/// for nothing: it could bring an older backup back. Who names the manifest means that backup, and who looks for
/// damage wants to see it.
async fn is_condemned(store: &dyn Store, id: &BackupId, demand: &Demand<'_>) -> Result<bool> {
    if demand.altered || demand.manifest.is_some() {
        return Ok(false);
    }
    let listed = gather(store.list(&id.folder()).await?.into_iter());
    if listed.first().is_none_or(|one| one.file(VERIFICATION).is_none()) {
        return Ok(false);
    }
    let seen = overviews(store, listed, demand.trust).await?;
    Ok(seen.iter().any(|one| one.verdict() == Verdict::Damaged))
}

fn committed(listed: &[Listed]) -> impl Iterator<Item = &BackupId> {
    listed.iter().filter(|one| one.has_manifest).map(|one| &one.id)
}

/// Why the places that were asked before did not do, in the order in which they were asked: the
/// primary first.
#[derive(Default)]
struct Asked {
    failures: Vec<Error>,
}

impl Asked {
    fn failed(&mut self, error: Error) {
        self.failures.push(error);
    }

    /// What was found after all.
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
        // That another lacks what the first lacks goes without saying.
        let code = first.code();
        failures.filter(|error| error.code() != code).fold(first, Error::also)
    }
}

/// What an error says to somebody who asked for what is not there.
fn nearest(wanted: &str, id: Option<&BackupId>, listed: &[Listed]) -> String {
    let mut ids: Vec<&BackupId> = committed(listed).collect();
    if ids.is_empty() {
        return "no backup at all is there: check --store, its prefix too".to_owned();
    }
    let of_same = |other: &BackupId| id.is_some_and(|id| id.database() == other.database());
    if ids.iter().any(|other| of_same(other)) {
        ids.retain(|other| of_same(other));
        ids.sort_by_key(|other| id.map(|id| id.timestamp().duration_since(other.timestamp()).abs()));
    } else {
        let wanted: String = wanted.chars().take(COMPARED).collect();
        // By the whole id, its database's name, or its time, whichever was meant.
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
    format!("the nearest there: {}; or give `latest`", names.join(", "))
}

#[cfg(test)]
mod tests;
