//! `verify`: reads every stored byte of a backup, as a restore would, and reports exactly what differs from the
//! manifest.

mod chain;
mod data;
mod increment;
mod record;
mod report;
mod request;
mod script;
mod seal;
mod sidecars;
mod stores;
mod tallies;
mod unproved;

use std::sync::Arc;
use std::time::Instant;

use crate::error::{Code, Error, Result};
use crate::job::drill;
use crate::job::moment::{self, AskedMoment};
use crate::repository::backup_id::{BackupId, BackupKind};
use crate::repository::catalog::{self, Listed, Located};
use crate::repository::manifest::{FileRecord, Manifest, Tally, role};
use crate::repository::signature::{Signer, Trust};
use crate::repository::stored_archive::{StoredArchive, file_of};
use crate::repository::verification::VerificationStatus;
use crate::run::clock::Clock;
use crate::run::progress::Observer;
use crate::run::stop::Stop;
use crate::settings::Settings;
use crate::store::{Store, unsteady};

pub use crate::repository::verification::Finding;
pub use chain::{ChainFinding, ChainProof, Proving, prove};
pub use report::{Verified, VerifyReport};
use request::Proofs;
pub use request::{VerifyRequest, VerifySelection};
use sidecars::Md5s;
pub use unproved::{Reached, prove_newest};

/// Everything that a verification needs.
pub struct Job<'a> {
    pub settings: &'a Settings,
    pub stores: &'a [Arc<dyn Store>],
    /// The database for `latest`, if the request or the settings name one.
    pub database: Option<&'a str>,
    pub trust: &'a Trust,
    /// The key that signs the result.
    pub signer: Option<&'a Signer>,
    pub clock: Clock,
    pub stop: &'a Stop,
    pub observer: &'a Arc<dyn Observer>,
}

/// Verifies the selected backups. A backup that differs is a result in the report. An error means that pgstow could not
/// look.
pub async fn run(job: &Job<'_>, request: &VerifyRequest) -> Result<VerifyReport> {
    if let (Some(asked), VerifySelection::One(wanted)) = (&request.moment, &request.selection) {
        return drill_at(job, wanted, asked, request).await;
    }
    match &request.selection {
        VerifySelection::One(wanted) => stores::one(job, wanted, request).await,
        VerifySelection::All { since } => stores::all(job, *since, request.proofs()).await,
    }
}

const NOT_KEPT: &str = "the result is not kept beside the backup: the wrong clock may be this machine's, and nothing \
                        else was found";

/// `around` are the backup folders of the same database in its store, its own included.
async fn in_one_store(job: &Job<'_>, located: &Located, around: &[Listed], proofs: Proofs) -> Result<Verified> {
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
    let stream = increment::check_stream(located, around, (job.clock)());
    findings.extend(job.stop.or_stop(stream).await?);
    let sums = job.stop.or_stop(sidecars::check(store.as_ref(), manifest)).await?;
    findings.extend(sums.findings);
    let (data, on_the_way) = UnreadData::of(job, located, &findings, &sums.md5).twice().await?;
    findings.extend(data.findings);
    if !findings.is_empty() {
        job.stop.or_stop(is_still_there(store.as_ref(), &manifest.id)).await?;
    }
    let read = data.read + sums.bytes;
    let mut verified = Verified::new(manifest, store.url(), findings, read, begun.elapsed());
    verified.count(data.counted);
    verified
        .warnings
        .extend(unsealed.into_iter().chain(on_the_way).chain(data.not_run));
    verified.manifest_sha256 = Some(hex::encode(manifest_sha256));
    verified.signed_by = *signed_by;
    verified.warnings.extend(warnings.iter().cloned());
    if verified.is_of_the_clock() {
        verified.warnings.push(NOT_KEPT.to_owned());
        return Ok(verified);
    }
    // To restore bytes that differ from the backup would prove nothing; and an increment alone restores nothing.
    let drill = proofs.drill && manifest.kind == BackupKind::Full && verified.status == VerificationStatus::Ok;
    let mut recorded = None;
    if drill {
        // The result of the verification is known, however the drill ends.
        recorded = Some(recorded_result(job, located, &verified).await);
        drilled(job, located, &mut verified).await?;
    }
    if proofs.chain && manifest.kind == BackupKind::Full && verified.status == VerificationStatus::Ok {
        chained(job, located, &mut verified).await?;
        recorded = None;
    }
    if verified.drill.is_some() || verified.is_wrong() || recorded.is_none() {
        recorded = Some(recorded_result(job, located, &verified).await);
    }
    verified
        .warnings
        .extend(recorded.and_then(|recorded| not_recorded(job, recorded)));
    if verified.is_wrong() {
        keep_the_one_before(job, store.as_ref(), &mut verified).await;
    }
    Ok(verified)
}

