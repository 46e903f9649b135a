//! The stream from the database into the open uploads: the longest step, which can be interrupted at any time.

use std::future::Future;
use std::io::{Cursor, Read};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio_util::sync::CancellationToken;

use super::Job;
use super::view::{Begun, Opened};
use crate::dataflow::compress::Codec;
use crate::dataflow::parallel::Sessions;
use crate::dataflow::pipeline::{self, EarlierBlocks, Failure, Flow, Inflow, Passed};
use crate::dataflow::throttle::{Throttle, Throttled};
use crate::error::{Code, Error, Result};
use crate::format::Format;
use crate::postgres::{Dump, StallClock, WatchedPipe};
use crate::repository::lease::Lease;
use crate::store::Upload;

/// How long pg_dump may take to exit after its stream has failed: its own error is better than the one that pgstow saw.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// How long the data path may take to end after its source has ended and it was asked to stop. The stores abort their
/// uploads meanwhile. It waits for nothing else, so this limit should never be reached.
const PATH_ENDS: Duration = Duration::from_secs(300);

/// The reader of the database.
enum Reader {
    Dump(Dump),
    Sessions(Sessions),
}

/// What the rows become.
pub(in crate::job) struct Made {
    pub format: Format,
    pub codec: Codec,
    /// Blocks that are not stored again if they are the same.
    pub earlier: EarlierBlocks,
    /// Where the bytes go.
    pub uploads: Vec<Box<dyn Upload>>,
}

/// Runs the database's rows through the pipeline. If it returns an error, the reader has ended and no upload is open.
/// If it returns the open uploads, the rows are whole: pg_dump has exited with 0, or every session has confirmed all
/// its tables.
pub(in crate::job) async fn run(
    job: &Job<'_>,
    reader: Opened,
    made: Made,
    lease: &Lease,
    throttle: &Throttle,
) -> Result<(Passed, Vec<String>)> {
    let Made {
        format,
        codec,
        earlier,
        uploads,
    } = made;
    let settings = job.settings;
    let clock = StallClock::default();
    let (input, mut reader) = begin(reader, format, &clock, throttle);
    let flow = Flow {
        input,
        codec,
        threads: settings.threads,
        range: pipeline::RANGE,
        stages: Vec::new(),
        earlier,
        md5: settings.md5,
        observer: Arc::clone(job.observer),
    };
    let stop = CancellationToken::new();
    let path = pipeline::run(flow, uploads, stop.clone());
    tokio::pin!(path);
    let ended = async {
        tokio::select! {
            biased;
            error = reader.failed() => error,
            error = stalled(&clock, settings.postgres.stall) => error,
        }
    };
    let passed = tokio::select! {
        biased;
        error = interruption(job, ended, lease) => {
            stop.cancel();
            throttle.stop();
            reader.stop().await;
            let ended = tokio::time::timeout(PATH_ENDS, job.stop.in_time(path)).await;
            return Err(interrupted(job, ended, error).await);
        }
        passed = &mut path => passed,
    };
    match passed {
        Ok(passed) => end(job, reader, passed, lease).await,
        Err(Failure::Source(error)) => Err(reader.last_words(error).await),
        Err(Failure::Store(error)) => {
            throttle.stop();
            reader.stop().await;
            Err(error)
        }
        Err(Failure::Stopped) => Err(Error::internal("the pipeline stopped without a request")),
    }
}

/// The error of a run that was interrupted, after its data path has ended. `ended` has `None` if the run's time was up.
async fn interrupted(job: &Job<'_>, ended: Result<Option<Result<Passed, Failure>>, Elapsed>, error: Error) -> Error {
    match ended {
        // All data had just passed, so the uploads are still open.
        Ok(Some(Ok(passed))) => abort(job, passed.copies.into_iter().flatten().collect(), error).await,
        Ok(Some(Err(Failure::Store(second)))) => error.also(second),
        Ok(Some(Err(Failure::Source(_) | Failure::Stopped))) => error,
        Ok(None) => error.also(job.stop.given_up("aborting the upload")),
        Err(_) => error.also(Error::internal("the data path does not end")),
    }
}

