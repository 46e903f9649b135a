//! Increments: each holds a span of the slot's stream, and what it means for each table.
//!
//! docs/SEMANTICS.md says what each step leaves if the run dies there. The server is told that a position is stored only
//! when the manifest of the increment that ends there is in the store.

mod baselines;
pub(in crate::job) mod context;
pub(in crate::job) mod coverage;
mod definitions;
mod destination;
mod difference;
pub(in crate::job) mod facts;
mod following;
mod idle;
mod probe;
mod reading;
mod record;
mod renewal;
mod round;
mod run;
mod sequences;
mod span;
mod standing;
mod start;

use crate::error::{Code, Error, Result};
use crate::job::backup::replicas::Replicas;
use crate::job::backup::{BackupReport, BackupRequest, Job, PUT_GRACE, SourceDatabase, answered, connect, repeated};
use crate::postgres::{Slot, SlotName, StreamSource};
use crate::repository::backup_id::BackupKind;
use crate::repository::catalog;
use crate::repository::lease::{Acquired, Holder, Lease};
use crate::repository::manifest::SnapshotRecord;
use crate::repository::stream_beginning::{self, Sought};
use crate::store::Store;

use reading::Reading;
use round::RoundEnd;
use run::Run;
use standing::{Now, Standing};
use start::Start;

pub use following::{Followed, follow};

/// Makes one increment, or finds the one that this event has already made, or says that there is nothing to store. If
/// the chain is broken, it makes a full backup that begins a new one.
pub async fn run(job: &Job<'_>, request: &BackupRequest) -> Result<BackupReport> {
    let run = begin(job, request).await?;
    run.lease.tell_progress(job.observer);
    // The futures of the steps are large, and a thread of a runtime has a small stack.
    let mut outcome = Box::pin(once(&run, false)).await;
    if let Err(error) = &outcome
        && error.code() == Code::Slot
    {
        tracing::warn!("{}; it is tried once more", error.message());
        outcome = Box::pin(once(&run, true)).await;
    }
    let released = job.stop.or_give_up("releasing the lease", run.lease.release()).await;
    match (outcome, released) {
        (Ok(report), Ok(())) => Ok(report),
        // The lease expires by itself, and the increment is still good.
        (Ok(mut report), Err(error)) => {
            report.warnings.push(error.message());
            Ok(report)
        }
        (Err(error), released) => Err(error.with_clean_up(released)),
    }
}

/// One increment under the lease. If the stream cannot be read on for the second time, the chain ends.
async fn once(run: &Run<'_>, is_second: bool) -> Result<BackupReport> {
    let Run {
        job,
        request,
        source,
        slot,
        ..
    } = run;
    if let Some(made) = made_for_event(run).await? {
        return Ok(made);
    }
    let mut reading = open_reading(run).await?;
    let start = match look(run, &reading.source().clone()).await? {
        Begin::At(start) => start,
        Begin::Anew { why, needs_slot } => {
            reading.finish(job).await?;
            return Box::pin(renewal::renew(job, request, source, slot, (&why, needs_slot))).await;
        }
    };
    reading.start(job, slot.slot(), start.from, &run.publications).await?;
    let ended = Box::pin(round::round(run, &mut reading, &start)).await;
    let closed = reading.finish(job).await;
    let ended = match ended {
        Err(error) if is_second && error.code() == Code::Slot => RoundEnd::NewFull(error.message()),
        ended => ended?,
    };
    match ended {
        RoundEnd::Made(mut report, next) => {
            report.warnings.extend(closed.err().map(|error| error.message()));
            let after = answered(job, source.session.slot(slot)).await.ok().flatten();
            report
                .warnings
                .extend(after.as_ref().and_then(|slot| unconfirmed(slot, &next)));
            if let Some(increment) = &mut report.increment {
                increment.slot = after;
            }
            Ok(*report)
        }
        RoundEnd::Idle => idle(run, &start).await,
        // With a new slot: with the old one, the next run would go on where the last increment ended, and find the same.
        RoundEnd::NewFull(why) => Box::pin(renewal::renew(job, request, source, slot, (&why, true))).await,
    }
}

/// Where the next round begins.
enum Begin {
    At(Box<Start>),
    Anew { why: String, needs_slot: bool },
}

/// Connects to the source, and takes the lease.
async fn begin<'a>(job: &'a Job<'a>, request: &'a BackupRequest) -> Result<Run<'a>> {
    job.observer.phase("connecting");
    let source = job.stop.or_stop(open(job, request)).await?;
    let Acquired { lease, took_over } = acquire(job, &source).await?;
    let slot = SlotName::of(primary(job)?.url(), &source.session.server().database);
    Ok(Run {
        job,
        request,
        publications: slot.publications().into(),
        source,
        lease,
        took_over,
        slot,
    })
}

async fn open(job: &Job<'_>, request: &BackupRequest) -> Result<SourceDatabase> {
    let source = connect(job, request).await?;
    if source.session.server().in_recovery {
        return Err(
            Error::config("the server is a standby: increments are read from its primary")
                .hint("give the primary's address; full backups can be made of a standby"),
        );
    }
    if let Some(signer) = job.signer {
        signer.probe().await?;
    }
    Ok(source)
}

