//! `verify`: reads every stored byte of a backup, the way a restore does, into nowhere, and says
//! exactly what differs from the manifest.

mod data;
mod record;
mod report;
mod request;
mod script;
mod seal;
mod sidecars;
mod stores;

use std::sync::Arc;
use std::time::Instant;

use crate::error::{Code, Error, Result};
use crate::job::drill;
use crate::repository::backup_id::BackupId;
use crate::repository::catalog::{self, Listed, Located};
use crate::repository::manifest::{Manifest, Tally, role};
use crate::repository::signature::{Signer, Trust};
use crate::repository::stored_archive::{StoredArchive, file_of};
use crate::repository::verification::Status;
use crate::run::clock::Clock;
use crate::run::progress::Observer;
use crate::run::stop::Stop;
use crate::settings::Settings;
use crate::store::{Store, unsteady};

pub use crate::repository::verification::Finding;
pub use report::{Verified, VerifyReport};
pub use request::{Selection, VerifyRequest};
use sidecars::Md5s;

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
        Selection::One(wanted) => stores::one(job, wanted, request).await,
        Selection::All { since } => stores::all(job, *since, request.drill).await,
    }
}

/// `around` are the folders of its store, its own and others' of its database.
async fn in_one_store(job: &Job<'_>, located: &Located, around: &[Listed], drill: bool) -> Result<Verified> {
    let Located {
        store,
        manifest,
        manifest_sha256,
        signed_by,
        warnings,
        seal: _,
    } = located;
    let begun = Instant::now();
    job.observer
        .phase(&format!("verifying {} in {}", manifest.id, store.url()));
    let sealed = seal::check(located, around, (job.clock)());
    let (mut findings, unsealed) = job.stop.or_stop(sealed).await?;
    let sums = job.stop.or_stop(sidecars::check(store.as_ref(), manifest)).await?;
    findings.extend(sums.findings);
    let (data, on_the_way) = data_twice(job, store, manifest, &findings, &sums.md5).await?;
    findings.extend(data.findings);
    if !findings.is_empty() {
        job.stop.or_stop(is_still_there(store.as_ref(), &manifest.id)).await?;
    }
    let read = data.read + sums.bytes;
    let mut verified = Verified::new(manifest, store.url(), findings, read, begun.elapsed());
    verified.count(data.counted);
    verified.warnings.extend(unsealed);
    verified.warnings.extend(on_the_way);
    verified.warnings.extend(data.not_run);
    verified.manifest_sha256 = Some(hex::encode(manifest_sha256));
    verified.signed_by = *signed_by;
    verified.warnings.extend(warnings.iter().cloned());
    if verified.is_of_the_clock() {
        verified.warnings.push(
            "the result is not kept beside the backup: the clock that is wrong may be this machine's, and nothing else was \
             found"
                .to_owned(),
        );
        return Ok(verified);
    }
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
        keep_the_one_before(job, store.as_ref(), &mut verified).await;
    }
    Ok(verified)
}

/// What is damaged takes no place of a good one any more: those before it may be on their way out.
async fn keep_the_one_before(job: &Job<'_>, store: &dyn Store, verified: &mut Verified) {
    let (keep_last, database) = (job.settings.retention.keep_last, verified.id.database());
    let retagged = catalog::retag_all(store, database, keep_last, (job.clock)());
    if let Err(error) = job.stop.or_stop(retagged).await {
        verified.warnings.push(format!(
            "the good backup before it may not be kept for longer than its tier says: {error}"
        ));
    }
}

/// Whether an error with this code tells of the store or of this machine, and of no backup.
fn is_of_the_place(code: Code) -> bool {
    matches!(
        code,
        Code::Store | Code::Eacces | Code::Enoent | Code::Enospc | Code::Permission | Code::ConnErr | Code::NotProved
    )
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
            let (data, _) = data_twice(job, store, manifest, &found, &sums.md5).await?;
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
                crate::outside::aws::BYTES_CHANGE
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
    md5: &Md5s,
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
                crate::outside::aws::BYTES_CHANGE
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
        crate::outside::aws::BYTES_CHANGE
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
    md5: &Md5s,
) -> Result<Data> {
    let work = async {
        let role = match manifest.files.contains_key(role::SQL) {
            true => role::SQL,
            false => role::DUMP,
        };
        let file = file_of(manifest, role)?;
        let mut data = match role {
            role::SQL => data::script(store, manifest, md5.get(&file.name).copied(), job.observer).await?,
            _ => archive(job, store, manifest, so_far, md5).await?,
        };
        // Others hold nothing that this version looks into: what is left to check is their digests.
        for other in manifest.data_records().filter(|other| *other != file) {
            let md5 = md5.get(&other.name).copied();
            let (read, findings) = data::object(store, &manifest.id, other, md5, job.observer).await?;
            data.read += read;
            data.findings.extend(findings);
        }
        Ok(data)
    };
    job.stop.or_stop(work).await
}

async fn archive(
    job: &Job<'_>,
    store: &Arc<dyn Store>,
    manifest: &Manifest,
    so_far: &[Finding],
    md5: &Md5s,
) -> Result<Data> {
    let file = file_of(manifest, role::DUMP)?;
    let md5 = md5.get(&file.name).copied();
    // Without its table of contents the blocks cannot be told apart: that is reported, and
    // the object's own digest is what is left to check.
    match StoredArchive::open(store.as_ref(), manifest).await {
        Ok(archive) => Ok(data::archive(store, archive, md5, job.observer).await?.into()),
        Err(error) if error.code() == Code::Integrity => {
            let name = manifest.files.get(role::TOC).map_or("manifest.json", |file| &file.name);
            let told = so_far.iter().any(|finding| finding.file == name);
            let finding = (!told).then(|| Finding::of_file(name, error.message()));
            let (read, mut findings) = data::object(store, &manifest.id, file, md5, job.observer).await?;
            findings.extend(finding);
            Ok((read, findings).into())
        }
        Err(error) => Err(error),
    }
}
