//! `verify`: reads every stored byte of a backup, the way a restore does, into nowhere, and says
//! exactly what differs from the manifest.

mod data;
mod record;
mod report;
mod script;
mod seal;
mod sidecars;

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use crate::backup_id::BackupId;
use crate::catalog::{self, Demand, Listed, Located};
use crate::command::{Selection, VerifyRequest};
use crate::drill;
use crate::error::{Code, Error, Result};
use crate::manifest::{Manifest, Tally, role};
use crate::progress::Observer;
use crate::settings::{Clock, Settings};
use crate::signature::{Signer, Trust};
use crate::stop::Stop;
use crate::store::{Store, unsteady};
use crate::stored_archive::StoredArchive;
use crate::verification::Status;

pub use report::{Finding, Verified, VerifyReport};

/// What a verification works with.
pub struct Job<'a> {
    pub settings: &'a Settings,
    pub stores: &'a [Arc<dyn Store>],
    /// Whose `latest` is meant, where something names it.
    pub database: Option<&'a str>,
    pub trust: &'a Trust,
    /// Who signs the result.
    pub signer: Option<&'a Signer>,
    pub clock: Clock,
    pub stop: &'a Stop,
    pub observer: &'a Arc<dyn Observer>,
}

/// Verifies what was asked for. A backup that differs is a result, told in the report; an error
/// is what kept us from looking.
pub async fn run(job: &Job<'_>, request: &VerifyRequest) -> Result<VerifyReport> {
    match &request.selection {
        Selection::One(wanted) => {
            let demand = Demand {
                trust: job.trust,
                manifest: request.expect_manifest,
                now: (job.clock)(),
                altered: true,
            };
            let located = job
                .stop
                .or_stop(catalog::find(job.stores, wanted, job.database, &demand))
                .await?;
            let around = catalog::backups(located.store.as_ref(), Some(located.manifest.id.database()));
            let around = job.stop.or_stop(around).await?;
            Ok(VerifyReport::one(one(job, &located, &around, request.drill).await?))
        }
        Selection::All { since } => all(job, *since, request.drill).await,
    }
}

/// Every backup of the primary store, newest first. One whose manifest cannot be read, or is not
/// signed as it must be, has failed; of one that the store does not give nothing is said, and the others are
/// looked at all the same. None at all is `NOT_FOUND`: nothing was proved.
async fn all(job: &Job<'_>, since: Option<Timestamp>, drill: bool) -> Result<VerifyReport> {
    let Some(store) = job.stores.first() else {
        return Err(Error::config("no store is set"));
    };
    let listed = catalog::reachable_folders(store.as_ref(), job.database);
    let listed = job.stop.or_stop(listed).await?;
    let wanted = |one: &&Listed| one.has_manifest && since.is_none_or(|since| one.id.timestamp() >= since);
    let mut verified = Vec::new();
    let mut waiting = listed.iter().filter(wanted).map(|one| &one.id);
    while let Some(id) = waiting.next() {
        match listed_one(job, store, id, &listed, drill).await {
            Ok(Some(one)) => verified.push(one),
            // It has expired since it was listed.
            Ok(None) => {}
            Err(error) if matches!(error.code(), Code::Integrity | Code::Signature) => {
                verified.push(Verified::unreadable(id, &error));
            }
            Err(error) if is_of_the_place(error.code()) && job.stop.reason().is_none() => {
                verified.push(Verified::not_looked_at(id, &error));
                // Whoever does not answer at all would be waited for once for each backup.
                if let Err(error) = job.stop.or_stop(catalog::is_reachable(store.as_ref())).await {
                    if !is_of_the_place(error.code()) {
                        return Err(error);
                    }
                    verified.extend(waiting.by_ref().map(|id| Verified::not_looked_at(id, &error)));
                }
            }
            Err(error) => return Err(error),
        }
    }
    if verified.is_empty() {
        return Err(catalog::nothing_found(store.as_ref(), job.database, since).await);
    }
    Ok(VerifyReport::many(verified))
}

