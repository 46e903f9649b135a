//! The uploads of one object, one to each store.

use std::time::Duration;

use super::Replicas;
use super::replica::{Written, patience};
use crate::dataflow::pipeline::{UploadOutcome, within};
use crate::error::{Error, Result};
use crate::store::{Expected, ObjectInfo, Stored, Upload};

/// How long a copy may take to complete its upload.
const COMPLETING: Duration = Duration::from_secs(120);

impl Replicas {
    /// One upload per store that takes part, the primary's first.
    pub(in crate::job) async fn open(&mut self, key: &str, info: &ObjectInfo) -> Result<Vec<Box<dyn Upload>>> {
        let mut uploads = Vec::new();
        for (index, replica) in self
            .all
            .iter_mut()
            .enumerate()
            .filter(|(_, replica)| replica.takes_part())
        {
            match within(patience(index), replica.store.upload(key, info)).await {
                Ok(upload) => {
                    replica.marks.insert(key.to_owned(), upload.mark());
                    uploads.push(upload);
                }
                Err(error) if index == 0 => return Err(error),
                Err(error) => replica.drop_out(error, &self.stop).await,
            }
        }
        Ok(uploads)
    }

    /// Completes the open uploads, in the order of [`Replicas::open`]. The receipts are in the order of the stores.
    async fn complete(
        &mut self,
        key: &str,
        copies: Vec<UploadOutcome>,
        expected: &Expected,
    ) -> Result<Vec<Option<Stored>>> {
        let mut copies = copies.into_iter();
        let mut receipts = Vec::new();
        let mut failure: Option<Error> = None;
        for (index, replica) in self.all.iter_mut().enumerate() {
            if !replica.takes_part() {
                receipts.push(None);
                continue;
            }
            let Some(copy) = copies.next() else {
                return Err(Error::internal("fewer uploads than stores"));
            };
            let completed = match (copy, failure.take()) {
                // If the primary fails, the copies are aborted.
                (Ok(upload), Some(error)) => {
                    failure = Some(error.with_clean_up(upload.abort().await));
                    continue;
                }
                (Err(_), Some(error)) => {
                    failure = Some(error);
                    continue;
                }
                (Ok(upload), None) => within(completions_patience(index), upload.complete(expected)).await,
                (Err(error), None) => Err(error),
            };
            match completed {
                Ok(stored) => {
                    replica.written.push(Written::surely(key));
                    receipts.push(Some(stored));
                }
                Err(error) if index == 0 => failure = Some(error),
                Err(error) => {
                    // The store may still have completed it, or complete it later.
                    replica.may_hold(key);
                    replica.drop_out(error, &self.stop).await;
                    receipts.push(None);
                }
            }
        }
        failure.map_or(Ok(receipts), Err)
    }

    /// Completes the uploads, unless the run has to end. It gets time to end even then: if it were interrupted, it would
    /// leave all parts, or an object that no run knows of.
    pub(in crate::job) async fn complete_in_time(
        &mut self,
        key: &str,
        copies: Vec<UploadOutcome>,
        expected: &Expected,
    ) -> Result<Vec<Option<Stored>>> {
        let stop = self.stop.clone();
        let completing = self.complete(key, copies, expected);
        let completed = stop.or_give_up("completing the upload", completing).await;
        if let Some(reason) = stop.reason() {
            self.may_hold(key);
            return Err(completed.map_or_else(|error| error, |_| reason.into()));
        }
        completed
    }

    /// Completing was interrupted: the store may have completed the upload.
    fn may_hold(&mut self, key: &str) {
        for replica in self.all.iter_mut().filter(|replica| replica.takes_part()) {
            replica.may_hold(key);
        }
    }
}

/// The limit for completing an upload: even a good store takes long to join thousands of parts.
fn completions_patience(index: usize) -> Option<Duration> {
    (index > 0).then_some(COMPLETING)
}
