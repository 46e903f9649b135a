//! Reads tables whole, under one snapshot, into a stock archive of pg_dump: the baselines of an increment.

use std::time::Duration;

use bytes::Bytes;

use super::context::Context;
use crate::dataflow::pipeline::{Archive, EarlierBlocks, Passed};
use crate::dataflow::throttle::Throttle;
use crate::error::{Code, Error, Result};
use crate::format::{Format, Lsn};
use crate::job::backup::record::Blocks;
use crate::job::backup::replicas::Replicas;
use crate::job::backup::transfer::Made;
use crate::job::backup::view::{self, Opened};
use crate::job::backup::{answered, answered_within, codec_for, transfer};
use crate::postgres::{Contents, Hold, Snapshot, Taken, Unbegun};
use crate::repository::catalog::object_info;
use crate::repository::manifest::{FileRecord, LargeObjectsRecord, TableRecord};
use crate::store::{ObjectInfo, Stored};

/// How often pgstow tries to lock the tables before the snapshot, if other sessions interfere.
const ATTEMPTS: usize = 3;
/// How long it waits for the lock of a table. An increment can leave the table to the next one.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// The archive of the baselines. Its `.dump` is in the stores, with the tag `pending`; all else is still to be put.
///
/// The places in `tables` have the index of the first data file: it is the only one of an increment.
pub(in crate::job) struct StoredBaselines {
    pub file: FileRecord,
    /// If `MD5SUMS` is asked for.
    pub md5: Option<[u8; 16]>,
    /// The bytes of the `.toc`.
    pub toc: Bytes,
    pub tables: Vec<TableRecord>,
    pub large_objects: Vec<LargeObjectsRecord>,
    pub snapshot: Snapshot,
    /// Everything that the snapshot sees was committed before this position.
    pub at: Lsn,
    /// In the order of the stores.
    pub receipts: Vec<Option<Stored>>,
    pub archive_version: String,
    pub warnings: Vec<String>,
}

/// What is to be read.
pub(super) struct Chosen<'a> {
    pub tables: &'a [u32],
    /// An estimate.
    pub bytes: u64,
    pub with_large_objects: bool,
}

/// The inner `Err` says why it has to wait for the next increment; the store then has nothing of it.
pub(super) async fn read(
    context: &Context<'_>,
    replicas: &mut Replicas,
    chosen: &Chosen<'_>,
) -> Result<Result<StoredBaselines, String>> {
    let session = &context.source.session;
    let opened = match open(context, chosen).await? {
        Ok(opened) => opened,
        Err(why) => return Ok(Err(why)),
    };
    let (snapshot, at, reader) = opened;
    let sent = store(context, replicas, chosen, reader).await;
    let released = answered(context.job, session.release_snapshot()).await;
    let sent = sent?;
    released?;
    stored(context, sent, snapshot, at).map(Ok)
}

/// Locks the tables, takes the snapshot, and starts pg_dump. The snapshot is open if it succeeds.
async fn open(context: &Context<'_>, chosen: &Chosen<'_>) -> Result<Result<(Snapshot, Lsn, Opened), String>> {
    let Context { job, source, .. } = *context;
    let session = &source.session;
    let postgres = &job.settings.postgres;
    let lock_wait = match postgres.lock_wait {
        Duration::ZERO => LOCK_WAIT,
        wait => wait.min(LOCK_WAIT),
    };
    let patience = postgres.stall + lock_wait;
    let mut why = String::new();
    for _ in 0..ATTEMPTS {
        let taken = answered_within(job, patience, Hold::take_of(session, lock_wait, chosen.tables)).await;
        let (hold, snapshot) = match taken {
            Ok(Taken::Held(hold, snapshot)) => (hold, snapshot),
            Ok(Taken::Changed(changed)) => {
                why = changed;
                continue;
            }
            Ok(Taken::Unheld(unheld)) => return Ok(Err(unheld)),
            // Another session holds a table for longer.
            Err(error) if error.code() == Code::PgDumpErr => return Ok(Err(error.message())),
            Err(error) => return Err(error),
        };
        let begun = begin(context, chosen, &snapshot, Unbegun::briefly(lock_wait)).await;
        let released = answered(job, async { Ok(hold.release().await) }).await?;
        match (begun, released) {
            (Ok((begun, at)), Ok(())) => return Ok(Ok((snapshot, at, Opened::Dump(begun)))),
            (Ok((begun, _)), Err(error)) => {
                // It is unknown when the locks ended.
                begun.dump.stop().await;
                why = error.message();
            }
            (Err(Unbegun::Crossed(error) | Unbegun::Unclear(error) | Unbegun::NoRoom(error)), _) => {
                why = error.message();
            }
            (Err(Unbegun::Failed(error)), _) => {
                let released = answered(job, session.release_snapshot()).await;
                return Err(error.with_clean_up(released));
            }
        }
        answered(job, session.release_snapshot()).await?;
    }
    Ok(Err(why))
}

