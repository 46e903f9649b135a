//! Where a stream stands: what the store holds of it, what the server has of its slot, and what follows from both.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::error::{Code, Error, Result};
use crate::format::Lsn;
use crate::postgres::{Slot, SlotName, StreamSource};
use crate::repository::backup_id::{BackupId, BackupKind, CATALOG};
use crate::repository::catalog::{self, Demand, Genuine, Listed, Read};
use crate::repository::manifest::{Manifest, SnapshotRecord, Stream, role};
use crate::repository::seen_catalog::SeenCatalog;
use crate::repository::signature::Trust;
use crate::store::Store;

/// How many manifests of one kind are read in search of a good one.
const ASKED: usize = 5;

/// How many manifests of fulls are read in search of the first base of a stream.
const FULLS: usize = 50;

/// What the store holds.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The newest increment.
    pub last: Option<Last>,
    /// The newest full.
    pub full: Option<Full>,
}

/// The newest increment: the next one goes on from here.
#[derive(Debug, Clone)]
pub(super) struct Last {
    pub id: BackupId,
    pub stream: Stream,
    pub catalog: Option<SeenCatalog>,
}

#[derive(Debug, Clone)]
pub(super) struct Full {
    pub database_oid: Option<u32>,
    pub system_identifier: Option<String>,
    pub snapshot: SnapshotRecord,
    pub catalog: Option<SeenCatalog>,
}

/// What the next increment has to do.
#[derive(Debug)]
pub(super) enum Standing {
    /// It goes on where the last one ended.
    GoesOn(Box<Last>),
    /// It is the first of a new stream, which begins behind `from`. The full is its base, if the stream has every
    /// transaction that the full does not see.
    Begins { from: Lsn, full: Box<Full> },
    /// The chain cannot be continued: a new full is needed, and perhaps a new slot.
    Broken { why: String, needs_slot: bool },
}

/// The stream's source as the server describes it now.
pub(super) struct Now<'a> {
    pub source: &'a StreamSource,
    pub database_oid: u32,
    pub slot: Option<&'a Slot>,
    /// How many of the stream's two publications exist.
    pub publications: usize,
}

/// `CONFIG` if increments were never started (there is neither a slot nor an increment), or if they were stopped: a run
/// that a forgotten schedule starts must not make a slot again, because the server would keep its log for it.
pub(super) fn standing(held: Held, name: &SlotName, now: &Now<'_>) -> Result<Standing> {
    let broken = |why: String, needs_slot| Ok(Standing::Broken { why, needs_slot });
    let Some(slot) = now.slot else {
        return match held.last {
            None => Err(not_started(name)),
            Some(last) if last.stream.slot != name.slot() => broken(
                format!(
                    "the store has moved since the last increment, and the slot {name} of the new place is missing"
                ),
                true,
            ),
            // A promoted standby has the publications and no slot. `incremental stop` drops both.
            Some(_) if now.publications == 0 => Err(stopped(name)),
            Some(_) => broken(format!("the slot {name} is missing"), true),
        };
    };
    if now.publications < 2 {
        return broken("a publication of the stream is missing".into(), true);
    }
    if slot.is_lost() {
        let why = slot
            .invalidation
            .as_deref()
            .or(slot.wal_status.as_deref())
            .unwrap_or("lost");
        return broken(format!("the server has given the slot {name} up: {why}"), true);
    }
    let Some(confirmed) = slot.confirmed else {
        return broken(format!("the slot {name} has no position"), true);
    };
    let gap = match held.last {
        None => None,
        Some(last) => match discontinuity(&last.stream, name, now, confirmed) {
            None => return Ok(Standing::GoesOn(Box::new(last))),
            Some(why) => Some((last, why)),
        },
    };
    match held.full {
        Some(full) if is_base(&full, now, confirmed) => Ok(Standing::Begins {
            from: confirmed,
            full: Box::new(full),
        }),
        _ => match gap {
            None => broken("there is no full backup from after the slot was made".into(), false),
            // A slot that another server has copied may have lost transactions.
            Some((last, why)) => {
                let moved = last.stream.timeline != now.source.timeline
                    || last.stream.system_identifier != now.source.system_identifier;
                broken(why, moved)
            }
        },
    }
}

/// Why the stream does not go on where its last increment ended.
fn discontinuity(stream: &Stream, name: &SlotName, now: &Now<'_>, confirmed: Lsn) -> Option<String> {
    let Stream { to, .. } = stream;
    if stream.slot != name.slot() {
        return Some(format!("the last increment is of another slot, {}", stream.slot));
    }
    if stream.system_identifier != now.source.system_identifier {
        return Some(format!(
            "the server is another: its system identifier is {}, that of the last increment was {}",
            now.source.system_identifier, stream.system_identifier
        ));
    }
    if stream.timeline != now.source.timeline {
        return Some(format!(
            "the server was promoted or restored: its timeline is {}, that of the last increment was {}",
            now.source.timeline, stream.timeline
        ));
    }
    if stream.database_oid != now.database_oid {
        return Some("the database was dropped and created again".into());
    }
    if confirmed > *to {
        return Some(format!(
            "the slot is at {confirmed}, but the last increment ends at {to}: another program has read it, or an increment \
             is gone from the store"
        ));
    }
    if now.source.flushed < *to {
        return Some(format!(
            "the server's log ends at {}, before the last increment does ({to}): it was restored to an earlier time",
            now.source.flushed
        ));
    }
    None
}

