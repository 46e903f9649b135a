//! Chooses the backups and stores to verify: exactly the backups that were asked for, in each store that has them. No
//! other backup stands for one that is missing.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::request::Proofs;
use super::{Job, Verified, VerifyReport, in_one_store, is_of_the_place, keep_the_one_before};
use crate::error::{Code, Error, Result};
use crate::job::verify::VerifyRequest;
use crate::repository::backup_id::BackupId;
use crate::repository::catalog::{self, Demand, Genuine, Listed, Located, Read};
use crate::repository::verification::VerificationStatus;
use crate::store::Store;

/// Verifies one backup in each store that has it. Only the one in the first store is drilled.
pub(super) async fn one(job: &Job<'_>, wanted: &str, request: &VerifyRequest) -> Result<VerifyReport> {
    let meant = catalog::meant(job.stores, wanted, job.database, (job.clock)());
    let mut meant = job.stop.or_stop(meant).await?;
    let id = &meant.id;
    let mut verified: Vec<Verified> = Vec::new();
    let (mut unexpected, mut lacking) = (None, Vec::new());
    for (at, store) in job.stores.iter().enumerate() {
        let failed = meant.failed.iter().position(|(failed, _)| *failed == at);
        let seen = match failed.map(|failed| meant.failed.swap_remove(failed).1) {
            Some(error) => Err(error),
            None => {
                in_store(
                    job,
                    store,
                    id,
                    request.expect_manifest,
                    if at == 0 { request.proofs() } else { Proofs::default() },
                )
                .await
            }
        };
        match seen {
            Ok(InStore::Verified(one)) => verified.push(one.marked_as_copy(at > 0)),
            Ok(InStore::Unsigned(error)) if at > 0 => {
                verified.push(Verified::unreadable(id, store.url(), &error).marked_as_copy(true));
            }
            // Another person has written to the store.
            Ok(InStore::Unsigned(error)) => return Err(error),
            Ok(InStore::Unexpected(error)) => unexpected = unexpected.or(Some(error)),
            Ok(InStore::Missing) => lacking.push(at),
            Err(error) if job.stores.len() > 1 && job.stop.reason().is_none() && is_of_the_place(error.code()) => {
                verified.push(Verified::not_looked_at(id, store.url(), &error).marked_as_copy(at > 0));
            }
            Err(error) => return Err(error),
        }
    }
    let Some(holder) = verified.first().map(|one| one.store.clone()) else {
        return Err(match (unexpected, job.stores.first()) {
            (Some(error), _) => error,
            (None, Some(first)) => job.stop.or_stop(catalog::not_there(first.as_ref(), id)).await?,
            (None, None) => Error::config("no store is set"),
        });
    };
    for at in lacking {
        let store = &job.stores[at];
        if at > 0 {
            verified[0].warnings.push(lacks(store.as_ref(), id));
            continue;
        }
        let error = job.stop.or_stop(catalog::not_there(store.as_ref(), id)).await?;
        let mut one = not_in_the_first(store.as_ref(), id, &holder, &error, meant.is_lost);
        if meant.is_lost {
            keep_the_one_before(job, store.as_ref(), &mut one).await;
        }
        verified.insert(0, one);
    }
    verified[0].warnings.extend(meant.warnings);
    without_chain(&mut verified, request.proofs());
    Ok(VerifyReport::one(verified))
}

/// Who asks for the proof of a chain must not take the absence of a chain for a proof.
fn without_chain(verified: &mut [Verified], proofs: Proofs) {
    if !proofs.chain || verified.iter().any(Verified::is_about_a_chain) {
        return;
    }
    let what = "no chain of increments joins an earlier full backup to it, so there is nothing to prove";
    let error = Error::new(Code::NotProved, what)
        .hint("name a full backup that increments have reached, and that has another one before it");
    if let Some(one) = verified.first_mut().filter(|one| one.status == VerificationStatus::Ok) {
        one.could_not_be_chained(&error);
    }
}