/// Whether an error with this code tells of the store or of this machine, and of no backup.
fn is_of_the_place(code: Code) -> bool {
    matches!(
        code,
        Code::Store | Code::Eacces | Code::Enoent | Code::Enospc | Code::Permission | Code::ConnErr | Code::NotProved
    )
}

/// `None`: it is no longer there.
async fn listed_one(
    job: &Job<'_>,
    store: &Arc<dyn Store>,
    id: &BackupId,
    listed: &[Listed],
    drill: bool,
) -> Result<Option<Verified>> {
    let demand = Demand {
        trust: job.trust,
        manifest: None,
        now: (job.clock)(),
        altered: true,
    };
    let found = catalog::read_genuine(store.as_ref(), id, &demand);
    let genuine = match job.stop.or_stop(found).await?.require(id) {
        Ok(genuine) => genuine,
        Err(error) if error.code() == Code::NotFound => {
            job.stop.or_stop(expired(store.as_ref(), id)).await?;
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let located = Located {
        store: Arc::clone(store),
        manifest: genuine.manifest,
        manifest_sha256: genuine.sha256,
        seal: genuine.seal,
        signed_by: genuine.signed_by,
        warnings: Vec::new(),
    };
    match one(job, &located, listed, drill).await {
        Err(error) if error.code() == Code::NotFound => {
            job.stop.or_stop(expired(store.as_ref(), id)).await?;
            Ok(None)
        }
        verified => verified.map(Some),
    }
}

/// A backup that was listed and has no manifest has expired; but its database's newest backup never does, so
/// a store that has none any more, or that lists what it does not give, has lost them.
async fn expired(store: &dyn Store, id: &BackupId) -> Result<()> {
    let listed = catalog::backups(store, Some(id.database())).await?;
    let there: Vec<&BackupId> = listed
        .iter()
        .filter(|one| one.has_manifest)
        .map(|one| &one.id)
        .collect();
    let what = if there.is_empty() {
        format!(
            "{} held backups of {} a moment ago, and holds none",
            store.url(),
            id.database()
        )
    } else if there.contains(&id) {
        format!("{} lists {}, and does not give it", store.url(), id.manifest_key())
    } else {
        return Ok(());
    };
    Err(Error::new(Code::Store, what).hint("look at the disk, or the bucket, that the store lies on, and verify again"))
}

/// `around` are the folders of its store, its own and others' of its database.
async fn one(job: &Job<'_>, located: &Located, around: &[Listed], drill: bool) -> Result<Verified> {
    let Located {
        store,
        manifest,
        manifest_sha256,
        signed_by,
        warnings,
        seal: _,
    } = located;
    let begun = Instant::now();
    job.observer.phase(&format!("verifying {}", manifest.id));
    let sealed = seal::check(located, around, (job.clock)());
    let (mut findings, unsealed) = job.stop.or_stop(sealed).await?;
    let sums = job.stop.or_stop(sidecars::check(store.as_ref(), manifest)).await?;
    findings.extend(sums.findings);
    let (data, on_the_way) = data_twice(job, store, manifest, &findings, sums.md5).await?;
    findings.extend(data.findings);
    if !findings.is_empty() {
        job.stop.or_stop(is_still_there(store.as_ref(), &manifest.id)).await?;
    }
    let mut verified = Verified::new(manifest, findings, data.read, begun.elapsed());
    verified.count(data.counted);
    verified.warnings.extend(unsealed);
    verified.warnings.extend(on_the_way);
    verified.warnings.extend(data.not_run);
    verified.manifest_sha256 = Some(hex::encode(manifest_sha256));
    verified.signed_by = *signed_by;
    verified.warnings.extend(warnings.iter().cloned());
    // Bytes that are not those of the backup prove nothing by being restored.
    let drill = drill && verified.status == Status::Ok;
    let mut recorded = None;
    if drill {
        // However the drill ends, this much is known.
        recorded = Some(recorded_result(job, located, &verified).await);
        drilled(job, located, &mut verified).await?;
    }
    if verified.drill.is_some() || verified.is_wrong() || recorded.is_none() {
        recorded = Some(recorded_result(job, located, &verified).await);
    }
    match recorded {
        Some(Err(error)) => verified
            .warnings
            .push(format!("the result could not be written beside the backup: {error}")),
        Some(Ok(())) if job.trust.asks() && job.signer.is_none() => verified.warnings.push(
            "the result is not signed, since BACKUP_SIGN_KEY is not set: it counts for nothing where BACKUP_VERIFY_KEYS is"
                .to_owned(),
        ),
        _ => {}
    }
    if verified.is_wrong() {
        // It takes no place of a good one any more: those before it may be on their way out.
        let (keep_last, database) = (job.settings.retention.keep_last, manifest.id.database());
        let retagged = catalog::retag_all(store.as_ref(), database, keep_last, (job.clock)());
        if let Err(error) = job.stop.or_stop(retagged).await {
            verified.warnings.push(format!(
                "the good backup before it may not be kept for longer than its tier says: {error}"
            ));
        }
    }
    Ok(verified)
}

/// What was found, beside the backup, as far as it is known.
async fn recorded_result(job: &Job<'_>, located: &Located, verified: &Verified) -> Result<()> {
    let Located {
        store,
        manifest,
        manifest_sha256,
        ..
    } = located;
    let now = (job.clock)();
    let verify = verified.outcome(now).of_manifest(manifest_sha256);
    let drill = verified.drill.as_ref();
    let drill = drill.map(|drill| drill.outcome(now).of_manifest(manifest_sha256));
    record::record(job, store.as_ref(), &manifest.id, manifest_sha256, |verification| {
        verification.verify = Some(verify.clone());
        if let Some(drill) = &drill {
            verification.drilled(drill.clone());
        }
    })
    .await
}

/// What is missing of a backup that was removed meanwhile is no damage.
async fn is_still_there(store: &dyn Store, id: &BackupId) -> Result<()> {
    match catalog::is_committed(store, id).await? {
        true => Ok(()),
        false => Err(Error::new(
            Code::NotFound,
            format!("{id} was removed from {} while it was being verified", store.url()),
        )),
    }
}

/// Drills it, and tells what came of that. An error ends the whole run: it is to stop, or its time is over. Any other
/// that kept us from trying is this backup's answer.
async fn drilled(job: &Job<'_>, located: &Located, verified: &mut Verified) -> Result<()> {
    let drill_job = drill::Job {
        settings: job.settings,
        clock: job.clock,
        stop: job.stop,
        observer: job.observer,
    };
    let mut drilled = drill::run(&drill_job, located).await;
    if let Err(error) = &drilled
        && error.code() == Code::Integrity
    {
        // What it read just now was right, a moment before: is it that no more, or was it changed on the way?
        let (store, manifest) = (&located.store, &located.manifest);
        let again = async {
            let sums = job.stop.or_stop(sidecars::check(store.as_ref(), manifest)).await?;
            let mut found = sums.findings;
            let (data, _) = data_twice(job, store, manifest, &found, sums.md5).await?;
            found.extend(data.findings);
            Ok::<_, Error>(found)
        };
        let found = match again.await {
            Ok(found) => found,
            Err(error) if is_of_the_place(error.code()) => {
                verified.could_not_be_drilled(&error);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if !found.is_empty() {
            verified.is_damaged_after_all(found);
            return Ok(());
        }
        let first = error.message();
        drilled = match drill::run(&drill_job, located).await {
            Err(error) if error.code() == Code::Integrity => {
                Err(unsteady(&manifest.id.folder(), store.url()).source(error))
            }
            drilled => drilled,
        };
        if drilled.is_ok() {
            verified.warnings.push(format!(
                "the drill was begun again, since what it read came right when it was read again: {first}: {}",
                crate::aws::BYTES_CHANGE
            ));
        }
    }
    match drilled {
        Ok(drill) => verified.drilled(drill),
        Err(error) if matches!(error.code(), Code::Interrupted(_) | Code::Deadline) => return Err(error),
        Err(error) => verified.could_not_be_drilled(&error),
    }
    Ok(())
}

/// The data, and once more where something is wrong: a bit that was flipped on the way says nothing about
/// what is stored. What is found twice alike is damage; what only once is told as a warning. Where it
/// comes differently each time, nothing can be said: `STORE`.
async fn data_twice(
    job: &Job<'_>,
    store: &Arc<dyn Store>,
    manifest: &Manifest,
    so_far: &[Finding],
    md5: Option<[u8; 16]>,
) -> Result<(Data, Option<String>)> {
    let seen = data(job, store, manifest, so_far, md5).await?;
    if seen.findings.is_empty() {
        return Ok((seen, None));
    }
    let first = seen.findings;
    job.observer.phase(&format!("reading {} again", manifest.id));
    let seen = data(job, store, manifest, so_far, md5).await?;
    let with = |findings| Data { findings, ..seen };
    let second = seen.findings;
    let once = first.iter().filter(|finding| !second.contains(finding)).count()
        + second.iter().filter(|finding| !first.contains(finding)).count();
    if once == 0 || second.is_empty() {
        let on_the_way = (once > 0).then(|| {
            format!(
                "{} differences in its data were not there when it was read again, so they are not in the store: {}",
                first.len(),
                crate::aws::BYTES_CHANGE
            )
        });
        return Ok((with(second), on_the_way));
    }
    let both: Vec<Finding> = first.into_iter().filter(|finding| second.contains(finding)).collect();
    if both.is_empty() {
        let key = manifest.id.folder();
        return Err(unsteady(&key, store.url()));
    }
    let on_the_way = format!(
        "{once} more differences in its data were there in one of two readings alone: {}",
        crate::aws::BYTES_CHANGE
    );
    Ok((with(both), Some(on_the_way)))
}

/// What was seen of the archive or the script.
struct Data {
    /// Bytes.
    read: u64,
    findings: Vec<Finding>,
    /// Of a script whose manifest says nothing of its tables.
    counted: Option<Tally>,
    /// Why a script would not be run by this version, although its bytes are right.
    not_run: Option<String>,
}

impl From<(u64, Vec<Finding>)> for Data {
    fn from((read, findings): (u64, Vec<Finding>)) -> Self {
        Data {
            read,
            findings,
            counted: None,
            not_run: None,
        }
    }
}

async fn data(
    job: &Job<'_>,
    store: &Arc<dyn Store>,
    manifest: &Manifest,
    so_far: &[Finding],
    md5: Option<[u8; 16]>,
) -> Result<Data> {
    let work = async {
        if manifest.files.contains_key(role::SQL) {
            return data::script(store, manifest, md5, job.observer).await;
        }
        // Without its table of contents the blocks cannot be told apart: that is reported, and
        // the object's own digest is what is left to check.
        match StoredArchive::open(store.as_ref(), manifest).await {
            Ok(archive) => Ok(data::archive(store, archive, md5, job.observer).await?.into()),
            Err(error) if error.code() == Code::Integrity => {
                let name = manifest.files.get(role::TOC).map_or("manifest.json", |file| &file.name);
                let told = so_far.iter().any(|finding| finding.file == name);
                let finding = (!told).then(|| Finding::of_file(name, error.message()));
                let (read, mut findings) = data::object(store, manifest, md5, job.observer).await?;
                findings.extend(finding);
                Ok((read, findings).into())
            }
            Err(error) => Err(error),
        }
    };
    job.stop.or_stop(work).await
}