fn primary<'a>(job: &Job<'a>) -> Result<&'a dyn Store> {
    let first = job.stores.first();
    let missing = || Error::config("no store is set").hint("name one with --store or BACKUP_STORE");
    first.map(|store| &**store).ok_or_else(missing)
}

/// The lease of increments: `BUSY` if another run makes them. A full backup has a lease of its own.
async fn acquire(job: &Job<'_>, source: &SourceDatabase) -> Result<Acquired> {
    let replicas = job.stop.or_stop(Replicas::reach(job.stores, job.stop)).await?;
    let holder = Holder {
        host: job.host.to_owned(),
        pid: std::process::id(),
    };
    let database = &source.session.server().database;
    let (store, kind) = (replicas.primary(), BackupKind::Incremental);
    let acquiring = Lease::acquire_for(store, (database, kind), holder, job.settings.lease, job.clock);
    let give_back = async |acquired: Acquired| drop(acquired.lease.release().await);
    job.stop.or_undo(PUT_GRACE, acquiring, give_back).await
}

async fn made_for_event(run: &Run<'_>) -> Result<Option<BackupReport>> {
    let Run {
        job, request, source, ..
    } = run;
    let Some(event) = &request.event_id else {
        return Ok(None);
    };
    let looking = async {
        let store = primary(job)?;
        let listed = catalog::backups(store, Some(&source.session.server().database)).await?;
        let now = (job.clock)();
        // A full, if the chain was broken.
        for kind in [BackupKind::Incremental, BackupKind::Full] {
            let made = catalog::find_by_event(store, &listed, kind, event, now, job.trust).await?;
            if let Some(made) = made {
                return repeated::of(job.stores, &made.id, job.trust).await.map(Some);
            }
        }
        Ok(None)
    };
    job.stop.or_stop(looking).await
}

async fn open_reading(run: &Run<'_>) -> Result<Reading> {
    let Run { job, source, .. } = run;
    let log_end = answered(job, source.session.log_end()).await?;
    Reading::open(job, source, log_end.sender_timeout).await
}

/// Compares the store with the server.
async fn look(run: &Run<'_>, identified: &StreamSource) -> Result<Begin> {
    let Run { job, source, slot, .. } = run;
    let server = source.session.server();
    job.observer.phase("looking where the stream stands");
    let looking = async {
        let store = primary(job)?;
        let listed = catalog::backups(store, Some(&server.database)).await?;
        let held = standing::held(store, &listed, job.trust, (job.clock)()).await?;
        Ok((listed, held))
    };
    let (listed, held) = job.stop.or_stop(looking).await?;
    let found = answered(job, source.session.slot(slot)).await?;
    let publications = answered(job, source.session.publications(slot)).await?;
    let now = Now {
        source: identified,
        database_oid: server.database_oid,
        slot: found.as_ref(),
        publications: publications.existing.len(),
    };
    Ok(match standing::standing(held, slot, &now)? {
        Standing::GoesOn(last) => Begin::At(Box::new(Start::after(*last))),
        Standing::Begins { from, full } => {
            let sought = Sought {
                slot: slot.slot(),
                confirmed: from,
                source: identified,
            };
            let looking = stream_beginning::find(primary(job)?, &listed, sought, job.trust, (job.clock)());
            let beginning = job.stop.or_stop(looking).await?;
            match beginning.filter(|beginning| beginning.precedes(&full.snapshot)) {
                Some(beginning) => {
                    let suits = |snapshot: &SnapshotRecord| beginning.precedes(snapshot);
                    let at = (job.clock)();
                    let looking = standing::first_base(primary(job)?, &listed, (&now, from), (job.trust, at), suits);
                    let first = job.stop.or_stop(looking).await?.unwrap_or(*full);
                    Begin::At(Box::new(Start::first(slot.slot(), from, &beginning, first)))
                }
                None => Begin::Anew {
                    why: format!(
                        "the newest full backup was made after the slot {slot}, but perhaps before the transactions that are \
                         older than the slot had ended"
                    ),
                    needs_slot: false,
                },
            }
        }
        Standing::Broken { why, needs_slot } => Begin::Anew { why, needs_slot },
    })
}

/// The report of a run that had nothing to store: it names the last increment.
async fn idle(run: &Run<'_>, start: &Start) -> Result<BackupReport> {
    let Some(last) = &start.predecessor else {
        return Err(Error::internal("a stream without an increment is idle"));
    };
    let Run { job, .. } = run;
    let report = job.stop.or_stop(repeated::of(job.stores, last, job.trust)).await?;
    Ok(report.idle())
}

/// A warning if the slot is not where the increment ends, although the server was told.
fn unconfirmed(slot: &Slot, next: &Start) -> Option<String> {
    let confirmed = slot.confirmed?;
    (confirmed < next.from).then(|| {
        format!(
            "the increment ends at {}, but the slot is still at {confirmed}: the server keeps its log until the next \
             increment",
            next.from
        )
    })
}
