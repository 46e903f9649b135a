//! `download`: fetches a backup's archive as one file, compares it with the manifest while it streams, and writes the
//! offsets into the start of the file, for stock `pg_restore -j` and `-t`.

mod assembled;
mod fetch;
mod offered;
mod partial;
mod report;
mod request;
mod sums;
mod target;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::error::{Code, Error, Result};
use crate::printable;
use crate::repository::backup_id::SHA256SUMS;
use crate::repository::catalog::{self, BackupId, Demand, Located};
use crate::repository::manifest::{FileRecord, Manifest, References, role};
use crate::repository::signature::Trust;
use crate::repository::stored_archive::{StoredArchive, read_file};
use crate::run::clock::Clock;
use crate::run::files::blocking;
use crate::run::progress::Observer;
use crate::run::stop::Stop;
use crate::store::{Store, limits};
use assembled::Assembling;
use fetch::Fetch;
use partial::Partial;

pub use offered::{FileChoice, Offered, Pieces, offer};
pub use report::{DownloadReport, DownloadStatus};
pub use request::DownloadRequest;

/// Everything that a download needs.
pub struct Job<'a> {
    pub stores: &'a [Arc<dyn Store>],
    /// The database that the settings name, for `latest`, unless the request names one.
    pub database: Option<String>,
    pub trust: &'a Trust,
    pub clock: Clock,
    pub stop: &'a Stop,
    pub observer: &'a Arc<dyn Observer>,
}

/// The file gets the target's name only after all of it is proved and on the disk. Until then it is a hidden file
/// beside the target, which the next run of the same download continues.
pub async fn run(job: &Job<'_>, request: &DownloadRequest) -> Result<DownloadReport> {
    let started = Instant::now();
    let stop = job.stop;
    job.observer.phase("looking for the backup");
    let Located {
        store,
        manifest,
        manifest_sha256,
        signed_by,
        mut warnings,
        seal: _,
    } = stop.or_stop(locate(job, request)).await?;
    let archive = archive(&manifest)?;
    let (output, name, force) = (
        request.output.clone(),
        local_name(&manifest.id, archive)?,
        request.force,
    );
    let target = blocking(move || target::choose(output, &name, force)).await?;
    let head = match manifest.files.get(role::TOC) {
        Some(toc) if !request.as_stored => Some(stop.or_stop(head(store.as_ref(), &manifest, toc)).await?),
        _ => None,
    };
    let delivery = Delivery {
        job,
        store: &store,
        manifest: &manifest,
        archive,
        target: &target,
        force,
        head: head.as_ref(),
    };
    let delivered = match (&manifest.references, &head) {
        (Some(_), Some(head)) => delivery.assembled(head).await?,
        (references, _) => {
            warnings.extend(references.as_ref().map(incomplete));
            delivery.as_stored().await?
        }
    };
    warnings.extend(delivered.anew.map(str::to_owned));
    warnings.extend(summed(&target, &manifest.id, &delivered.digests).await);
    Ok(DownloadReport {
        status: DownloadStatus::Succeeded,
        file: target,
        store: store.url().to_owned(),
        manifest_sha256: hex::encode(manifest_sha256),
        signed_by,
        bytes: delivered.bytes,
        bytes_fetched: delivered.fetched,
        offsets: head.is_some(),
        sha256: delivered.digests.downloaded,
        sha256_as_stored: delivered.digests.stored,
        duration_seconds: started.elapsed().as_secs_f64(),
        warnings,
        id: manifest.id,
    })
}

/// The warning that goes with an archive whose blocks are partly in another backup.
fn incomplete(references: &References) -> String {
    format!(
        "as it is stored, the archive has no rows of the {} tables that are in {}: pg_restore cannot restore them from \
         this file; download it without --as-stored",
        references.tables, references.from
    )
}

async fn locate(job: &Job<'_>, request: &DownloadRequest) -> Result<Located> {
    let database = request.database.as_deref().or(job.database.as_deref());
    let demand = Demand {
        trust: job.trust,
        manifest: request.expect_manifest,
        now: (job.clock)(),
        altered: false,
    };
    catalog::find(job.stores, &request.backup, database, &demand).await
}