async fn begin(
    context: &Context<'_>,
    chosen: &Chosen<'_>,
    snapshot: &Snapshot,
    lock_wait: Duration,
) -> Result<(view::Begun, Lsn), Unbegun> {
    let Context { job, source, .. } = *context;
    let session = &source.session;
    let Some(at) = job.stop.or_stop(session.settled_position()).await? else {
        let text = "the server does not flush its log up to the snapshot of the baselines";
        return Err(Unbegun::Failed(Error::new(Code::Stalled, text)));
    };
    let patterns = answered(job, session.dump_patterns(chosen.tables)).await?;
    let contents = match patterns.is_empty() {
        true => Contents::LargeObjects,
        false => Contents::Tables {
            patterns: &patterns,
            with_large_objects: chosen.with_large_objects,
        },
    };
    let begun = view::begin(job, source, snapshot, contents, lock_wait).await?;
    Ok((begun, at))
}

/// The archive, after the stores have it.
struct Sent {
    passed: Passed,
    /// In the order of the stores.
    receipts: Vec<Option<Stored>>,
    warnings: Vec<String>,
}

/// Sends the archive to the stores, and completes the uploads.
async fn store(context: &Context<'_>, replicas: &mut Replicas, chosen: &Chosen<'_>, reader: Opened) -> Result<Sent> {
    let Context {
        job, source, id, lease, ..
    } = *context;
    let key = id.key(&id.dump_name());
    let server = &source.session.server().version;
    let info = ObjectInfo {
        size_estimate: Some(chosen.bytes),
        ..object_info(id, server, "application/octet-stream")
    };
    let uploads = match replicas.open(&key, &info).await {
        Ok(uploads) => uploads,
        Err(error) => {
            if let Opened::Dump(begun) = &reader {
                begun.dump.stop().await;
            }
            return Err(error);
        }
    };
    let throttle = Throttle::new(job.settings.max_rate);
    let codec = codec_for(Format::Custom, job.settings, source.programs.major);
    let made = Made {
        format: Format::Custom,
        codec,
        earlier: EarlierBlocks::default(),
        uploads,
    };
    let passed = transfer::run(job, reader, made, lease, &throttle).await;
    let (mut passed, warnings) = passed?;
    let expected = passed.expected.object();
    let copies = std::mem::take(&mut passed.copies);
    let receipts = replicas.complete_in_time(&key, copies, &expected).await?;
    Ok(Sent {
        passed,
        receipts,
        warnings,
    })
}

fn stored(context: &Context<'_>, sent: Sent, snapshot: Snapshot, at: Lsn) -> Result<StoredBaselines> {
    let Sent {
        passed,
        receipts,
        warnings,
    } = sent;
    let file = FileRecord {
        name: context.id.dump_name(),
        bytes: passed.expected.bytes,
        sha256: hex::encode(passed.expected.sha256),
    };
    let Some(archive) = passed.archive else {
        return Err(Error::internal("the archive of the baselines has no head"));
    };
    let mut blocks = Blocks::default();
    blocks.archive(&archive, &std::collections::HashMap::new());
    let Archive { head, toc, .. } = archive;
    Ok(StoredBaselines {
        file,
        md5: passed.md5,
        toc: toc.into(),
        tables: blocks.tables,
        large_objects: blocks.large_objects,
        snapshot,
        at,
        receipts,
        archive_version: head.version.to_string(),
        warnings,
    })
}
