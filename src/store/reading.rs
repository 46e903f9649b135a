//! Reads a long range of an object with several ranged requests at once, and returns their answers in order. A single
//! request seldom fills a line to S3, and would have to start again whenever it breaks off.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Store;
use crate::error::{Code, Error, Result};

/// The bytes of one request.
pub const SLICE: u64 = 4 << 20;
/// The number of requests at once, and the most slices that wait to be taken.
pub const AHEAD: usize = 4;

/// A range of an object, in order, fetched by several ranged requests at once. It needs at most [`SLICE`] × [`AHEAD`]
/// of memory. The store retries each request within its own limits. Dropping it ends the requests.
pub struct Reading {
    store: Arc<dyn Store>,
    key: String,
    /// The range that was not requested yet.
    ahead: Range<u64>,
    /// The bytes that were not returned yet.
    left: u64,
    slices: VecDeque<Slice>,
}

/// One request in its own task, so that it continues while the caller does something else.
struct Slice {
    length: u64,
    answer: JoinHandle<Result<Option<Bytes>>>,
}

impl Drop for Slice {
    fn drop(&mut self) {
        self.answer.abort();
    }
}

impl Reading {
    /// Starts the first requests at once, so it must be called within a tokio runtime.
    pub fn start(store: Arc<dyn Store>, key: String, range: Range<u64>) -> Self {
        let mut reading = Self {
            store,
            key,
            left: range.end.saturating_sub(range.start),
            ahead: range,
            slices: VecDeque::new(),
        };
        reading.ask();
        reading
    }

    /// The next bytes; `None` at the end of the range. An object that is missing or ends too early is `INTEGRITY`,
    /// since the range came from a manifest. Safe to drop while it waits.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let Some(slice) = self.slices.front_mut() else {
            return Ok(None);
        };
        let length = slice.length;
        let answer = (&mut slice.answer).await;
        self.slices.pop_front();
        let answer = answer.map_err(|error| Error::internal("the task of a request to the store died").source(error));
        match answer.flatten() {
            Ok(Some(bytes)) if bytes.len() as u64 == length => {
                self.left -= length;
                self.ask();
                Ok(Some(bytes))
            }
            Ok(Some(_)) => Err(self.give_up("is shorter than the manifest says")),
            Ok(None) => Err(self.give_up("is missing")),
            Err(error) => {
                self.slices.clear();
                Err(error)
            }
        }
    }

    /// The same for a blocking thread; a task of this runtime feeds it.
    pub fn into_blocking(mut self) -> BlockingReading {
        let left = self.left;
        let (slices, taken) = mpsc::channel(1);
        let feeding = tokio::spawn(async move {
            while let Some(slice) = self.next().await.transpose() {
                let failed = slice.is_err();
                if slices.send(slice).await.is_err() || failed {
                    return;
                }
            }
        });
        BlockingReading {
            slices: taken,
            current: Bytes::new(),
            left,
            feeding,
        }
    }

    /// Starts requests until as many run as allowed.
    fn ask(&mut self) {
        while self.slices.len() < AHEAD && self.ahead.start < self.ahead.end {
            let offset = self.ahead.start;
            let length = SLICE.min(self.ahead.end - offset);
            self.ahead.start += length;
            let (store, key) = (Arc::clone(&self.store), self.key.clone());
            let answer = tokio::spawn(async move { store.get_range(&key, offset, length).await });
            self.slices.push_back(Slice { length, answer });
        }
    }

    fn give_up(&mut self, why: &str) -> Error {
        self.slices.clear();
        Error::new(Code::Integrity, format!("{} in {} {why}", self.key, self.store.url()))
    }
}

/// A [`Reading`] for blocking code, on a thread outside of the runtime. Dropping it ends the requests. An error comes
/// as an [`io::Error`] with our error inside: see [`our_error`].
pub struct BlockingReading {
    slices: mpsc::Receiver<Result<Bytes>>,
    current: Bytes,
    /// The bytes that have not arrived. If the channel closes earlier, that is an error and not the end.
    left: u64,
    feeding: JoinHandle<()>,
}

impl Drop for BlockingReading {
    fn drop(&mut self) {
        self.feeding.abort();
    }
}

impl io::Read for BlockingReading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() && self.left > 0 && !buffer.is_empty() {
            let slice = self
                .slices
                .blocking_recv()
                .unwrap_or_else(|| Err(Error::internal("the task that reads from the store died")));
            self.current = slice.map_err(io::Error::other)?;
            self.left -= self.current.len() as u64;
        }
        let length = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// Our error inside an [`io::Error`], with its code; or the [`io::Error`] itself if it came from elsewhere.
