//! One increment: from where the stream stands to the end of the server's log now.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::context::Context;
use super::coverage::{self, Looked, Outcome};
use super::destination::Destination;
use super::reading::{Bounds, ReadTo, Reading};
use super::record::{Begun, Receipts, Record};
use super::run::Run;
use super::span::Span;
use super::standing::{Full, Last};
use crate::error::{Error, Result};
use crate::format::Lsn;
use crate::format::changes::Head;
use crate::job::backup::record::Sidecar;
use crate::job::backup::replicas::Replicas;
use crate::job::backup::{BackupReport, PUT_GRACE, answered};
use crate::postgres::{Horizon, PublicationChanges, PublicationKind};
use crate::repository::backup_id::{BackupId, BackupKind};
use crate::repository::manifest::{Stream, StreamBeginning};
use crate::repository::seen_catalog::SeenCatalog;
use crate::run::progress::Event;

/// An idle stream is confirmed so often: an increment without transactions shows in the store that nothing happened,
/// and lets the server remove its log.
const IDLE: SignedDuration = SignedDuration::from_hours(1);
/// An idle stream is confirmed earlier if the server has kept so much of its log for it: other databases write it too.
const IDLE_LOG: u64 = 64 << 20;
/// How much earlier than the commit at which a span ends another commit may have got its time, and still come later.
const OUT_OF_ORDER: SignedDuration = SignedDuration::from_secs(2);
/// A task's time that is kept for storing and confirming what was read; of a short time it is a third.
const TO_STORE: SignedDuration = SignedDuration::from_secs(30);

/// Where a round begins.
pub(super) struct Start {
    pub stream: String,
    pub from: Lsn,
    /// The increment that ends there. `None`: the round makes the first one of a stream.
    pub predecessor: Option<BackupId>,
    pub settled: Option<Lsn>,
    pub settled_xid: Option<u64>,
    pub newest_xid: Option<u64>,
    pub seen_to: Option<Timestamp>,
    pub catalog: Option<SeenCatalog>,
    /// Tables whose changes were not published for a moment since then.
    pub interrupted: BTreeSet<u32>,
}

impl Start {
    pub fn after(last: Last) -> Self {
        let Last { id, stream, catalog } = last;
        Self {
            stream: stream.id,
            from: stream.to,
            predecessor: Some(id),
            settled: stream.settled,
            settled_xid: stream.settled_xid,
            newest_xid: stream.newest_xid,
            seen_to: Some(stream.seen_to),
            catalog,
            interrupted: BTreeSet::new(),
        }
    }

    pub fn first(slot: &str, from: Lsn, beginning: &StreamBeginning, full: Full) -> Self {
        Self {
            stream: format!("{slot}@{from}"),
            from,
            predecessor: None,
            settled: Some(beginning.from),
            settled_xid: Some(beginning.xid),
            newest_xid: None,
            seen_to: None,
            catalog: full.catalog,
            interrupted: BTreeSet::new(),
        }
    }
}

pub(super) enum RoundEnd {
    Made(Box<BackupReport>, Box<Start>),
    /// Nothing has happened, and the store says so recently enough.
    Idle,
    /// Why a new full is better than this increment.
    NewFull(String),
}

/// Makes an increment, and confirms it when its manifest is in the store.
pub(super) async fn round(run: &Run<'_>, reading: &mut Reading, start: &Start) -> Result<RoundEnd> {
    let Run { job, source, .. } = run;
    let reached = Replicas::reach(job.stores, job.stop);
    let replicas = reading.through(job.stop.or_stop(reached)).await?;
    let horizon = reading.through(answered(job, source.session.horizon())).await?;
    let estimate = horizon.flushed.0.saturating_sub(start.from.0);
    let mut destination = Destination::new(run, replicas, estimate);
    let made = Box::pin(make(run, reading, start, &horizon, &mut destination)).await;
    match made {
        Ok(RoundEnd::Made(report, next)) => Ok(RoundEnd::Made(report, next)),
        Ok(other) => {
            // Nothing of it is needed.
            let discarded = destination
                .give_up(Error::internal("the round has stored nothing"))
                .await;
            tracing::debug!("{discarded}");
            Ok(other)
        }
        Err(error) => Err(destination.give_up(error).await),
    }
}

