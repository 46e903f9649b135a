//! `verify`: reads every stored byte of a backup, the way a restore does, into nowhere, and says
//! exactly what differs from the manifest.

mod data;
mod report;
mod script;
mod seal;
mod sidecars;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use jiff::Timestamp;

use crate::backup_id::{BackupId, VERIFICATION};
use crate::catalog::{self, Demand, Listed, Located};
use crate::command::{Selection, VerifyRequest};
use crate::drill;
use crate::error::{Code, Error, Result};
use crate::manifest::{Manifest, Tally, role};
use crate::progress::Observer;
use crate::retention::TIER_TAG;
use crate::settings::{Clock, Settings};
use crate::signature::{Signer, Subject, Trust};
use crate::stop::Stop;
use crate::store::{Condition, ObjectInfo, Put, Store};
use crate::stored_archive::{self, StoredArchive};
use crate::verification::{Status, Verification};

pub use report::{Finding, Verified, VerifyReport};

/// Backups that the store may fail to give before the store itself counts as failing.
const FAILURES: usize = 3;

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
/// signed as it must be, has failed. None at all is `NOT_FOUND`: nothing was proved.
async fn all(job: &Job<'_>, since: Option<Timestamp>, drill: bool) -> Result<VerifyReport> {
    let Some(store) = job.stores.first() else {
        return Err(Error::config("no store is set"));
    };
    let listed = catalog::reachable_folders(store.as_ref(), job.database);
    let listed = job.stop.or_stop(listed).await?;
    let demand = Demand {
        trust: job.trust,
        manifest: None,
        now: (job.clock)(),
        altered: true,
    };
    let wanted = |one: &&Listed| one.has_manifest && since.is_none_or(|since| one.id.timestamp() >= since);
    let mut verified = Vec::new();
    let mut failures = 0;
    for folder in listed.iter().filter(wanted) {
        let found = catalog::read_genuine(store.as_ref(), &folder.id, &demand);
        let found = job.stop.or_stop(found).await?.require(&folder.id);
        verified.push(match found {
            Ok(genuine) => {
                let located = Located {
                    store: Arc::clone(store),
                    manifest: genuine.manifest,
                    manifest_sha256: genuine.sha256,
                    seal: genuine.seal,
                    signed_by: genuine.signed_by,
                    warnings: Vec::new(),
                };
                match one(job, &located, &listed, drill).await {
                    // Of one backup nothing can be said; of the others perhaps.
                    Err(error) if error.code() == Code::Store && job.stop.reason().is_none() => {
                        failures += 1;
                        if failures == FAILURES {
                            // What was found before is told all the same.
                            verified.push(Verified::unreadable(&folder.id, &error));
                            break;
                        }
                        Verified::unreadable(&folder.id, &error)
                    }
                    verified => verified?,
                }
            }
            // It has expired since it was listed.
            Err(error) if error.code() == Code::NotFound => continue,
            Err(error) => Verified::unreadable(&folder.id, &error),
        });
    }
    if verified.is_empty() {
        return Err(catalog::nothing_found(store.as_ref(), job.database, since));
    }
    Ok(VerifyReport::many(verified))
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
    findings.extend(job.stop.or_stop(sidecars::check(store.as_ref(), manifest)).await?);
    let (data, on_the_way) = data_twice(job, store, manifest, &findings).await?;
    findings.extend(data.findings);
    let mut verified = Verified::new(manifest, findings, data.read, begun.elapsed());
    verified.count(data.counted);
    verified.warnings.extend(unsealed);
    verified.warnings.extend(on_the_way);
    verified.manifest_sha256 = Some(hex::encode(manifest_sha256));
    verified.signed_by = *signed_by;
    verified.warnings.extend(warnings.iter().cloned());
    // Bytes that are not those of the backup prove nothing by being restored.
    if drill && verified.status == Status::Ok {
        drilled(job, located, &mut verified).await?;
    }
    let now = (job.clock)();
    let verify = verified.outcome(now).of_manifest(manifest_sha256);
    let drill = verified.drill.as_ref();
    let drill = drill.map(|drill| drill.outcome(now).of_manifest(manifest_sha256));
    let recorded = record(job, store.as_ref(), &manifest.id, manifest_sha256, |verification| {
        verification.verify = Some(verify.clone());
        if let Some(drill) = &drill {
            verification.drilled(drill.clone());
        }
    });
    match recorded.await {
        Err(error) => verified
            .warnings
            .push(format!("the result could not be written beside the backup: {error}")),
        Ok(()) if job.trust.asks() && job.signer.is_none() => verified.warnings.push(
            "the result is not signed, since BACKUP_SIGN_KEY is not set: it counts for nothing where BACKUP_VERIFY_KEYS is"
                .to_owned(),
        ),
        Ok(()) => {}
    }
    if verified.is_wrong() {
        // It takes no place of a good one any more: those before it may be on their way out.
        let (keep_last, database) = (job.settings.retention.keep_last, manifest.id.database());
        let retagged = catalog::retag_all(store.as_ref(), database, keep_last, now);
        if let Err(error) = job.stop.or_stop(retagged).await {
            verified.warnings.push(format!(
                "the good backup before it may not be kept for longer than its tier says: {error}"
            ));
        }
    }
    Ok(verified)
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
        let mut found = job.stop.or_stop(sidecars::check(store.as_ref(), manifest)).await?;
        let (data, _) = data_twice(job, store, manifest, &found).await?;
        found.extend(data.findings);
        if !found.is_empty() {
            verified.is_damaged_after_all(found);
            return Ok(());
        }
        let first = error.message();
        drilled = match drill::run(&drill_job, located).await {
            Err(error) if error.code() == Code::Integrity => {
                Err(stored_archive::unsteady(&manifest.id.folder(), store.url()).source(error))
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
) -> Result<(Data, Option<String>)> {
    let seen = data(job, store, manifest, so_far).await?;
    if seen.findings.is_empty() {
        return Ok((seen, None));
    }
    let first = seen.findings;
    job.observer.phase(&format!("reading {} again", manifest.id));
    let seen = data(job, store, manifest, so_far).await?;
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
        return Err(stored_archive::unsteady(&key, store.url()));
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
}

impl From<(u64, Vec<Finding>)> for Data {
    fn from((read, findings): (u64, Vec<Finding>)) -> Self {
        Data {
            read,
            findings,
            counted: None,
        }
    }
}

async fn data(job: &Job<'_>, store: &Arc<dyn Store>, manifest: &Manifest, so_far: &[Finding]) -> Result<Data> {
    let work = async {
        if manifest.files.contains_key(role::SQL) {
            let (read, findings, counted) = data::script(store, manifest, job.observer).await?;
            return Ok(Data {
                read,
                findings,
                counted,
            });
        }
        // Without its table of contents the blocks cannot be told apart: that is reported, and
        // the object's own digest is what is left to check.
        let archive = match StoredArchive::open(store.as_ref(), manifest).await {
            Ok(archive) => Some(archive),
            Err(error) if error.code() == Code::Integrity => {
                let name = manifest.files.get(role::TOC).map_or("manifest.json", |file| &file.name);
                let told = so_far.iter().any(|finding| finding.file == name);
                let finding = (!told).then(|| Finding::of_file(name, error.message()));
                let (read, mut findings) = data::object(store, manifest, job.observer).await?;
                findings.extend(finding);
                return Ok((read, findings).into());
            }
            Err(error) => return Err(error),
        };
        match archive {
            Some(archive) => Ok(data::archive(store, archive, job.observer).await?.into()),
            None => Ok((0, Vec::new()).into()),
        }
    };
    job.stop.or_stop(work).await
}

/// Writes a result beside the backup, keeping the other kind's. It bears the tier of the files
/// around it, so that it expires with them.
///
/// Its signature goes before it: between the two, the old result counts for nothing where
/// signatures are asked for, and no new one does that is not signed.
///
/// It is put under the condition that the one that was read is still there, and otherwise all is done
/// again: of a verification and a drill that end at the same time, neither loses its result.
async fn record(
    job: &Job<'_>,
    store: &dyn Store,
    id: &BackupId,
    manifest_sha256: &[u8; 32],
    change: impl Fn(&mut Verification),
) -> Result<()> {
    for tries in 0..RECORDS {
        if tries > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(50 << tries)).await;
        }
        if record_once(job, store, id, manifest_sha256, &change).await? == Recorded::Done {
            return Ok(());
        }
    }
    let what = format!(
        "{} was written by others {RECORDS} times meanwhile",
        id.key(VERIFICATION)
    );
    Err(Error::new(Code::Busy, what).hint("verify it again when they have ended"))
}