/// One download: the archive, and the file that it becomes.
struct Delivery<'a> {
    job: &'a Job<'a>,
    store: &'a Arc<dyn Store>,
    manifest: &'a Manifest,
    archive: &'a FileRecord,
    target: &'a Path,
    /// Replace a file that exists.
    force: bool,
    /// The start of the archive with the offsets.
    head: Option<&'a Bytes>,
}

/// The file, whole and under its name.
struct Delivered {
    digests: fetch::FileDigests,
    bytes: u64,
    /// Bytes that came from the store; the rest was there.
    fetched: u64,
    /// Why everything had to be fetched again.
    anew: Option<&'static str>,
}

impl Delivery<'_> {
    async fn partial(&self) -> Result<Partial> {
        let (place, stamp) = (self.target.to_owned(), stamp(&self.manifest.id));
        blocking(move || Partial::open(&place, &stamp)).await
    }

    /// The archive with the blocks that it has in another backup.
    async fn assembled(&self, head: &Bytes) -> Result<Delivered> {
        let partial = self.partial().await?;
        let filled = async {
            partial.restart()?;
            let stored = StoredArchive::open(&**self.store, self.manifest);
            let assembling = Assembling {
                store: self.store,
                archive: self.job.stop.or_stop(stored).await?,
                head: head.clone(),
                stop: self.job.stop,
                observer: self.job.observer,
            };
            assembling.fill(&partial).await
        };
        let (bytes, sha256) = match filled.await {
            Ok(filled) => filled,
            Err(error) => return Err(partial.keep_or_remove(&self.manifest.id, error)),
        };
        let (head, force) = (head.clone(), self.force);
        blocking(move || partial.publish(Some(&head), force)).await?;
        Ok(Delivered {
            digests: fetch::FileDigests {
                stored: self.archive.sha256.clone(),
                downloaded: sha256,
            },
            bytes,
            fetched: bytes,
            anew: None,
        })
    }

    /// The archive's own bytes, with the offsets laid in.
    async fn as_stored(&self) -> Result<Delivered> {
        let fetch = Fetch {
            store: self.store,
            key: self.manifest.id.key(&self.archive.name),
            bytes: self.archive.bytes,
            // A run that died in its last step may have written some or all of the offsets.
            uncertain: self.manifest.files.get(role::TOC).map_or(0, |toc| toc.bytes),
            head: self.head.cloned(),
            stop: self.job.stop,
            observer: self.job.observer,
        };
        let partial = self.partial().await?;
        let fetched = match fetch_whole(&fetch, &partial, self.archive).await {
            Ok(fetched) => fetched,
            Err(error) => return Err(partial.keep_or_remove(&self.manifest.id, error)),
        };
        let (head, force) = (self.head.cloned(), self.force);
        blocking(move || partial.publish(head.as_deref(), force)).await?;
        Ok(fetched)
    }
}

/// Writes the digest beside the file; a warning if that is not possible.
async fn summed(target: &Path, id: &BackupId, digests: &fetch::FileDigests) -> Option<String> {
    let (place, id, sums) = (target.to_owned(), id.clone(), digests.clone());
    let written = blocking(move || sums::write(&place, &id, &sums)).await;
    let what = format!("the file is whole, but its digest could not be written to {SHA256SUMS}");
    written.err().map(|error| error.context(what).message())
}

