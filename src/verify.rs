//! `verify`: reads every stored byte of a backup, the way a restore does, into nowhere, and says
//! exactly what differs from the manifest.

mod data;
mod report;
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
use crate::manifest::{Manifest, role};
use crate::progress::Observer;
use crate::retention::TIER_TAG;
use crate::settings::{Clock, Settings};
use crate::signature::{Signer, Subject, Trust};
use crate::stop::Stop;
use crate::store::{Condition, ObjectInfo, Store};
use crate::stored_archive::StoredArchive;
use crate::verification::{Status, Verification};

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
            };
            let located = job
                .stop
                .or_stop(catalog::find(job.stores, wanted, job.database, &demand))
                .await?;
            Ok(VerifyReport::one(one(job, &located, request.drill).await?))
        }
        Selection::All { since } => all(job, *since, request.drill).await,
    }
}

/// Every backup of the primary store, newest first. One whose manifest cannot be read, or is not
/// signed as it must be, has failed.
async fn all(job: &Job<'_>, since: Option<Timestamp>, drill: bool) -> Result<VerifyReport> {
    let Some(store) = job.stores.first() else {
        return Err(Error::config("no store is set"));
    };
    let listed = job.stop.or_stop(catalog::backups(store.as_ref(), job.database)).await?;
    let demand = Demand {
        trust: job.trust,
        manifest: None,
        now: (job.clock)(),
    };
    let wanted = |one: &&Listed| one.has_manifest && since.is_none_or(|since| one.id.timestamp() >= since);
    let mut verified = Vec::new();
    for listed in listed.iter().filter(wanted) {
        let found = catalog::read_genuine(store.as_ref(), &listed.id, &demand);
        let found = job.stop.or_stop(found).await?.require(&listed.id);
        verified.push(match found {
            Ok(genuine) => {
                let located = Located {
                    store: Arc::clone(store),
                    manifest: genuine.manifest,
                    manifest_sha256: genuine.sha256,
                    signed_by: genuine.signed_by,
                    warnings: Vec::new(),
                };
                one(job, &located, drill).await?
            }
            // It has expired since it was listed.
            Err(error) if error.code() == Code::NotFound => continue,
            Err(error) => Verified::unreadable(&listed.id, &error),
        });
    }
    Ok(VerifyReport::many(verified))
}

async fn one(job: &Job<'_>, located: &Located, drill: bool) -> Result<Verified> {
    let Located {
        store,
        manifest,
        manifest_sha256,
        signed_by,
        warnings,
    } = located;
    let begun = Instant::now();
    job.observer.phase(&format!("verifying {}", manifest.id));
    let mut findings = job.stop.or_stop(sidecars::check(store.as_ref(), manifest)).await?;
    let (read, about_data) = data(job, store, manifest, &findings).await?;
    findings.extend(about_data);
    let mut verified = Verified::new(manifest, findings, read, begun.elapsed());
    verified.manifest_sha256 = Some(hex::encode(manifest_sha256));
    verified.signed_by = *signed_by;
    verified.warnings.extend(warnings.iter().cloned());
    // Bytes that are not those of the backup prove nothing by being restored.
    if drill && verified.status == Status::Ok {
        let job = drill::Job {
            settings: job.settings,
            clock: job.clock,
            stop: job.stop,
            observer: job.observer,
        };
        verified.drilled(drill::run(&job, located).await?);
    }
    let now = (job.clock)();
    let verify = verified.outcome(now).of_manifest(manifest_sha256);
    let drill = verified.drill.as_ref();
    let drill = drill.map(|drill| drill.outcome(now).of_manifest(manifest_sha256));
    let recorded = record(job, store.as_ref(), &manifest.id, manifest_sha256, |verification| {
        verification.verify = Some(verify);
        verification.drill = drill.or(verification.drill.take());
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
    Ok(verified)
}

/// The archive or the script; and how many bytes were read of it.
async fn data(
    job: &Job<'_>,
    store: &Arc<dyn Store>,
    manifest: &Manifest,
    so_far: &[Finding],
) -> Result<(u64, Vec<Finding>)> {
    let work = async {
        if manifest.files.contains_key(role::SQL) {
            return data::script(store, manifest, job.observer).await;
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
                return Ok((read, findings));
            }
            Err(error) => return Err(error),
        };
        match archive {
            Some(archive) => data::archive(store, archive, job.observer).await,
            None => Ok((0, Vec::new())),
        }
    };
    job.stop.or_stop(work).await
}

/// Writes a result beside the backup, keeping the other kind's. It bears the tier of the files
/// around it, so that it expires with them.
///
/// Its signature goes before it: between the two, the old result counts for nothing where
/// signatures are asked for, and no new one does that is not signed.
async fn record(
    job: &Job<'_>,
    store: &dyn Store,
    id: &BackupId,
    manifest_sha256: &[u8; 32],
    change: impl FnOnce(&mut Verification),
) -> Result<()> {
    let (subject, key) = (Subject::verification(id), id.key(VERIFICATION));
    // What we sign may have been written by anybody: only what counts already is taken over.
    let counts = job.trust.and(job.signer);
    let mut before = match store.get(&key).await {
        // What lies there is none, and is replaced, not followed.
        Err(error) if error.code() == Code::Integrity => None,
        before => before?.map(|object| object.body),
    };
    if let Some(body) = &before
        && counts.asks()
    {
        match counts.look(store, subject, body).await? {
            Ok(_) if job.signer.is_none() => {
                return Err(Error::config(
                    "a signed result is there, and BACKUP_SIGN_KEY is not set to sign this one",
                ));
            }
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
    store.put(&key, body, &info, Condition::Always).await.map(|_| ())
}