/// Each that fails means that another has written.
const RECORDS: u32 = 6;

#[derive(PartialEq, Eq)]
enum Recorded {
    Done,
    /// Another result is there now.
    Overtaken,
}

fn signed_is_there() -> Error {
    Error::config("a signed result is there, and BACKUP_SIGN_KEY is not set to sign this one")
}

async fn record_once(
    job: &Job<'_>,
    store: &dyn Store,
    id: &BackupId,
    manifest_sha256: &[u8; 32],
    change: impl Fn(&mut Verification),
) -> Result<Recorded> {
    let (subject, key) = (Subject::verification(id), id.key(VERIFICATION));
    // What we sign may have been written by anybody: only what counts already is taken over.
    let counts = job.trust.and(job.signer);
    let (condition, mut before) = match store.get(&key).await {
        // What lies there is none, and is replaced, not followed.
        Err(error) if error.code() == Code::Integrity => (Condition::Always, None),
        before => match before? {
            Some(object) => (Condition::Unchanged(object.version), Some(object.body)),
            None => (Condition::Absent, None),
        },
    };
    // Whoever has no keys must not put an end to the result of somebody who has.
    if before.is_some() && job.signer.is_none() && !counts.asks() {
        let signature = store.head(&subject.signature_key()).await?;
        if signature.is_some() {
            return Err(signed_is_there());
        }
    }
    if let Some(body) = &before
        && counts.asks()
    {
        match counts.look(store, subject, body).await? {
            Ok(_) if job.signer.is_none() => return Err(signed_is_there()),
            Ok(_) => {}
            Err(_) => before = None,
        }
    }
    let mut verification = before
        .and_then(|body| Verification::parse(&body, id).ok())
        .map(|before| before.about(manifest_sha256, counts.asks()).0)
        .unwrap_or_else(|| Verification::new(id.clone()));
    change(&mut verification);
    let tags = match store.lifecycle() {
        Some(lifecycle) => lifecycle.tags(&id.manifest_key()).await?.unwrap_or_default(),
        None => Vec::new(),
    };
    let info = |content_type| ObjectInfo {
        content_type,
        tags: tags.iter().filter(|(name, _)| name == TIER_TAG).cloned().collect(),
        ..ObjectInfo::default()
    };
    let body = Bytes::from(verification.to_bytes()?);
    if let Some(signer) = job.signer {
        let signature = signer.sign(subject, &body, (job.clock)()).await?;
        let info = info("text/plain");
        store
            .put(&subject.signature_key(), signature, &info, Condition::Always)
            .await?;
    }
    let info = info("application/json");
    Ok(match store.put(&key, body, &info, condition).await? {
        Put::Done(_) => Recorded::Done,
        Put::Refused => Recorded::Overtaken,
    })
}