/// A backup that only `holder` has. `error`: the first store does not. `is_lost`: it should.
fn not_in_the_first(first: &dyn Store, id: &BackupId, holder: &str, error: &Error, is_lost: bool) -> Verified {
    if is_lost {
        let what = format!(
            "{}: it was made for this store too, but only {holder} has it",
            error.message()
        );
        return Verified::unreadable(id, first.url(), &Error::new(Code::Integrity, what));
    }
    let what = format!("{}; {holder} has it", error.message());
    let hint = format!("to verify only that one, name only its store: --store {holder}");
    Verified::not_looked_at(id, first.url(), &Error::new(Code::NotFound, what).hint(hint))
}

fn lacks(copy: &dyn Store, id: &BackupId) -> String {
    format!("{} does not hold {id}: this backup has no copy there", copy.url())
}

/// The state of a backup in one store.
enum InStore {
    Verified(Box<Verified>),
    Missing,
    /// No key that counts signed it.
    Unsigned(Error),
    /// Its manifest has another digest than the one that was asked for: each store's manifest has a digest of its own.
    Unexpected(Error),
}

async fn in_store(
    job: &Job<'_>,
    store: &Arc<dyn Store>,
    id: &BackupId,
    manifest: Option<[u8; 32]>,
    proofs: Proofs,
) -> Result<InStore> {
    let demand = Demand {
        trust: job.trust,
        manifest,
        now: (job.clock)(),
        altered: true,
    };
    let found = catalog::read_genuine(store.as_ref(), id, &demand);
    let genuine = match job.stop.or_stop(found).await? {
        Read::Genuine(genuine) => *genuine,
        Read::Missing => {
            // If the store is not there, for example because a disk is not mounted, its contents are unknown.
            job.stop.or_stop(catalog::is_reachable(store.as_ref())).await?;
            return Ok(InStore::Missing);
        }
        Read::Unsigned(error) => return Ok(InStore::Unsigned(error)),
        Read::Unexpected(error) => return Ok(InStore::Unexpected(error)),
        Read::Broken(broken) => {
            let mut one = Verified::unreadable(id, store.url(), &broken.into_error(id));
            keep_the_one_before(job, store.as_ref(), &mut one).await;
            return Ok(InStore::Verified(Box::new(one)));
        }
    };
    let around = catalog::backups(store.as_ref(), Some(id.database()));
    let around = job.stop.or_stop(around).await?;
    let located = Located::new(store, genuine, Vec::new());
    let verified = in_one_store(job, &located, &around, proofs).await?;
    Ok(InStore::Verified(Box::new(verified)))
}

/// Verifies every backup of every store, newest first. A backup has failed if its manifest cannot be read or lacks a
/// signature that it must have. If a store does not return a backup, that one is not verified, and the others are. If
/// the first store has no backup, the error is `NOT_FOUND`, because nothing was proved.
pub(super) async fn all(job: &Job<'_>, since: Option<Timestamp>, proofs: Proofs) -> Result<VerifyReport> {
    let Some((store, copies)) = job.stores.split_first() else {
        return Err(Error::config("no store is set"));
    };
    let listed = catalog::reachable_folders(store.as_ref(), job.database);
    let listed = job.stop.or_stop(listed).await?;
    let mut verified = all_in(job, store, &listed, since, proofs).await?;
    if verified.is_empty() {
        return Err(catalog::nothing_found(store.as_ref(), job.database, since).await);
    }
    for copy in copies {
        let listed = match job
            .stop
            .or_stop(catalog::reachable_folders(copy.as_ref(), job.database))
            .await
        {
            Ok(listed) => listed,
            Err(error) if is_of_the_place(error.code()) && job.stop.reason().is_none() => {
                let newest = verified[0].id.clone();
                verified.push(Verified::not_looked_at(&newest, copy.url(), &error).marked_as_copy(true));
                continue;
            }
            Err(error) => return Err(error),
        };
        without_copy(&mut verified, copy.as_ref(), &listed);
        let there = all_in(job, copy, &listed, since, Proofs::default()).await?;
        verified.extend(there.into_iter().map(|one| one.marked_as_copy(true)));
    }
    without_chain(&mut verified, proofs);
    Ok(VerifyReport::many(verified))
}

