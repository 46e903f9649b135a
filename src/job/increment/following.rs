//! Increments one after another, until the run is stopped. The session stays open between them.
//!
//! A failure that may pass does not end the run, for example if the server restarts or the store does not answer. The
//! run tries again with growing pauses, from the position that is stored. So nothing is lost, and nothing comes twice.

use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep, sleep_until};

use super::reading::Reading;
use super::renewal;
use super::round::{RoundEnd, round};
use super::run::Run;
use super::start::Start;
use super::{Begin, begin, look, open_reading};
use crate::error::{Code, Error, Result};
use crate::job::backup::{BackupReport, BackupRequest, Job, answered};
use crate::run::progress::Event;

/// The pauses after failures.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often the publications are compared with the tables, if increments are made less often.
const PUBLICATIONS: Duration = Duration::from_secs(60);

/// The messages of a run that follows its source.
#[derive(Debug)]
pub enum Followed {
    /// It has made an increment, or a full backup that begins a new chain.
    Made(Box<BackupReport>),
    /// It has looked, and there was nothing to store.
    Idle,
    /// It cannot go on at the moment, and tries again.
    Failing(Error),
}

struct Following<'a> {
    told: &'a Sender<Followed>,
    last: Option<BackupReport>,
    /// Whether the current session has come to the end of a round.
    is_sound: bool,
    /// The same for any session before.
    was_sound: bool,
    /// Whether the last session could not read the stream on.
    has_failed_to_read: bool,
}

impl Following<'_> {
    async fn sound(&mut self, made: Option<BackupReport>) {
        (self.is_sound, self.was_sound) = (true, true);
        self.has_failed_to_read = false;
        let told = match &made {
            Some(report) => Followed::Made(Box::new(report.clone())),
            None => Followed::Idle,
        };
        // If the receiver is gone, the log still has it.
        let _ = self.told.send(told).await;
        self.last = made.or(self.last.take());
    }
}

/// Makes increments, one after each span of `every`, until the run is stopped. Returns the last report.
///
/// A signal ends it cleanly: what is being read is discarded, and the next run reads it again.
pub async fn follow(
    job: &Job<'_>,
    request: &BackupRequest,
    every: Duration,
    told: &Sender<Followed>,
) -> Result<BackupReport> {
    let mut following = Following {
        told,
        last: None,
        is_sound: false,
        was_sound: false,
        has_failed_to_read: false,
    };
    let mut pause = FIRST_PAUSE;
    loop {
        following.is_sound = false;
        let ended = Box::pin(session(job, request, every, &mut following)).await;
        if let Some(reason) = job.stop.reason() {
            if let Err(error) = ended {
                tracing::info!("following ended: {error}");
            }
            return following.last.ok_or_else(|| reason.into());
        }
        let Err(error) = ended else { continue };
        if !is_temporary(error.code(), following.was_sound) {
            return Err(error);
        }
        if following.is_sound {
            pause = FIRST_PAUSE;
        }
        tracing::warn!("{error}; trying again in {} s", pause.as_secs());
        job.observer.event(&Event::Warned {
            message: error.message(),
        });
        let _ = told.send(Followed::Failing(error)).await;
        tokio::select! {
            _ = job.stop.requested() => {}
            () = sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether a failure may pass by itself.
fn is_temporary(code: Code, was_sound: bool) -> bool {
    match code {
        Code::ConnErr | Code::Store | Code::Stalled | Code::Secret | Code::Enospc => true,
        // Our own session, which the server or the store still counts; a password that is being changed.
        Code::Busy | Code::Auth | Code::Enoent => was_sound,
        _ => false,
    }
}

/// From the login to the first failure, or to the stop.
async fn session(job: &Job<'_>, request: &BackupRequest, every: Duration, following: &mut Following<'_>) -> Result<()> {
    let run = begin(job, request).await?;
    let outcome = rounds(&run, every, following).await;
    let released = job.stop.or_give_up("releasing the lease", run.lease.release()).await;
    match (outcome, released) {
        (Err(error), released) => Err(error.with_clean_up(released)),
        (Ok(()), released) => released,
    }
}

/// `Ok`: a new session is needed, or the run was stopped.
async fn rounds(run: &Run<'_>, every: Duration, following: &mut Following<'_>) -> Result<()> {
    let Run {
        job,
        request,
        source,
        slot,
        ..
    } = run;
    let mut reading = open_reading(run).await?;
    let mut start = match look(run, &reading.source().clone()).await? {
        Begin::At(start) => start,
        Begin::Anew { why, needs_slot } => {
            reading.finish(job).await?;
            let renewed = Box::pin(renewal::renew(job, request, source, slot, (&why, needs_slot))).await?;
            following.sound(Some(renewed)).await;
            return Ok(());
        }
    };
    reading.start(job, slot.slot(), start.from, &run.publications).await?;
    loop {
        let next = Instant::now() + every;
        let ended = match Box::pin(round(run, &mut reading, &start)).await {
            Err(error) if error.code() == Code::Slot => {
                if !std::mem::replace(&mut following.has_failed_to_read, true) {
                    tracing::warn!("{}; it is tried once more", error.message());
                    return reading.finish(job).await;
                }
                RoundEnd::NewFull(error.message())
            }
            ended => ended?,
        };
        let is_behind = match ended {
            RoundEnd::Made(report, after) => {
                let is_behind = report.increment.as_ref().is_some_and(|increment| increment.is_behind);
                following.sound(Some(*report)).await;
                start = after;
                is_behind
            }
            RoundEnd::Idle => {
                following.sound(None).await;
                false
            }
            RoundEnd::NewFull(why) => {
                reading.finish(job).await?;
                let renewed = Box::pin(renewal::renew(job, request, source, slot, (&why, true))).await?;
                following.sound(Some(renewed)).await;
                return Ok(());
            }
        };
        if is_behind {
            continue;
        }
        job.observer.phase("waiting");
        wait(run, &mut reading, next, &mut start).await?;
        if job.stop.reason().is_some() {
            return reading.finish(job).await;
        }
    }
}

/// Waits for the next round. Meanwhile a table that has lost its key is taken out of its publication: until then the
/// server refuses the application's updates of it.
async fn wait(run: &Run<'_>, reading: &mut Reading, next: Instant, start: &mut Start) -> Result<()> {
    let Run { job, source, slot, .. } = run;
    loop {
        let until = next.min(Instant::now() + PUBLICATIONS);
        let lost = reading.through(async {
            tokio::select! {
                _ = job.stop.requested() => None,
                error = run.lease.lost() => Some(error),
                () = sleep_until(until) => None,
            }
        });
        if let Some(error) = lost.await {
            return Err(error);
        }
        if job.stop.reason().is_some() || Instant::now() >= next {
            return Ok(());
        }
        let checking = async {
            let catalog = answered(job, source.session.table_catalog()).await?;
            answered(job, source.session.reconcile(slot, &catalog)).await
        };
        start.interrupted.extend(reading.through(checking).await?.interrupted);
    }
}