async fn make(
    run: &Run<'_>,
    reading: &mut Reading,
    start: &Start,
    horizon: &Horizon,
    destination: &mut Destination<'_>,
) -> Result<RoundEnd> {
    let Run { job, source, .. } = run;
    let database = &source.session.server().database;
    job.observer.phase("reading the catalog");
    // The id is taken when there is something to store.
    let unnamed = BackupId::next(database, BackupKind::Incremental, destination.started, None);
    let looked = reading.through(coverage::look(&context(run, &unnamed, start))).await?;
    let reconciling = answered(job, source.session.reconcile(run.slot, &looked.catalog));
    let mut publications = reading.through(reconciling).await?;
    publications.interrupted.extend(&start.interrupted);

    job.observer.phase("reading the changes");
    let head = head(run, reading, start)?;
    let mut span = Span::new(&head, start.catalog.as_ref(), start.newest_xid, horizon.xmax)?;
    let mut goal = looked.at.max(horizon.flushed);
    let bounds = Bounds {
        job,
        lease: run.lease,
        until: job.stop.deadline().map(|deadline| last_moment((job.clock)(), deadline)),
        may_end_early: true,
    };
    let whole = Bounds {
        may_end_early: false,
        ..bounds
    };
    let mut read = reading.read(&bounds, (&mut span, &mut *destination), goal).await?;
    if span.transactions() == 0
        && reading
            .through(is_idle(run, start, (horizon, goal), &looked, &publications))
            .await?
    {
        return Ok(RoundEnd::Idle);
    }

    job.observer.phase("reading new and changed tables");
    let mut probe = None;
    if read == ReadTo::Goal {
        let viewing = context(run, &unnamed, start);
        let probing = coverage::probe(&viewing, &looked.catalog, &publications);
        probe = reading.through(Box::pin(probing)).await?;
        goal = probe.as_ref().map_or(goal, |probe| probe.at.max(goal));
        read = reading.read(&whole, (&mut span, &mut *destination), goal).await?;
    }
    let id = reading.through(destination.id()).await?;
    let context = context(run, &id, start);
    let read_to = read.position(&span, goal);
    let previous = start.catalog.clone();
    let settling = coverage::settle(
        &context,
        &mut destination.replicas,
        previous,
        looked,
        publications,
        (&span.facts, read_to),
        probe,
    );
    let settled = match reading.through(Box::pin(settling)).await? {
        Outcome::NewFull(why) => return Ok(RoundEnd::NewFull(why)),
        Outcome::Settled(settled) => settled,
    };
    let to = match settled.at {
        None => read_to,
        // The baselines are later than the end of the stream so far, and must lie within the increment.
        Some(at) => {
            let goal = at.max(read_to);
            let read = reading.read(&whole, (&mut span, &mut *destination), goal).await?;
            read.position(&span, goal)
        }
    };
    let finishing = Box::pin(coverage::finish(&context, *settled, (&span.facts, to)));
    let coverage = reading.through(finishing).await?;

    job.observer.phase("storing the changes");
    let seen_to = match read {
        ReadTo::Goal => horizon.seen,
        ReadTo::Early => {
            let last = span.last_commit().and_then(|last| last.checked_sub(OUT_OF_ORDER).ok());
            last.map_or(horizon.seen, |last| last.min(horizon.seen))
        }
    };
    let newest_xid = span.newest_xid();
    let (bytes, summary) = span.finish(to)?;
    reading.through(destination.open()).await?;
    reading.beside(&bounds, destination.write(bytes)).await?;
    let stored = reading.through(destination.complete()).await?;
    let stream = Stream {
        id: start.stream.clone(),
        slot: run.slot.slot().to_owned(),
        system_identifier: reading.source().system_identifier.clone(),
        timeline: reading.source().timeline,
        database_oid: source.session.server().database_oid,
        from: start.from,
        to,
        predecessor: start.predecessor.clone(),
        first_commit: summary.commits.map(|(first, _)| first),
        last_commit: summary.commits.map(|(_, last)| last),
        // Later increments never know less.
        seen_to: start.seen_to.map_or(seen_to, |before| before.max(seen_to)),
        transactions: summary.transactions,
        newest_xid,
        settled: start.settled,
        settled_xid: start.settled_xid,
        index: (&summary.index).into(),
    };
    let begun = Begun {
        started: destination.started,
        taken: destination.taken(),
        is_behind: read == ReadTo::Early,
        goal,
    };
    let (record, receipts, sidecars) = Record::new(run, begun, stream, horizon, &summary, coverage, stored)?;
    Box::pin(commit(run, reading, destination, record, &receipts, sidecars)).await
}