/// Waits for the end of the reader, after its last byte.
async fn end(job: &Job<'_>, mut reader: Reader, passed: Passed, lease: &Lease) -> Result<(Passed, Vec<String>)> {
    let stall = job.settings.postgres.stall;
    // No byte is awaited any more, only the end of pg_dump, with the same limit.
    let late = async {
        tokio::time::sleep(stall).await;
        let seconds = stall.as_secs();
        Error::new(
            Code::Stalled,
            format!("pg_dump wrote its last byte, but did not end for {seconds} s"),
        )
    };
    let exit = tokio::select! {
        exit = reader.end() => exit,
        error = interruption(job, late, lease) => Err(error),
    };
    match exit {
        Ok(()) => {
            let complaints = reader.complaints().await;
            Ok((passed, complaints))
        }
        Err(error) => {
            reader.stop().await;
            Err(abort(job, passed.copies.into_iter().flatten().collect(), error).await)
        }
    }
}

fn begin(reader: Opened, format: Format, clock: &StallClock, throttle: &Throttle) -> (Inflow, Reader) {
    let Begun { dump, first, output } = match reader {
        Opened::Dump(begun) => begun,
        Opened::Streams(streams) => {
            let (head, source, sessions) = streams.start(clock, throttle);
            return (Inflow::Blocks { head, source }, Reader::Sessions(sessions));
        }
    };
    // The clock does not see the pauses, because a pause is no stall.
    let pipe = Cursor::new(first).chain(WatchedPipe::new(output, clock.clone()));
    let pipe = Box::new(Throttled::new(pipe, throttle.clone()));
    let input = match format {
        Format::Custom => Inflow::Archive(pipe),
        Format::Plain => Inflow::Sql(pipe),
    };
    (input, Reader::Dump(dump))
}

impl Reader {
    /// Resolves when the reader has failed. A pg_dump that fails ends its stream, so it needs no watching.
    async fn failed(&self) -> Error {
        match self {
            Reader::Dump(_) => std::future::pending().await,
            Reader::Sessions(sessions) => sessions.failed().await,
        }
    }

    /// Waits for the reader to end, after all rows have passed. Sessions need no waiting: each answer confirmed that
    /// all rows were read, and the last one that the tables were locked until then.
    async fn end(&self) -> Result<()> {
        match self {
            Reader::Dump(dump) => dump.wait().await,
            Reader::Sessions(_) => Ok(()),
        }
    }

    async fn stop(&mut self) {
        match self {
            Reader::Dump(dump) => dump.stop().await,
            Reader::Sessions(sessions) => sessions.stop().await,
        }
    }

    /// Messages of a reader that succeeded.
    async fn complaints(&self) -> Vec<String> {
        match self {
            Reader::Dump(dump) => dump.complaints().await,
            Reader::Sessions(sessions) => sessions.complaints().await,
        }
    }

    /// The stream was not whole. Its writer may know why, and reports that within moments.
    async fn last_words(&mut self, seen: Error) -> Error {
        match self {
            Reader::Dump(dump) => match tokio::time::timeout(LAST_WORDS, dump.wait()).await {
                Ok(Err(told)) => told,
                Ok(Ok(())) => seen,
                Err(_) => {
                    dump.stop().await;
                    seen
                }
            },
            Reader::Sessions(sessions) => {
                sessions.stop().await;
                sessions.failure().unwrap_or(seen)
            }
        }
    }
}

/// Resolves to the reason for which the run must end now.
pub(super) async fn interruption(job: &Job<'_>, ended: impl Future<Output = Error>, lease: &Lease) -> Error {
    tokio::select! {
        reason = job.stop.requested() => reason.into(),
        error = ended => error,
        error = lease.lost() => error,
    }
}

pub(super) async fn stalled(clock: &StallClock, limit: Duration) -> Error {
    clock.watch(limit).await;
    Error::new(
        Code::Stalled,
        format!("the database sent no byte for {} s", limit.as_secs()),
    )
}

async fn abort(job: &Job<'_>, uploads: Vec<Box<dyn Upload>>, error: Error) -> Error {
    let mut error = error;
    for upload in uploads {
        error = error.with_clean_up(job.stop.or_give_up("aborting the upload", upload.abort()).await);
    }
    error
}