pub fn our_error(error: io::Error) -> Result<Error, io::Error> {
    error.downcast::<Error>()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::store::memory::{Fault, MemoryStore, Op};

    const KEY: &str = "shop/20250131T040500Z-full/shop.dump";

    /// Bytes that are nowhere the same for long.
    fn body(length: usize) -> Bytes {
        let mut state = 1_u64;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    fn holding(body: &Bytes) -> (MemoryStore, Arc<dyn Store>) {
        let store = MemoryStore::with_lifecycle();
        store.plant(KEY, body.clone(), &[]);
        (store.clone(), Arc::new(store))
    }

    async fn read(store: Arc<dyn Store>, range: Range<u64>) -> Result<Vec<u8>> {
        let mut reading = Reading::start(store, KEY.to_owned(), range);
        let mut bytes = Vec::new();
        while let Some(slice) = reading.next().await? {
            bytes.extend_from_slice(&slice);
        }
        assert_eq!(reading.next().await?, None);
        Ok(bytes)
    }

    async fn refused(store: Arc<dyn Store>, range: Range<u64>) -> Error {
        // The bytes themselves are not printed.
        read(store, range).await.map(|bytes| bytes.len()).unwrap_err()
    }

    #[tokio::test]
    async fn a_range_comes_whole_and_in_order() {
        let slice = usize::try_from(SLICE).unwrap();
        let body = body(6 * slice + 17);
        let (memory, store) = holding(&body);
        let whole = read(Arc::clone(&store), 0..body.len() as u64).await.unwrap();
        assert!(whole == body);
        assert_eq!(memory.calls(Op::GetRange).len(), 7);
        for range in [5..9, slice - 3..2 * slice + 4, 0..slice, 0..0] {
            let read = read(Arc::clone(&store), range.start as u64..range.end as u64).await;
            assert!(read.unwrap() == body[range.clone()], "{range:?}");
        }
    }

    #[tokio::test]
    async fn no_more_is_asked_for_than_may_be_held() {
        let body = body(10 * usize::try_from(SLICE).unwrap());
        let (memory, store) = holding(&body);
        let mut reading = Reading::start(store, KEY.to_owned(), 0..body.len() as u64);
        for taken in 0..3 {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            assert_eq!(memory.calls(Op::GetRange).len(), AHEAD + taken);
            reading.next().await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_object_that_is_short_or_missing_is_not_what_the_manifest_says() {
        let (memory, store) = holding(&body(5_000_000));
        let error = refused(Arc::clone(&store), 0..5_000_001).await;
        assert_eq!(error.code(), Code::Integrity);
        assert!(error.message().contains(KEY), "{error}");
        assert!(error.message().contains("is shorter than the manifest says"), "{error}");
        let error = refused(Arc::clone(&store), 9_000_000..9_000_001).await;
        assert_eq!(error.code(), Code::Integrity);
        memory.remove(KEY);
        let error = refused(store, 0..1).await;
        assert_eq!(error.code(), Code::Integrity);
        assert!(error.message().contains(&format!("{KEY} in memory://test is missing")));
    }

    #[tokio::test]
    async fn a_store_that_fails_midway_gives_its_own_error() {
        let body = body(6 * usize::try_from(SLICE).unwrap());
        let (memory, store) = holding(&body);
        memory.fault(Op::GetRange, 5, Fault::Reject);
        let error = refused(store, 0..body.len() as u64).await;
        assert_eq!(error.code(), Code::Store);
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_loses_nothing() {
        let body = body(2 * usize::try_from(SLICE).unwrap());
        let (_, store) = holding(&body);
        let mut reading = Reading::start(store, KEY.to_owned(), 0..body.len() as u64);
        tokio::select! {
            biased;
            _ = reading.next() => panic!("it did not wait"),
            () = std::future::ready(()) => {}
        }
        assert!(reading.next().await.unwrap().unwrap() == body[..usize::try_from(SLICE).unwrap()]);
    }

    #[tokio::test]
    async fn a_thread_reads_the_same_and_gets_the_same_errors() {
        let body = body(2 * usize::try_from(SLICE).unwrap() + 1);
        let (memory, store) = holding(&body);
        let length = body.len() as u64;
        let blocking = |range| {
            let mut reading = Reading::start(Arc::clone(&store), KEY.to_owned(), range).into_blocking();
            tokio::task::spawn_blocking(move || {
                let mut bytes = Vec::new();
                reading.read_to_end(&mut bytes).map(|_| bytes)
            })
        };
        assert!(blocking(0..length).await.unwrap().unwrap() == body);
        let error = blocking(1..length + 1).await.unwrap().unwrap_err();
        assert_eq!(our_error(error).unwrap().code(), Code::Integrity);
        memory.fault(Op::GetRange, 2, Fault::Reject);
        let error = blocking(0..length).await.unwrap().unwrap_err();
        assert_eq!(our_error(error).unwrap().code(), Code::Store);
        our_error(io::Error::from(io::ErrorKind::BrokenPipe)).unwrap_err();
    }

    #[tokio::test]
    async fn a_runtime_that_is_gone_is_not_the_end_of_the_object() {
        let body = body(3 * usize::try_from(SLICE).unwrap());
        let (_, store) = holding(&body);
        let mut reading = Reading::start(store, KEY.to_owned(), 0..body.len() as u64).into_blocking();
        reading.feeding.abort();
        let read = tokio::task::spawn_blocking(move || io::copy(&mut reading, &mut io::sink()));
        let error = read.await.unwrap().unwrap_err();
        assert_eq!(our_error(error).unwrap().code(), Code::Internal);
    }

    #[tokio::test]
    async fn dropping_the_reading_ends_its_requests() {
        let body = body(20 * usize::try_from(SLICE).unwrap());
        let (memory, store) = holding(&body);
        let reading = Reading::start(Arc::clone(&store), KEY.to_owned(), 0..body.len() as u64).into_blocking();
        tokio::task::yield_now().await;
        drop(reading);
        // Only the memory store itself and this test's handle.
        while Arc::strong_count(&store) > 1 {
            tokio::task::yield_now().await;
        }
        assert!(memory.calls(Op::GetRange).len() < 10);
    }
}