/// A warning if the result is not beside the backup, or does not count there.
fn not_recorded(job: &Job<'_>, recorded: Result<()>) -> Option<String> {
    match recorded {
        Err(error) => Some(error.context("the result could not be written beside the backup").message()),
        Ok(()) if job.trust.asks() && job.signer.is_none() => Some(
            "the result is not signed, since BACKUP_SIGN_KEY is not set: it does not count where BACKUP_VERIFY_KEYS is set"
                .to_owned(),
        ),
        Ok(()) => None,
    }
}

/// A damaged backup must not take the place of a good one: the tags that keep backups move to earlier good ones, which
/// may be about to expire.
async fn keep_the_one_before(job: &Job<'_>, store: &dyn Store, verified: &mut Verified) {
    let (keep_last, database) = (job.settings.retention.keep_last, verified.id.database());
    let retagged = catalog::retag_all(store, database, keep_last, (job.clock)());
    if let Err(error) = job.stop.or_stop(retagged).await {
        verified.warnings.push(format!(
            "the good backup before it may expire with its tier, because its tag could not be set: {error}"
        ));
    }
}

/// Whether an error with this code is about the store or this machine, and not about a backup.
fn is_of_the_place(code: Code) -> bool {
    matches!(
        code,
        Code::Store | Code::Eacces | Code::Enoent | Code::Enospc | Code::Permission | Code::ConnErr | Code::NotProved
    )
}

/// Writes the results that are known beside the backup.
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
    let chain = verified.chain.as_ref();
    let chain = chain.map(|proof| proof.outcome(now).of_manifest(manifest_sha256));
    record::record(job, store.as_ref(), &manifest.id, manifest_sha256, |verification| {
        verification.verify = Some(verify.clone());
        if let Some(drill) = &drill {
            verification.drilled(drill.clone());
        }
        if let Some(chain) = &chain {
            verification.chained(chain.clone());
        }
    })
    .await
}

/// Drills the database as it was at a moment. Every byte that it takes is compared with the manifests on the way; the
/// result is not kept beside a backup, since it is about several.
async fn drill_at(job: &Job<'_>, wanted: &str, asked: &AskedMoment, request: &VerifyRequest) -> Result<VerifyReport> {
    let demand = catalog::Demand {
        trust: job.trust,
        manifest: request.expect_manifest,
        now: (job.clock)(),
        altered: false,
    };
    let begun = Instant::now();
    let way = moment::find(job.stores, wanted, job.database, asked.target, &demand);
    let (base, way) = job.stop.or_stop(way).await?;
    let drill_job = drill::Job {
        settings: job.settings,
        clock: job.clock,
        stop: job.stop,
        observer: job.observer,
    };
    let (drill, mut at) = drill::run_at(&drill_job, &base, way).await?;
    at.target.clone_from(&asked.read_as);
    let read = base.manifest.files.get(role::DUMP).map_or(0, |file| file.bytes);
    let mut verified = Verified::new(&base.manifest, base.store.url(), Vec::new(), read, begun.elapsed());
    verified.drilled(drill);
    verified.moment = Some(at);
    verified.warnings.extend(base.warnings.iter().cloned());
    Ok(VerifyReport::one(vec![verified]))
}

/// Proves the increments that lead to the backup, and notes the result. An error is returned only if the whole run must
/// end.
async fn chained(job: &Job<'_>, located: &Located, verified: &mut Verified) -> Result<()> {
    let proving = Proving::of(job);
    match chain::prove(&proving, located).await {
        Ok(Some(proof)) => verified.chained(proof),
        // Of several backups, the oldest has none before it.
        Ok(None) => {}
        Err(error) if matches!(error.code(), Code::Interrupted(_) | Code::Deadline) => return Err(error),
        Err(error) => verified.could_not_be_chained(&error),
    }
    Ok(())
}

/// If the backup was removed meanwhile, missing files are no damage.
async fn is_still_there(store: &dyn Store, id: &BackupId) -> Result<()> {
    match catalog::is_committed(store, id).await? {
        true => Ok(()),
        false => Err(Error::new(
            Code::NotFound,
            format!("{id} was removed from {} while it was being verified", store.url()),
        )),
    }
}

