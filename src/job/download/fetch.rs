//! Fetches an object into a file, with several requests at once. A separate thread writes and digests the bytes. An
//! interrupted fetch continues where the earlier run stopped.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::partial::Partial;
use super::target::file_error;
use crate::error::{Error, Result};
use crate::run::progress::Observer;
use crate::run::stop::Stop;
use crate::run::threads::apart;
use crate::store::Store;
use crate::store::reading::Reading;

/// Bytes per read, when the existing part of the file is digested.
const CHUNK: usize = 1 << 20;
/// How long to wait after a stop for a disk that does not answer.
const GRACE: Duration = Duration::from_secs(5);

pub struct Fetch<'a> {
    pub store: &'a Arc<dyn Store>,
    pub key: String,
    /// The length that the manifest gives.
    pub bytes: u64,
    /// Bytes at the start of the file that are fetched again even if they are there.
    pub uncertain: u64,
    /// The bytes that will overwrite the start of the file at the end.
    pub head: Option<Bytes>,
    pub stop: &'a Stop,
    pub observer: &'a Arc<dyn Observer>,
}

/// SHA-256 in hex digits: of the stored object, and of the downloaded file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDigests {
    pub stored: String,
    pub downloaded: String,
}

/// A part of the file; the parts are in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stretch {
    Fetched(Range<u64>),
    /// Bytes that are there already.
    Kept(Range<u64>),
}

fn stretches(bytes: u64, uncertain: u64, there: u64) -> Vec<Stretch> {
    if there <= uncertain {
        return vec![Stretch::Fetched(0..bytes)];
    }
    let all = [
        Stretch::Fetched(0..uncertain),
        Stretch::Kept(uncertain..there),
        Stretch::Fetched(there..bytes),
    ];
    let holds_bytes = |stretch: &Stretch| match stretch {
        Stretch::Fetched(range) | Stretch::Kept(range) => !range.is_empty(),
    };
    all.into_iter().filter(holds_bytes).collect()
}