/// Puts the files beside the changes and then the manifest, and only then confirms.
async fn commit(
    run: &Run<'_>,
    reading: &mut Reading,
    destination: &mut Destination<'_>,
    record: Record<'_>,
    receipts: &[Option<Receipts>],
    sidecars: Vec<Sidecar>,
) -> Result<RoundEnd> {
    let Run { job, .. } = run;
    let (stop, replicas) = (job.stop, &mut destination.replicas);
    for file in sidecars {
        // If a put is interrupted, the file is discarded with the others. It has the tag `pending` from the start.
        let put = replicas.put(&file.key, file.bytes, &file.info);
        reading.through(stop.or_stop_after(PUT_GRACE, put)).await?;
    }
    job.observer.phase("committing");
    let files = record.tagged_files();
    let tagging = replicas.tag(record.id(), &files);
    reading.through(stop.or_stop_after(PUT_GRACE, tagging)).await?;
    let finished = (job.clock)();
    let manifest = |receipts: &Receipts| record.manifest(receipts, finished);
    let sealing = replicas.seal(manifest, receipts, job.signer, finished);
    let sealed = reading.through(stop.or_stop(sealing)).await?;
    if let Some(reason) = stop.reason() {
        return Err(reason.into());
    }
    reading.through(stop.or_stop(run.lease.still_held())).await?;
    // The commit point: with the manifest the increment exists. A run that dies from here on leaves it unconfirmed, and
    // the next run begins at its end all the same.
    let manifest = reading.through(replicas.publish(sealed)).await?;
    job.observer.event(&Event::Committed {
        id: manifest.id.to_string(),
    });
    let mut warnings = Vec::new();
    let to = record.stream().to;
    if let Err(error) = reading.confirm(to).await {
        warnings.push(format!(
            "the increment is stored, but the server was not told so ({}): the next one begins at its end all the same",
            error.message()
        ));
    }
    warnings.extend(
        reading
            .through(replicas.retag(&manifest.id, &job.settings.retention))
            .await,
    );
    let next = Start::after(Last {
        id: manifest.id.clone(),
        stream: record.stream().clone(),
        catalog: record.catalog()?,
    });
    let report = record.report(&manifest, replicas, warnings);
    Ok(RoundEnd::Made(Box::new(report), Box::new(next)))
}

/// When a span ends early, so that it can be stored before the deadline.
fn last_moment(now: Timestamp, deadline: Timestamp) -> Timestamp {
    let kept = (deadline.duration_since(now) / 3).clamp(SignedDuration::ZERO, TO_STORE);
    deadline.checked_sub(kept).unwrap_or(now)
}

fn context<'a>(run: &Run<'a>, id: &'a BackupId, start: &Start) -> Context<'a> {
    Context {
        job: run.job,
        source: run.source,
        lease: run.lease,
        id,
        from: start.from,
        slot: run.slot,
    }
}

fn head(run: &Run<'_>, reading: &Reading, start: &Start) -> Result<Head> {
    let source = reading.source();
    let system_identifier = source.system_identifier.parse();
    Ok(Head {
        system_identifier: system_identifier
            .map_err(|error| Error::internal("the server's system identifier is no number").source(error))?,
        timeline: source.timeline,
        database_oid: run.source.session.server().database_oid,
        from: start.from,
    })
}

impl ReadTo {
    /// The position up to which the span has everything.
    fn position(self, span: &Span, goal: Lsn) -> Lsn {
        match self {
            ReadTo::Goal => span.position().max(goal),
            ReadTo::Early => span.position(),
        }
    }
}

/// Whether there is nothing to store: no table was changed as far as the stream and the server's counts tell, no
/// definition either, and the last increment is recent.
async fn is_idle(
    run: &Run<'_>,
    start: &Start,
    (horizon, goal): (&Horizon, Lsn),
    looked: &Looked,
    publications: &PublicationChanges,
) -> Result<bool> {
    let (Some(seen), Some(_), Some(before)) = (start.seen_to, &start.predecessor, &start.catalog) else {
        return Ok(false);
    };
    if horizon.seen.duration_since(seen) >= IDLE || goal.0.saturating_sub(start.from.0) >= IDLE_LOG {
        return Ok(false);
    }
    let files = |oid: u32| looked.catalog.table(oid).map(|table| table.filenode);
    let same = before.is_settled()
        && before.definitions.fingerprint == looked.fingerprint
        && before
            .tables
            .iter()
            .all(|seen| files(seen.table.oid) == Some(seen.table.filenode))
        && publications.before == publications.after
        && publications.interrupted.is_empty()
        && before.tables.iter().all(|seen| {
            let by = seen.membership.as_ref();
            by.is_none_or(|by| publications.memberships.1.get(&seen.table.oid) == Some(by))
        });
    if !same {
        return Ok(false);
    }
    if let Some(objects) = &before.large_objects {
        let now = answered(run.job, run.source.session.large_objects_fingerprint()).await?;
        if now.as_ref() != Some(objects) {
            return Ok(false);
        }
    }
    let keyless = publications.after.iter();
    let keyless = keyless.filter(|(_, kind)| **kind == PublicationKind::Inserts);
    let keyless: Vec<u32> = keyless.map(|(oid, _)| *oid).collect();
    let counted = answered(run.job, run.source.session.rows_changed(&keyless)).await?;
    Ok(counted.iter().all(|(oid, count)| {
        let seen = before.table(*oid);
        seen.is_some_and(|seen| seen.counted == Some(*count) || seen.table.kind != crate::postgres::TableKind::Ordinary)
    }))
}