/// Reports the backups of the first store that a copy lacks: the newest of each database, and those newer than the
/// copy's oldest. A copy may have started later, or expire backups sooner.
fn without_copy(verified: &mut [Verified], copy: &dyn Store, listed: &[Listed]) {
    let there: BTreeSet<&BackupId> = listed
        .iter()
        .filter(|one| one.has_manifest)
        .map(|one| &one.id)
        .collect();
    let mut databases = BTreeSet::new();
    for one in verified.iter_mut().filter(|one| !one.is_copy) {
        let is_newest = databases.insert(one.id.database().to_owned());
        let mut of_same = there.iter().filter(|id| id.database() == one.id.database());
        let is_between = of_same.any(|id| id.timestamp() < one.id.timestamp());
        if (is_newest || is_between) && !there.contains(&one.id) {
            one.warnings.push(lacks(copy, &one.id));
        }
    }
}

async fn all_in(
    job: &Job<'_>,
    store: &Arc<dyn Store>,
    listed: &[Listed],
    since: Option<Timestamp>,
    proofs: Proofs,
) -> Result<Vec<Verified>> {
    let wanted = |one: &&Listed| one.has_manifest && since.is_none_or(|since| one.id.timestamp() >= since);
    let mut verified = Vec::new();
    let mut waiting = listed.iter().filter(wanted).map(|one| &one.id);
    while let Some(id) = waiting.next() {
        match listed_one(job, store, id, listed, proofs).await {
            Ok(Some(one)) => verified.push(one),
            // It has expired after it was listed.
            Ok(None) => {}
            Err(error) if matches!(error.code(), Code::Integrity | Code::Signature) => {
                verified.push(Verified::unreadable(id, store.url(), &error));
            }
            Err(error) if is_of_the_place(error.code()) && job.stop.reason().is_none() => {
                verified.push(Verified::not_looked_at(id, store.url(), &error));
                // If a store does not answer at all, pgstow would wait for it once for each backup.
                if let Err(error) = job.stop.or_stop(catalog::is_reachable(store.as_ref())).await {
                    if !is_of_the_place(error.code()) {
                        return Err(error);
                    }
                    let rest = waiting.by_ref();
                    verified.extend(rest.map(|id| Verified::not_looked_at(id, store.url(), &error)));
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(verified)
}

/// `None`: the backup is no longer there.
async fn listed_one(
    job: &Job<'_>,
    store: &Arc<dyn Store>,
    id: &BackupId,
    listed: &[Listed],
    proofs: Proofs,
) -> Result<Option<Verified>> {
    let demand = Demand {
        trust: job.trust,
        manifest: None,
        now: (job.clock)(),
        altered: true,
    };
    let found = catalog::read_genuine(store.as_ref(), id, &demand);
    let genuine: Genuine = match job.stop.or_stop(found).await?.require(id) {
        Ok(genuine) => genuine,
        Err(error) if error.code() == Code::NotFound => {
            job.stop.or_stop(expired(store.as_ref(), id)).await?;
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let located = Located::new(store, genuine, Vec::new());
    match in_one_store(job, &located, listed, proofs).await {
        Err(error) if error.code() == Code::NotFound => {
            job.stop.or_stop(expired(store.as_ref(), id)).await?;
            Ok(None)
        }
        verified => verified.map(Some),
    }
}

/// A listed backup without a manifest has expired. But the newest backup of a database never expires: if the store has
/// none any more, or lists one that it does not return, it has lost them.
async fn expired(store: &dyn Store, id: &BackupId) -> Result<()> {
    let listed = catalog::backups(store, Some(id.database())).await?;
    let there: Vec<&BackupId> = listed
        .iter()
        .filter(|one| one.has_manifest)
        .map(|one| &one.id)
        .collect();
    let what = if there.is_empty() {
        format!(
            "{} held backups of {} a moment ago, but now holds none",
            store.url(),
            id.database()
        )
    } else if there.contains(&id) {
        format!("{} lists {}, but does not return it", store.url(), id.manifest_key())
    } else {
        return Ok(());
    };
    Err(Error::new(Code::Store, what).hint("check the disk or bucket of the store, then verify again"))
}
