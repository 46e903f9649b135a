//! One increment: from where the stream stands to the end of the server's log now.

use jiff::{SignedDuration, Timestamp};

use super::context::Context;
use super::coverage::{self, Coverage, Outcome, Sighting};
use super::destination::Destination;
use super::idle::is_idle;
use super::probe::Probe;
use super::reading::{Bounds, ReadTo, Reading};
use super::record::{Begun, ChangesFile, Receipts, Record, snapshot};
use super::run::Run;
use super::span::Span;
use super::standing::Last;
use super::start::Start;
use crate::error::{Error, Result};
use crate::format::Lsn;
use crate::format::changes::Head;
use crate::job::backup::record::Sidecar;
use crate::job::backup::replicas::Replicas;
use crate::job::backup::{BackupReport, PUT_GRACE, answered, put_all};
use crate::postgres::LogEnd;
use crate::repository::backup_id::{BackupId, BackupKind};
use crate::repository::manifest::Stream;
use crate::run::progress::Event;

/// A commit that comes later in the log may have an earlier time than the commit before it, by at most this much.
const OUT_OF_ORDER: SignedDuration = SignedDuration::from_secs(2);
/// Before a deadline, a run keeps this much time to store and confirm what it has read, but at most a third of its time.
const TO_STORE: SignedDuration = SignedDuration::from_secs(30);

pub(super) enum RoundEnd {
    Made(Box<BackupReport>, Box<Start>),
    /// Nothing has changed, and the last increment is recent.
    Idle,
    /// Why a new full is better than this increment.
    NewFull(String),
}