/// Drills the backup and notes the result. An error is returned only if the whole run must end, by a stop or its
/// deadline. Any other error that prevents the drill is noted as the result for this backup.
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
        // The verification read the same bytes as right a moment before. Either they changed in the store since then,
        // or on the way.
        let (store, manifest) = (&located.store, &located.manifest);
        let again = async {
            let sums = job.stop.or_stop(sidecars::check(store.as_ref(), manifest)).await?;
            let mut found = sums.findings;
            let (data, _) = UnreadData::of(job, located, &found, &sums.md5).twice().await?;
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
                "the drill was started again: it read wrong bytes, which were right when they were read again: {first}: {}",
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

/// The result of reading the archive or the script.
struct Data {
    /// Bytes that were read.
    read: u64,
    findings: Vec<Finding>,
    /// Counted from a script whose manifest does not count its tables.
    counted: Option<Tally>,
    /// Why this version would not run the script, although its bytes are right.
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

/// The data of one backup, before it is read.
struct UnreadData<'a> {
    job: &'a Job<'a>,
    store: &'a Arc<dyn Store>,
    manifest: &'a Manifest,
    /// The findings in the other files.
    so_far: &'a [Finding],
    md5: &'a Md5s,
}

impl<'a> UnreadData<'a> {
    fn of(job: &'a Job<'a>, located: &'a Located, so_far: &'a [Finding], md5: &'a Md5s) -> Self {
        Self {
            job,
            store: &located.store,
            manifest: &located.manifest,
            so_far,
            md5,
        }
    }

    /// Reads the data, and reads it again if something is wrong, because a bit that flipped on the way is no damage in the
    /// store. A difference that both readings find is damage; one that only one reading finds is a warning. If the readings
    /// have no difference in common, nothing is known, and the error is `STORE`.
    async fn twice(&self) -> Result<(Data, Option<String>)> {
        let Self {
            job, store, manifest, ..
        } = *self;
        let seen = self.once().await?;
        if seen.findings.is_empty() {
            return Ok((seen, None));
        }
        let first = seen.findings;
        job.observer.phase(&format!("reading {} again", manifest.id));
        let seen = self.once().await?;
        let with = |findings| Data { findings, ..seen };
        let second = seen.findings;
        let once = first.iter().filter(|finding| !second.contains(finding)).count()
            + second.iter().filter(|finding| !first.contains(finding)).count();
        if once == 0 || second.is_empty() {
            let on_the_way = (once > 0).then(|| {
                format!(
                    "{} differences in its data were gone when it was read again, so they are not in the store: {}",
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
            "{once} more differences in its data were in only one of two readings: {}",
            crate::outside::aws::BYTES_CHANGE
        );
        Ok((with(both), Some(on_the_way)))
    }

    async fn once(&self) -> Result<Data> {
        let Self {
            job,
            store,
            manifest,
            md5,
            ..
        } = *self;
        let work = async {
            let roles: &[&str] = match (&manifest.increment, manifest.files.contains_key(role::SQL)) {
                (Some(_), _) => &increment::READ,
                (None, true) => &[role::SQL],
                (None, false) => &[role::DUMP],
            };
            let md5_of = |role: &str| {
                let file = manifest.files.get(role);
                file.and_then(|file| md5.get(&file.name).copied())
            };
            let mut data = match roles {
                [role::SQL] => data::script(store, manifest, md5_of(role::SQL), job.observer).await?,
                [role::CHANGES, ..] => increment::check(job, store, manifest, md5_of(role::CHANGES)).await?,
                _ => self.archive().await?,
            };
            // The archive of an increment holds its baselines; most increments have none.
            if manifest.increment.is_some() && manifest.files.contains_key(role::DUMP) {
                let baselines = self.archive().await?;
                data.read += baselines.read;
                data.findings.extend(baselines.findings);
            }
            let read: Vec<&FileRecord> = roles.iter().filter_map(|role| manifest.files.get(*role)).collect();
            // This version cannot read the contents of other data files, so it checks only their digests.
            for other in manifest.data_records().filter(|other| !read.contains(other)) {
                let md5 = md5.get(&other.name).copied();
                let (read, findings) = data::object(store, &manifest.id, other, md5, job.observer).await?;
                data.read += read;
                data.findings.extend(findings);
            }
            Ok(data)
        };
        job.stop.or_stop(work).await
    }

    async fn archive(&self) -> Result<Data> {
        let Self {
            job,
            store,
            manifest,
            so_far,
            md5,
        } = *self;
        let file = file_of(manifest, role::DUMP)?;
        let md5 = md5.get(&file.name).copied();
        // Without its table of contents pgstow cannot find the blocks. It reports that, and checks only the digest of the
        // object.
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
}