/// Whether the stream from `confirmed` on leads from this full.
fn is_base(full: &Full, now: &Now<'_>, confirmed: Lsn) -> bool {
    let is_of = |known: &Option<String>| {
        known
            .as_ref()
            .is_none_or(|known| *known == now.source.system_identifier)
    };
    let timeline = full.snapshot.end.and_then(|end| end.timeline);
    begun(full).is_some_and(|begun| begun >= confirmed && begun <= now.source.flushed)
        && !full.snapshot.hides_transactions()
        && is_of(&full.system_identifier)
        && full.database_oid == Some(now.database_oid)
        && timeline.is_none_or(|timeline| timeline == now.source.timeline)
}

/// The position before the snapshot of a full.
fn begun(full: &Full) -> Option<Lsn> {
    full.snapshot.lsn.as_deref()?.parse().ok()
}

fn stopped(name: &SlotName) -> Error {
    Error::config(format!(
        "increments were stopped for this database and this store: the slot {name} and its publications are gone"
    ))
    .hint("run `pgstow incremental start` to begin a new chain; otherwise remove the schedule that makes increments")
}

fn not_started(name: &SlotName) -> Error {
    Error::config(format!(
        "increments were not started for this database and this store: there is no slot {name}, and no increment in the \
         store"
    ))
    .hint("run `pgstow incremental start` once: it makes the slot and the publications, and then a full backup")
}

/// Reads the newest good increment and the newest good full of a database.
pub(super) async fn held(store: &dyn Store, listed: &[Listed], trust: &Trust, now: Timestamp) -> Result<Held> {
    let mut held = Held::default();
    for kind in [BackupKind::Incremental, BackupKind::Full] {
        let finished = listed
            .iter()
            .filter(|one| one.has_manifest && one.id.kind() == kind && !one.id.is_ahead(now));
        for one in finished.take(ASKED) {
            let Some(manifest) = genuine(store, one, trust, now).await? else {
                continue;
            };
            let catalog = catalog_of(store, &manifest).await?;
            match manifest.increment {
                Some(increment) => {
                    held.last = Some(Last {
                        id: manifest.id,
                        stream: increment.stream,
                        catalog,
                    });
                }
                None => {
                    held.full = Some(Full {
                        database_oid: manifest.server.database_oid,
                        system_identifier: manifest.server.system_identifier,
                        snapshot: manifest.snapshot,
                        catalog,
                    });
                }
            }
            break;
        }
    }
    Ok(held)
}

/// The oldest full from which the stream from `confirmed` on leads: the first increment has what was changed since that
/// one, not only since the newest.
pub(super) async fn first_base(
    store: &dyn Store,
    listed: &[Listed],
    (now, confirmed): (&Now<'_>, Lsn),
    (trust, at): (&Trust, Timestamp),
    suits: impl Fn(&SnapshotRecord) -> bool,
) -> Result<Option<Full>> {
    let mut first = None;
    let is_full = |one: &&Listed| one.has_manifest && one.id.kind() == BackupKind::Full && !one.id.is_ahead(at);
    for one in listed.iter().filter(is_full).take(FULLS) {
        let Some(manifest) = genuine(store, one, trust, at).await? else {
            continue;
        };
        let full = Full {
            catalog: catalog_of(store, &manifest).await?,
            database_oid: manifest.server.database_oid,
            system_identifier: manifest.server.system_identifier,
            snapshot: manifest.snapshot,
        };
        if begun(&full).is_none_or(|begun| begun < confirmed) {
            break;
        }
        if is_base(&full, now, confirmed) && suits(&full.snapshot) {
            first = Some(full);
        }
    }
    Ok(first)
}

/// The manifest, if the backup is whole and, where that is asked for, signed.
async fn genuine(store: &dyn Store, listed: &Listed, trust: &Trust, now: Timestamp) -> Result<Option<Manifest>> {
    let demand = Demand {
        trust,
        manifest: None,
        now,
        altered: false,
    };
    let read = catalog::read_genuine(store, &listed.id, &demand).await?;
    let Read::Genuine(genuine) = read else {
        return Ok(None);
    };
    let Genuine { manifest, .. } = *genuine;
    let is_whole = listed.lacking(&manifest.files).next().is_none();
    Ok(is_whole.then_some(manifest))
}

/// The catalog beside a manifest. Without it, or if it is damaged, the tables need baselines.
async fn catalog_of(store: &dyn Store, manifest: &Manifest) -> Result<Option<SeenCatalog>> {
    let Some(file) = manifest.files.get(role::CATALOG) else {
        return Ok(None);
    };
    let key = manifest.id.key(CATALOG);
    let read = async {
        let object = store.get(&key).await?;
        let missing = || Error::new(Code::Integrity, format!("{key} is missing"));
        let object = object.ok_or_else(missing)?;
        if hex::encode(Sha256::digest(&object.body)) != file.sha256 {
            return Err(Error::new(Code::Integrity, format!("{key} differs from its manifest")));
        }
        SeenCatalog::parse(&object.body, &manifest.id)
    };
    match read.await {
        Ok(catalog) => Ok(Some(catalog)),
        Err(error) if error.code() == Code::Integrity => {
            tracing::warn!("{error}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