/// Makes an increment, and confirms it when its manifest is in the store.
pub(super) async fn round(run: &Run<'_>, reading: &mut Reading, start: &Start) -> Result<RoundEnd> {
    let Run { job, source, .. } = run;
    let reached = Replicas::reach(job.stores, job.stop);
    let replicas = reading.through(job.stop.or_stop(reached)).await?;
    let log_end = reading.through(answered(job, source.session.log_end())).await?;
    let estimate = log_end.flushed.0.saturating_sub(start.from.0);
    let mut destination = Destination::new(run, replicas, estimate);
    let making = Round {
        run,
        reading,
        start,
        log_end: &log_end,
        destination: &mut destination,
    };
    match Box::pin(making.make()).await {
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

/// A round in progress.
struct Round<'r, 'a> {
    run: &'a Run<'a>,
    reading: &'r mut Reading,
    start: &'r Start,
    log_end: &'r LogEnd,
    destination: &'r mut Destination<'a>,
}

impl<'a> Round<'_, 'a> {
    async fn make(mut self) -> Result<RoundEnd> {
        let job = self.run.job;
        job.observer.phase("reading the catalog");
        let sighting = self.look().await?;

        job.observer.phase("reading the changes");
        let catalog = self.start.catalog.as_ref();
        let mut span = Span::new(&self.head()?, catalog, self.start.newest_xid, self.log_end.xmax)?;
        let mut goal = sighting.looked.at.max(self.log_end.flushed);
        let until = job.stop.deadline();
        let until = until.map(|deadline| last_moment((job.clock)(), deadline));
        let bounds = Bounds {
            until,
            may_end_early: true,
            ..self.bounds()
        };
        let read = self.reading.read(&bounds, (&mut span, &mut *self.destination), goal);
        let mut read = read.await?;
        if span.transactions() == 0 {
            let looking = is_idle(self.run, self.start, (self.log_end, goal), &sighting);
            if self.reading.through(looking).await? {
                return Ok(RoundEnd::Idle);
            }
        }

        job.observer.phase("reading new and changed tables");
        let mut probe = None;
        if read == ReadTo::Goal {
            probe = self.probe(&sighting).await?;
            goal = probe.as_ref().map_or(goal, |probe| probe.at.max(goal));
            read = self.read_on(&mut span, goal).await?;
        }
        let read_to = read.position(&span, goal);
        let (coverage, to) = match self.cover(&mut span, (sighting, probe), read_to).await? {
            Covered::NewFull(why) => return Ok(RoundEnd::NewFull(why)),
            Covered::To(coverage, to) => (*coverage, to),
        };

        job.observer.phase("storing the changes");
        let seen_to = self.seen_to(read, &span);
        let changes = self.store(span, to, seen_to).await?;
        let begun = Begun {
            started: self.destination.started,
            taken: self.destination.taken(),
            is_behind: read == ReadTo::Early,
            snapshot: snapshot(self.log_end, goal),
        };
        let (record, receipts, sidecars) = Record::new(self.run, begun, changes, coverage)?;
        Box::pin(self.commit(record, &receipts, sidecars)).await
    }

    /// Reads the catalog, and brings the publications up to date with it.
    async fn look(&mut self) -> Result<Sighting> {
        let Run { job, source, slot, .. } = self.run;
        let unnamed = self.unnamed();
        let context = self.context(&unnamed);
        let looked = self.reading.through(coverage::look(&context)).await?;
        let reconciling = answered(job, source.session.reconcile(slot, &looked.catalog));
        let mut publications = self.reading.through(reconciling).await?;
        publications.interrupted.extend(&self.start.interrupted);
        Ok(Sighting {
            looked,
            publications,
            previous: self.start.catalog.clone(),
        })
    }

    async fn probe(&mut self, sighting: &Sighting) -> Result<Option<Probe>> {
        let unnamed = self.unnamed();
        let context = self.context(&unnamed);
        let probing = coverage::probe(&context, &sighting.looked.catalog, &sighting.publications);
        self.reading.through(Box::pin(probing)).await
    }

    /// Decides what the increment means for each table. The stream was read to `read_to`; the result has the
    /// increment's end.
    async fn cover(
        &mut self,
        span: &mut Span,
        (sighting, probe): (Sighting, Option<Probe>),
        read_to: Lsn,
    ) -> Result<Covered> {
        let id = self.reading.through(self.destination.id()).await?;
        let context = self.context(&id);
        let replicas = &mut self.destination.replicas;
        let settling = coverage::settle(&context, replicas, sighting, probe, (&span.facts, read_to));
        let settled = match self.reading.through(Box::pin(settling)).await? {
            Outcome::NewFull(why) => return Ok(Covered::NewFull(why)),
            Outcome::Settled(settled) => settled,
        };
        let mut to = read_to;
        // The baselines are later than the end of the stream so far, and must lie within the increment.
        if let Some(at) = settled.at {
            let goal = at.max(read_to);
            to = self.read_on(span, goal).await?.position(span, goal);
        }
        let finishing = Box::pin(coverage::finish(&context, *settled, (&span.facts, to)));
        let coverage = self.reading.through(finishing).await?;
        Ok(Covered::To(Box::new(coverage), to))
    }

    /// Reads the stream on to the goal, even if the span is large or the deadline near.
    async fn read_on(&mut self, span: &mut Span, goal: Lsn) -> Result<ReadTo> {
        let (bounds, destination) = (self.bounds(), &mut *self.destination);
        self.reading.read(&bounds, (span, destination), goal).await
    }

    /// Up to when the increment has everything, by the server's clock.
    fn seen_to(&self, read: ReadTo, span: &Span) -> Timestamp {
        let seen = self.log_end.seen;
        let seen = match read {
            ReadTo::Goal => seen,
            ReadTo::Early => {
                let last = span.last_commit().and_then(|last| last.checked_sub(OUT_OF_ORDER).ok());
                last.map_or(seen, |last| last.min(seen))
            }
        };
        // An increment must not say less than the one before it.
        self.start.seen_to.map_or(seen, |before| before.max(seen))
    }

    /// Ends the file of changes, and completes its uploads.
    async fn store(&mut self, span: Span, to: Lsn, seen_to: Timestamp) -> Result<ChangesFile> {
        let Run { job, source, .. } = self.run;
        let reached = self.reading.through(answered(job, source.session.time())).await?;
        let newest_xid = span.newest_xid();
        let (bytes, summary) = span.finish(to)?;
        self.reading.through(self.destination.open()).await?;
        let bounds = self.bounds();
        self.reading.beside(&bounds, self.destination.write(bytes)).await?;
        let stored = self.reading.through(self.destination.complete()).await?;
        let (identified, start) = (self.reading.source(), self.start);
        let stream = Stream {
            id: start.stream.clone(),
            slot: self.run.slot.slot().to_owned(),
            system_identifier: identified.system_identifier.clone(),
            timeline: identified.timeline,
            database_oid: source.session.server().database_oid,
            from: start.from,
            to,
            predecessor: start.predecessor.clone(),
            first_commit: summary.commits.map(|(first, _)| first),
            last_commit: summary.commits.map(|(_, last)| last),
            seen_to,
            reached: Some(reached),
            transactions: summary.transactions,
            newest_xid,
            settled: start.settled,
            settled_xid: start.settled_xid,
            index: (&summary.index).into(),
        };
        Ok(ChangesFile {
            stream,
            summary,
            stored,
        })
    }

    /// Puts the files beside the changes and then the manifest, and only then confirms.
    async fn commit(
        self,
        record: Record<'_>,
        receipts: &[Option<Receipts>],
        sidecars: Vec<Sidecar>,
    ) -> Result<RoundEnd> {
        let Self { run, reading, .. } = self;
        let job = run.job;
        let (stop, replicas) = (job.stop, &mut self.destination.replicas);
        reading.through(put_all(job, replicas, sidecars)).await?;
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
        // The commit point: with the manifest the increment exists. A run that dies from here on leaves it unconfirmed,
        // and the next run begins at its end all the same.
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

    fn bounds(&self) -> Bounds<'a> {
        Bounds {
            job: self.run.job,
            lease: &self.run.lease,
            until: None,
            may_end_early: false,
        }
    }

    /// An id for the steps before there is something to store: only then one is taken.
    fn unnamed(&self) -> BackupId {
        let database = &self.run.source.session.server().database;
        BackupId::next(database, BackupKind::Incremental, self.destination.started, None)
    }

    fn context<'c>(&self, id: &'c BackupId) -> Context<'c>
    where
        'a: 'c,
    {
        let run = self.run;
        Context {
            job: run.job,
            source: &run.source,
            lease: &run.lease,
            id,
            from: self.start.from,
            slot: &run.slot,
        }
    }

    fn head(&self) -> Result<Head> {
        let source = self.reading.source();
        let system_identifier = source.system_identifier.parse();
        Ok(Head {
            system_identifier: system_identifier
                .map_err(|error| Error::internal("the server's system identifier is no number").source(error))?,
            timeline: source.timeline,
            database_oid: self.run.source.session.server().database_oid,
            from: self.start.from,
        })
    }
}

enum Covered {
    /// Why a new full is better than this increment.
    NewFull(String),
    /// What it covers, and where it ends.
    To(Box<Coverage>, Lsn),
}

/// When a span ends early, so that it can be stored before the deadline.
fn last_moment(now: Timestamp, deadline: Timestamp) -> Timestamp {
    let kept = (deadline.duration_since(now) / 3).clamp(SignedDuration::ZERO, TO_STORE);
    deadline.checked_sub(kept).unwrap_or(now)
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
