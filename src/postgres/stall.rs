//! Distinguishes a dump that sends nothing from a store that accepts nothing.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Knows how long a read has been waiting. The reader's thread and the watcher share it.
#[derive(Debug, Clone)]
pub struct StallClock {
    started: Instant,
    /// Milliseconds after `started`, plus one, at which the read began; 0: no read waits.
    waiting_since: Arc<AtomicU64>,
}

impl Default for StallClock {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            waiting_since: Arc::default(),
        }
    }
}

impl StallClock {
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    pub(crate) fn begin(&self) {
        self.waiting_since.store(self.now(), Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.waiting_since.store(0, Ordering::Relaxed);
    }

    /// Another reader got a byte: waiting readers start to count anew.
    pub fn touch(&self) {
        let since = self.waiting_since.load(Ordering::Relaxed);
        if since != 0 {
            // Not if the wait has just ended: this must not start it again.
            let _ = self
                .waiting_since
                .compare_exchange(since, self.now(), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// How long the current read has been waiting; zero if no read waits.
    pub fn waiting(&self) -> Duration {
        match self.waiting_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => self.started.elapsed().saturating_sub(Duration::from_millis(since - 1)),
        }
    }

    /// Resolves when one read has been waiting for `limit`; never while bytes arrive, and never while the reader is
    /// busy elsewhere, however long.
    pub async fn watch(&self, limit: Duration) {
        loop {
            let waiting = self.waiting();
            if waiting >= limit {
                return;
            }
            tokio::time::sleep((limit - waiting).max(Duration::from_millis(10))).await;
        }
    }
}

/// A pipe that reports its reads to the clock.
#[derive(Debug)]
pub struct WatchedPipe<R> {
    inner: R,
    clock: StallClock,
}

impl<R> WatchedPipe<R> {
    pub fn new(inner: R, clock: StallClock) -> Self {
        Self { inner, clock }
    }

    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Read> Read for WatchedPipe<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.clock.begin();
        let read = self.inner.read(buffer);
        self.clock.end();
        read
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn a_silent_pipe_stalls_and_a_slow_reader_does_not() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let clock = StallClock::default();
        let mut pipe = WatchedPipe::new(reader, clock.clone());
        writer.write_all(b"x").unwrap();
        pipe.read_exact(&mut [0]).unwrap();
        let limit = Duration::from_millis(150);
        let busy = tokio::time::timeout(limit * 3, clock.watch(limit)).await;
        assert!(busy.is_err(), "nobody waits for bytes: the reader is elsewhere");
        let read = tokio::task::spawn_blocking(move || pipe.read(&mut [0]));
        clock.watch(limit).await;
        drop(writer);
        assert_eq!(read.await.unwrap().unwrap(), 0);
        assert_eq!(clock.waiting(), Duration::ZERO);
    }
}
