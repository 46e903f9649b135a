//! From pg_dump's pipe into open uploads: the long step, and the one that anything may interrupt.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Job, Source};
use crate::compress::Codec;
use crate::error::{Code, Error, Result};
use crate::lease::Lease;
use crate::pipeline::{self, Failure, Flow, Passed, Shape};
use crate::postgres::{Dump, Snapshot, StallClock, WatchedPipe};
use crate::settings::Format;
use crate::store::Upload;

/// How long pg_dump may take to exit by itself when its stream has failed: its own last words are
/// better than what we saw of it.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Runs pg_dump through the pipeline. When it returns an error, pg_dump is gone and no upload is
/// open; when it returns the open uploads, pg_dump has exited with 0.
pub(super) async fn run(
    job: &Job<'_>,
    source: &Source,
    snapshot: &Snapshot,
    codec: Codec,
    uploads: Vec<Box<dyn Upload>>,
    lease: &Lease,
) -> Result<Passed> {
    let settings = job.settings;
    let mut dump = match Dump::start(
        &source.programs,
        source.session.info(),
        source.passfile.as_ref(),
        &snapshot.id,
        settings.format,
        &settings.postgres,
    ) {
        Ok(dump) => dump,
        Err(error) => return Err(abort(uploads, error).await),
    };
    let output = match dump.take_stdout() {
        Ok(output) => output,
        Err(error) => return Err(abort(uploads, error).await),
    };
    let clock = StallClock::default();
    let stalled = || stalled(&clock, settings.postgres.stall);
    let flow = Flow {
        input: Box::new(WatchedPipe::new(output, clock.clone())),
        shape: match settings.format {
            Format::Custom => Shape::Archive,
            Format::Plain => Shape::Sql,
        },
        codec,
        threads: settings.threads,
        md5: settings.md5,
        observer: Arc::clone(job.observer),
    };
    let stop = CancellationToken::new();
    let path = pipeline::run(flow, uploads, stop.clone());
    tokio::pin!(path);
    let passed = tokio::select! {
        biased;
        error = interruption(job, stalled(), lease) => {
            stop.cancel();
            dump.stop().await;
            let mut error = error;
            match path.await {
                // It had just come through: the uploads are still open.
                Ok(passed) => error = abort(passed.copies.into_iter().flatten().collect(), error).await,
                Err(Failure::Store(second)) => error = error.also(second),
                Err(Failure::Source(_) | Failure::Stopped) => {}
            }
            return Err(error);
        }
        passed = &mut path => passed,
    };
    match passed {
        Ok(passed) => {
            // Nobody waits for a byte any more, but for the end: it has the same time.
            let late = async {
                tokio::time::sleep(settings.postgres.stall).await;
                let seconds = settings.postgres.stall.as_secs();
                Error::new(
                    Code::Stalled,
                    format!("pg_dump has given its last byte, but has not ended for {seconds} s"),
                )
            };
            let exit = tokio::select! {
                exit = dump.wait() => exit,
                error = interruption(job, late, lease) => Err(error),
            };
            match exit {
                Ok(()) => Ok(passed),
                Err(error) => {
                    dump.stop().await;
                    Err(abort(passed.copies.into_iter().flatten().collect(), error).await)
                }
            }
        }
        Err(Failure::Source(error)) => Err(last_words(&dump, error).await),
        Err(Failure::Store(error)) => {
            dump.stop().await;
            Err(error)
        }
        Err(Failure::Stopped) => Err(Error::internal("the pipeline stopped without being told to")),
    }
}

/// Resolves to the reason for which the run must end now.
async fn interruption(job: &Job<'_>, stalled: impl Future<Output = Error>, lease: &Lease) -> Error {
    tokio::select! {
        reason = job.stop.requested() => reason.into(),
        error = stalled => error,
        error = lease.lost() => error,
    }
}

async fn stalled(clock: &StallClock, limit: Duration) -> Error {
    clock.watch(limit).await;
    Error::new(
        Code::Stalled,
        format!("pg_dump has given no byte for {} s", limit.as_secs()),
    )
}

/// The stream was not whole. If pg_dump knows why, it says so within moments.
async fn last_words(dump: &Dump, seen: Error) -> Error {
    match tokio::time::timeout(LAST_WORDS, dump.wait()).await {
        Ok(Err(told)) => told,
        Ok(Ok(())) => seen,
        Err(_) => {
            dump.stop().await;
            seen
        }
    }
}

async fn abort(uploads: Vec<Box<dyn Upload>>, error: Error) -> Error {
    let mut error = error;
    for upload in uploads {
        if let Err(second) = upload.abort().await {
            error = error.also(second);
        }
    }
    error
}