/// Fills the partial file with the archive that the manifest describes. The bytes of an earlier run, or bytes on the
/// way, may be damaged although the store is right: then pgstow fetches everything once more.
async fn fetch_whole(fetch: &Fetch<'_>, partial: &Partial, archive: &FileRecord) -> Result<Delivered> {
    let there = partial.resumable(archive.bytes)?;
    let kept = fetch.kept(there);
    let digests = fetch.fill(partial, there).await?;
    if digests.stored == archive.sha256 {
        return Ok(Delivered {
            digests,
            bytes: archive.bytes,
            fetched: archive.bytes - kept,
            anew: None,
        });
    }
    // The bytes of an earlier run may be damaged, and a bit that flipped on the way is no damage in the store.
    partial.restart()?;
    let again = fetch.fill(partial, 0).await?;
    if again.stored == archive.sha256 {
        return Ok(Delivered {
            digests: again,
            bytes: archive.bytes,
            fetched: archive.bytes - kept + archive.bytes,
            anew: Some(if kept == 0 { CAME_OTHERWISE } else { LEFT_DAMAGED }),
        });
    }
    if kept == 0 && again.stored != digests.stored {
        let (key, url) = (&fetch.key, fetch.store.url());
        return Err(Error::new(
            Code::Store,
            format!("{key} in {url} has different bytes each time that it is read"),
        ));
    }
    Err(differs(fetch, archive, &again.stored))
}

const LEFT_DAMAGED: &str = "the part of the file from an earlier run was damaged: pgstow fetched all of it again";
const CAME_OTHERWISE: &str =
    "the archive was damaged on the way: pgstow fetched all of it once more, and then it was right";

fn differs(fetch: &Fetch<'_>, archive: &FileRecord, found: &str) -> Error {
    let (key, url, expected) = (&fetch.key, fetch.store.url(), &archive.sha256);
    Error::new(
        Code::Integrity,
        format!("{key} in {url} differs from the backup: its SHA-256 is {found}, the manifest says {expected}"),
    )
}

/// The backup's data file.
fn archive(manifest: &Manifest) -> Result<&FileRecord> {
    if manifest.increment.is_some() {
        let what = format!(
            "{} is an increment: it holds changes, and no archive of the database",
            manifest.id
        );
        return Err(Error::config(what).hint(
            "download a full backup (`pgstow list` shows them), or restore a moment with `pgstow restore --to-time`",
        ));
    }
    let files = &manifest.files;
    files.get(role::DUMP).or_else(|| files.get(role::SQL)).ok_or_else(|| {
        let what = format!("the manifest of {} names neither an archive nor a script", manifest.id);
        Error::new(Code::Integrity, what)
    })
}

/// The name of the file, if the request gives none: the archive's own, but only if pgstow could have made that name, so
/// that a manifest cannot choose the file to write. People give the name to other programs, which would read a leading
/// dash as an option.
fn local_name(id: &BackupId, archive: &FileRecord) -> Result<String> {
    if !id.makes(&archive.name) {
        let what = format!(
            "the manifest of {id} names an archive that does not belong to that backup: {:?}",
            archive.name
        );
        return Err(Error::new(Code::Integrity, what));
    }
    let mut name: String = archive
        .name
        .chars()
        .map(|c| if printable::steers(c) { '_' } else { c })
        .collect();
    if name.starts_with(['-', '.']) {
        name.replace_range(..1, "_");
    }
    Ok(name)
}

/// The start of the archive with the offsets: the table of contents that is stored beside the archive, with the same
/// length.
async fn head(store: &dyn Store, manifest: &Manifest, toc: &FileRecord) -> Result<Bytes> {
    let key = manifest.id.key(&toc.name);
    if toc.bytes > limits::most(&key) {
        return Err(limits::too_long(
            &format!("{key} in {}", store.url()),
            toc.bytes,
            limits::most(&key),
        ));
    }
    let wrong = |why: &str| Error::new(Code::Integrity, format!("{key} in {} {why}", store.url())).hint(WITHOUT);
    if archive(manifest)?.bytes < toc.bytes {
        return Err(wrong("is longer than the archive that it belongs to"));
    }
    let head = read_file(store, &manifest.id, toc).await;
    head.map_err(|error| match error.code() {
        Code::Integrity => error.hint(WITHOUT),
        _ => error,
    })
}

const WITHOUT: &str =
    "download with --as-stored, which does not need it: pg_restore then reads the archive from a pipe, without -j";

/// The last part of an id, in which the ids of one database's backups differ.
fn stamp(id: &BackupId) -> String {
    let id = id.to_string();
    id.rsplit_once('/').map_or(id.as_str(), |(_, stamp)| stamp).to_owned()
}