impl Fetch<'_> {
    /// How many of the existing bytes need not be fetched.
    pub fn kept(&self, there: u64) -> u64 {
        there.saturating_sub(self.uncertain)
    }

    /// Fills the file, which already has its first `there` bytes, and digests all of it. After a failure the file holds
    /// the bytes that came so far.
    pub async fn fill(&self, partial: &Partial, there: u64) -> Result<FileDigests> {
        self.observer.phase("downloading");
        self.observer.estimate(self.bytes - self.kept(there));
        let stretches = stretches(self.bytes, self.uncertain, there);
        let (slices, taken) = mpsc::channel(1);
        let writer = Writer {
            file: partial.file(),
            path: partial.path().to_owned(),
            slices: taken,
            digesting: Digesting::new(self.head.as_deref()),
            stop: self.stop.clone(),
        };
        let writing = apart("write", {
            let stretches = stretches.clone();
            move || writer.write(&stretches)
        });
        let writing = tokio::spawn(async move { writing.await? });
        let fed = self.stop.or_stop(self.feed(&stretches, slices)).await;
        let written = if self.stop.reason().is_some() {
            let patience = tokio::time::timeout(GRACE, writing).await;
            patience.unwrap_or(Ok(Ok(None)))
        } else {
            writing.await
        };
        let written =
            written.map_err(|error| Error::internal("the thread that writes the file was cut off").source(error));
        match (written.flatten()?, fed) {
            (_, Err(error)) => Err(error),
            (Some(digests), Ok(())) => Ok(digests),
            (None, Ok(())) => Err(match self.stop.reason() {
                Some(reason) => reason.into(),
                None => Error::internal("the download ended before its end"),
            }),
        }
    }

    async fn feed(&self, stretches: &[Stretch], slices: mpsc::Sender<Bytes>) -> Result<()> {
        for stretch in stretches {
            let Stretch::Fetched(range) = stretch else { continue };
            let mut reading = Reading::start(Arc::clone(self.store), self.key.clone(), range.clone());
            while let Some(slice) = reading.next().await? {
                self.observer.bytes_read(slice.len() as u64);
                if slices.send(slice).await.is_err() {
                    // The writer has the reason.
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The blocking half.
struct Writer {
    file: Arc<File>,
    path: PathBuf,
    slices: mpsc::Receiver<Bytes>,
    digesting: Digesting,
    stop: Stop,
}

impl Writer {
    /// `None` if the slices ended too early, or a stop was requested.
    fn write(mut self, stretches: &[Stretch]) -> Result<Option<FileDigests>> {
        for stretch in stretches {
            let whole = match stretch {
                Stretch::Fetched(range) => self.take_in(range)?,
                Stretch::Kept(range) => self.read_again(range)?,
            };
            if !whole {
                return Ok(None);
            }
        }
        Ok(Some(self.digesting.finish()))
    }

    fn take_in(&mut self, range: &Range<u64>) -> Result<bool> {
        let mut at = range.start;
        while at < range.end {
            let Some(slice) = self.slices.blocking_recv() else {
                return Ok(false);
            };
            let written = self.file.write_all_at(&slice, at);
            written.map_err(|error| file_error("write", &self.path, error))?;
            self.digesting.update(&slice);
            at += slice.len() as u64;
        }
        Ok(true)
    }

    fn read_again(&mut self, range: &Range<u64>) -> Result<bool> {
        let mut buffer = vec![0; CHUNK];
        let mut at = range.start;
        while at < range.end {
            if self.stop.reason().is_some() {
                return Ok(false);
            }
            let length = CHUNK.min(usize::try_from(range.end - at).unwrap_or(CHUNK));
            let read = self.file.read_exact_at(&mut buffer[..length], at);
            read.map_err(|error| file_error("read", &self.path, error))?;
            self.digesting.update(&buffer[..length]);
            at += length as u64;
        }
        Ok(true)
    }
}

/// Both digests in one pass.
struct Digesting {
    stored: Sha256,
    /// If they differ: how much of the object the head replaces, and the digest of the downloaded file.
    downloaded: Option<(usize, Sha256)>,
}

impl Digesting {
    fn new(head: Option<&[u8]>) -> Self {
        Self {
            stored: Sha256::new(),
            downloaded: head.map(|head| (head.len(), Sha256::new_with_prefix(head))),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.stored.update(bytes);
        if let Some((hidden, downloaded)) = &mut self.downloaded {
            let skipped = bytes.len().min(*hidden);
            *hidden -= skipped;
            downloaded.update(&bytes[skipped..]);
        }
    }

    fn finish(self) -> FileDigests {
        let stored = hex::encode(self.stored.finalize());
        let downloaded = self.downloaded.map(|(_, digest)| hex::encode(digest.finalize()));
        FileDigests {
            downloaded: downloaded.unwrap_or_else(|| stored.clone()),
            stored,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_kept_but_for_the_head() {
        use Stretch::{Fetched, Kept};
        assert_eq!(stretches(100, 10, 0), [Fetched(0..100)]);
        assert_eq!(stretches(100, 10, 10), [Fetched(0..100)]);
        assert_eq!(stretches(100, 10, 60), [Fetched(0..10), Kept(10..60), Fetched(60..100)]);
        assert_eq!(stretches(100, 10, 100), [Fetched(0..10), Kept(10..100)]);
        assert_eq!(stretches(100, 0, 60), [Kept(0..60), Fetched(60..100)]);
        assert_eq!(stretches(100, 0, 0), [Fetched(0..100)]);
    }

    #[test]
    fn the_file_is_digested_as_if_the_head_lay_over_it() {
        let object: Vec<u8> = (0..=255).collect();
        let head = [7_u8; 100];
        let laid = [&head[..], &object[100..]].concat();
        for step in [1, 99, 100, 101, 256] {
            let mut digesting = Digesting::new(Some(&head));
            object.chunks(step).for_each(|chunk| digesting.update(chunk));
            let digests = digesting.finish();
            assert_eq!(digests.stored, hex::encode(Sha256::digest(&object)));
            assert_eq!(digests.downloaded, hex::encode(Sha256::digest(&laid)), "{step}");
        }
    }
}
