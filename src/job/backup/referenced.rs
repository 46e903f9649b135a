//! A backup by reference, where no replication slot may be made: tables that have not changed since the last good full
//! backup are not stored again. Every table is read, because no counter of the server is proof that a table did not
//! change. It saves compression, upload and storage.
//!
//! A table of at most [`pipeline::HELD`] bytes is kept in memory until its end, and then compared. A larger one is read
//! and digested in the same snapshot before the upload begins; if it is the same, it is not read again.
//!
//! [`pipeline::HELD`]: crate::dataflow::pipeline::HELD

use jiff::Timestamp;

use super::replicas::Replicas;
use super::{BackupRequest, Job, SourceDatabase, codec, record, transfer};
use crate::dataflow::parallel::Streams;
use crate::dataflow::pipeline::EarlierBlocks;
use crate::dataflow::throttle::Throttle;
use crate::error::{Code, Error, Result};
use crate::format::Format;
use crate::postgres::StallClock;
use crate::repository::backup_id::BackupKind;
use crate::repository::catalog::{self, Demand, Listed};
use crate::repository::lease::Lease;
use crate::repository::references::Referent;
use crate::settings::Incremental;

/// How many backups are looked at. Some of the newest may be damaged, or made with other settings.
const LOOKED_AT: usize = 10;

/// Whether the request asks for a backup by reference. `CONFIG` if the settings do not allow one.
pub(super) fn is_asked(job: &Job<'_>, request: &BackupRequest) -> Result<bool> {
    if request.kind != BackupKind::Incremental || job.settings.incremental != Incremental::Reference {
        return Ok(false);
    }
    if job.settings.format == Format::Plain {
        return Err(Error::config(
            "BACKUP_INCREMENTAL=reference and BACKUP_FORMAT=plain: a script cannot refer to another backup",
        )
        .hint("set BACKUP_FORMAT=custom, or make full backups"));
    }
    if request.every.is_some() {
        return Err(Error::config(
            "--follow follows the stream of a slot, but BACKUP_INCREMENTAL=reference reads the tables",
        )
        .hint("leave --follow out, and run the backup on a schedule"));
    }
    Ok(true)
}

/// The newest good full backup that every store of this run has. The inner `Err` says why there is none: then the run
/// makes a full backup.
pub(super) async fn base(
    job: &Job<'_>,
    source: &SourceDatabase,
    fulls: &[Listed],
    replicas: &Replicas,
    now: Timestamp,
) -> Result<std::result::Result<Referent, Error>> {
    let store = replicas.primary();
    let compression = record::algorithm(codec(job.settings, source.programs.major));
    let demand = Demand {
        trust: job.trust,
        manifest: None,
        now,
        altered: false,
    };
    let mut whys = Vec::new();
    let mut at = 0;
    while let Some(listed) = fulls.get(at)
        && whys.len() < LOOKED_AT
    {
        at += 1;
        let Some(manifest) = catalog::sound(&*store, listed, &demand).await? else {
            whys.push(format!("{} cannot be restored, or was found damaged", listed.id));
            continue;
        };
        if let Some(references) = &manifest.references {
            // All between the two refer to the same one, or cannot be used.
            let from = fulls.iter().position(|one| one.id == references.from);
            at = at.max(from.unwrap_or(at));
            continue;
        }
        match Referent::of(manifest, compression) {
            Ok(base) => match replicas.lacks(&base).await? {
                None => return Ok(Ok(base)),
                Some(why) => whys.push(why),
            },
            Err(why) => whys.push(why),
        }
    }
    let why = match whys.is_empty() {
        true => "there is none yet".to_owned(),
        false => whys.join("; "),
    };
    let what = format!("there is no full backup to refer to, so this one has all tables: {why}");
    Ok(Err(Error::new(Code::NotFound, what)))
}

/// Reads the large tables, and takes those out of the reading that are the same.
pub(super) async fn compare(
    job: &Job<'_>,
    streams: &mut Streams,
    earlier: &mut EarlierBlocks,
    lease: &Lease,
    throttle: &Throttle,
) -> Result<()> {
    job.observer.phase("comparing the tables with the last full backup");
    let clock = StallClock::default();
    let comparing = streams.compare(earlier, &clock, throttle, job.observer);
    let stalled = transfer::stalled(&clock, job.settings.postgres.stall);
    tokio::select! {
        biased;
        error = transfer::interruption(job, stalled, lease) => Err(error),
        compared = comparing => compared,
    }
}
