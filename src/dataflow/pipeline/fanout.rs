//! The stores' end: one task per store takes the slices and writes them into its upload.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::ended::{Ended, Failure, UploadOutcome};
use crate::error::{Code, Error, Result};
use crate::run::progress::Observer;
use crate::store::Upload;

/// How many slices may wait for a store: enough for a hand-off, not a buffer.
const WAITING: usize = 4;
/// How long one step of a copy may delay the primary, and so the database's snapshot. After this time the copy is
/// left out.
pub const COPYS_PATIENCE: Duration = Duration::from_secs(30);
/// How long aborting the upload of such a copy may take.
const COPYS_END: Duration = Duration::from_secs(10);

/// The seal's side. The slowest store sets the pace.
pub struct Outlets {
    senders: Vec<Option<mpsc::Sender<Bytes>>>,
}

impl Outlets {
    /// A copy that has failed is left out; if the primary has failed, the run ends.
    pub(super) fn send(&mut self, slice: &Bytes) -> Result<(), Ended> {
        for (index, outlet) in self.senders.iter_mut().enumerate() {
            let closed = outlet
                .as_ref()
                .is_some_and(|sender| sender.blocking_send(slice.clone()).is_err());
            if closed {
                *outlet = None;
                if index == 0 {
                    return Err(Ended::OutletsClosed);
                }
            }
        }
        Ok(())
    }
}

impl Outlets {
    /// As [`Outlets::send`], from a task instead of a thread. If it is cancelled, some stores have the slice and others
    /// have not.
    pub async fn pass(&mut self, slice: &Bytes) -> Result<(), Ended> {
        for (index, outlet) in self.senders.iter_mut().enumerate() {
            let closed = match outlet {
                Some(sender) => sender.send(slice.clone()).await.is_err(),
                None => false,
            };
            if closed {
                *outlet = None;
                if index == 0 {
                    return Err(Ended::OutletsClosed);
                }
            }
        }
        Ok(())
    }
}

/// The tasks' side.
pub struct Fanout {
    tasks: Vec<JoinHandle<Result<Box<dyn Upload>, Given>>>,
}

/// Why a task ended early; its upload has been aborted.
enum Given {
    Failed(Error),
    Stopped,
}

/// Starts a task for each upload, the primary's first.
pub fn open(
    uploads: Vec<Box<dyn Upload>>,
    observer: &Arc<dyn Observer>,
    stop: &CancellationToken,
) -> (Outlets, Fanout) {
    let mut senders = Vec::new();
    let mut tasks = Vec::new();
    for (index, upload) in uploads.into_iter().enumerate() {
        let (sender, slices) = mpsc::channel(WAITING);
        senders.push(Some(sender));
        // Progress counts the bytes that the primary has taken.
        let observer = (index == 0).then(|| Arc::clone(observer));
        let limits = (index > 0).then_some((COPYS_PATIENCE, COPYS_END));
        tasks.push(tokio::spawn(take(upload, slices, observer, stop.clone(), limits)));
    }
    (Outlets { senders }, Fanout { tasks })
}

async fn take(
    mut upload: Box<dyn Upload>,
    mut slices: mpsc::Receiver<Bytes>,
    observer: Option<Arc<dyn Observer>>,
    stop: CancellationToken,
    limits: Option<(Duration, Duration)>,
) -> Result<Box<dyn Upload>, Given> {
    let (patience, end) = limits.unzip();
    loop {
        let step = async {
            let Some(slice) = slices.recv().await else {
                return within(patience, upload.settle()).await.map(|()| None);
            };
            let length = slice.len() as u64;
            within(patience, upload.write(slice)).await.map(|()| Some(length))
        };
        let taken = tokio::select! {
            biased;
            () = stop.cancelled() => Err(None),
            taken = step => taken.map_err(Some),
        };
        match taken {
            Ok(None) => return Ok(upload),
            Ok(Some(length)) => {
                if let Some(observer) = &observer {
                    observer.bytes_stored(length);
                }
            }
            Err(cause) => {
                drop(slices);
                let aborted = within(end, upload.abort()).await;
                return Err(match (cause, aborted) {
                    (Some(error), aborted) => Given::Failed(error.with_clean_up(aborted)),
                    (None, Ok(())) => Given::Stopped,
                    (None, Err(error)) => Given::Failed(error),
                });
            }
        }
    }
}

/// One step of a copy. It may not take as long as a step of the primary.
pub async fn within<T>(patience: Option<Duration>, step: impl Future<Output = Result<T>>) -> Result<T> {
    let Some(patience) = patience else {
        return step.await;
    };
    tokio::time::timeout(patience, step).await.unwrap_or_else(|_| {
        let text = format!("the copy's store has not answered for {} s", patience.as_secs());
        Err(Error::new(Code::Store, text).hint("check that store; the backup itself does not wait for it"))
    })
}

impl Fanout {
    /// Waits until every store has taken and settled its last slice. Fails if the primary failed, or if the run was
    /// stopped; then no upload is left open.
    pub async fn collect(self) -> Result<Vec<UploadOutcome>, Failure> {
        let mut copies = Vec::new();
        let mut failure = None;
        for (index, task) in self.tasks.into_iter().enumerate() {
            let given = match task.await {
                Ok(Ok(upload)) => {
                    copies.push(Ok(upload));
                    continue;
                }
                Ok(Err(given)) => given,
                Err(error) => Given::Failed(Error::internal("a store's task died").source(error)),
            };
            match given {
                Given::Failed(error) if index > 0 => copies.push(Err(error)),
                Given::Failed(error) => failure = Some(Failure::Store(error)),
                Given::Stopped => failure = failure.or(Some(Failure::Stopped)),
            }
        }
        let Some(failure) = failure else {
            return Ok(copies);
        };
        let failed = abort(copies).await;
        Err(match failure {
            Failure::Store(error) => Failure::Store(failed.into_iter().fold(error, Error::also)),
            other => other,
        })
    }
}

/// Aborts open uploads after an error, and adds to it what could not be aborted.
pub async fn abort_after(error: Error, copies: Vec<UploadOutcome>) -> Error {
    abort(copies).await.into_iter().fold(error, Error::also)
}

/// Aborts open uploads, and reports those that could not be aborted.
async fn abort(copies: Vec<UploadOutcome>) -> Vec<Error> {
    let mut errors = Vec::new();
    for copy in copies {
        if let Ok(upload) = copy
            && let Err(error) = upload.abort().await
        {
            errors.push(error);
        }
    }
    errors
}
