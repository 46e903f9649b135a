//! `download`: fetches a backup's archive as one file, compares it with the manifest while it streams, and writes the
//! offsets into the start of the file, for stock `pg_restore -j` and `-t`.

mod fetch;
mod partial;
mod report;
mod request;
mod sums;
mod target;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::error::{Code, Error, Result};
use crate::printable;
use crate::repository::backup_id::SHA256SUMS;
use crate::repository::catalog::{self, BackupId, Demand, Located};
use crate::repository::manifest::{FileRecord, Manifest, role};
use crate::repository::signature::Trust;
use crate::repository::stored_archive::read_file;
use crate::run::clock::Clock;
use crate::run::files::blocking;
use crate::run::progress::Observer;
use crate::run::stop::Stop;
use crate::store::{Store, limits};
use fetch::Fetch;
use partial::Partial;

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
    let database = request.database.as_deref().or(job.database.as_deref());
    let demand = Demand {
        trust: job.trust,
        manifest: request.expect_manifest,
        now: (job.clock)(),
        altered: false,
    };
    let found = stop
        .or_stop(catalog::find(job.stores, &request.backup, database, &demand))
        .await?;
    let Located {
        store,
        manifest,
        manifest_sha256,
        signed_by,
        mut warnings,
        seal: _,
    } = found;
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

    let fetch = Fetch {
        store: &store,
        key: manifest.id.key(&archive.name),
        bytes: archive.bytes,
        // A run that died in its last step may have written some or all of the offsets.
        uncertain: manifest.files.get(role::TOC).map_or(0, |toc| toc.bytes),
        head: head.clone(),
        stop,
        observer: job.observer,
    };
    let (place, stamp) = (target.clone(), stamp(&manifest.id));
    let partial = blocking(move || Partial::open(&place, &stamp)).await?;
    let fetched = match fetch_whole(&fetch, &partial, archive).await {
        Ok(fetched) => fetched,
        Err(error) => return Err(partial.keep_or_remove(&manifest.id, error)),
    };
    warnings.extend(fetched.anew.map(str::to_owned));
    let laid = head.clone();
    blocking(move || partial.publish(laid.as_deref(), force)).await?;

    let digests = fetched.digests;
    let (place, id, sums) = (target.clone(), manifest.id.clone(), digests.clone());
    if let Err(error) = blocking(move || sums::write(&place, &id, &sums)).await {
        let why = error.message();
        warnings.push(format!(
            "the file is whole, but its digest could not be written to {SHA256SUMS}: {why}"
        ));
    }
    Ok(DownloadReport {
        status: DownloadStatus::Succeeded,
        file: target,
        store: store.url().to_owned(),
        manifest_sha256: hex::encode(manifest_sha256),
        signed_by,
        bytes: archive.bytes,
        bytes_fetched: fetched.bytes,
        offsets: head.is_some(),
        sha256: digests.downloaded,
        sha256_as_stored: digests.stored,
        duration_seconds: started.elapsed().as_secs_f64(),
        warnings,
        id: manifest.id,
    })
}

struct Fetched {
    digests: fetch::Digests,
    /// Bytes that came from the store; the rest was there.
    bytes: u64,
    /// Why everything had to be fetched again.
    anew: Option<&'static str>,
}

/// Fills the partial file with the archive that the manifest describes. The bytes of an earlier run, or bytes on the
/// way, may be damaged although the store is right: then pgstow fetches everything once more.
async fn fetch_whole(fetch: &Fetch<'_>, partial: &Partial, archive: &FileRecord) -> Result<Fetched> {
    let there = partial.resumable(archive.bytes)?;
    let kept = fetch.kept(there);
    let digests = fetch.fill(partial, there).await?;
    if digests.stored == archive.sha256 {
        return Ok(Fetched {
            digests,
            bytes: archive.bytes - kept,
            anew: None,
        });
    }
    // The bytes of an earlier run may be damaged, and a bit that flipped on the way is no damage in the store.
    partial.restart()?;
    let again = fetch.fill(partial, 0).await?;
    if again.stored == archive.sha256 {
        return Ok(Fetched {
            digests: again,
            bytes: archive.bytes - kept + archive.bytes,
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
