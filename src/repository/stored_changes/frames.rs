//! The bytes of the wanted frames, one after the other. Frames that follow each other are one range.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::error::Error;
use crate::store::Store;
use crate::store::reading::{BlockingReading, Reading};

/// How many ranges are requested at once: while one is read, the next one comes.
const OPEN: usize = 2;

pub(super) struct Frames {
    store: Arc<dyn Store>,
    key: String,
    /// Requests are made in this runtime. `None`: there was none.
    runtime: Option<Handle>,
    ahead: VecDeque<Range<u64>>,
    open: VecDeque<BlockingReading>,
}

impl Frames {
    /// Requests the first ranges at once.
    pub fn start(store: &Arc<dyn Store>, key: &str, frames: impl Iterator<Item = Range<u64>>) -> Self {
        let mut ahead: VecDeque<Range<u64>> = VecDeque::new();
        for frame in frames {
            match ahead.back_mut() {
                Some(last) if last.end == frame.start => last.end = frame.end,
                _ => ahead.push_back(frame),
            }
        }
        let mut frames = Self {
            store: Arc::clone(store),
            key: key.to_owned(),
            runtime: Handle::try_current().ok(),
            ahead,
            open: VecDeque::new(),
        };
        frames.ask();
        frames
    }

    fn ask(&mut self) {
        let Some(runtime) = &self.runtime else { return };
        let _entered = runtime.enter();
        while self.open.len() < OPEN
            && let Some(range) = self.ahead.pop_front()
        {
            let reading = Reading::start(Arc::clone(&self.store), self.key.clone(), range);
            self.open.push_back(reading.into_blocking());
        }
    }
}

impl Read for Frames {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(current) = self.open.front_mut() {
            let read = current.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            self.open.pop_front();
            self.ask();
        }
        match self.ahead.is_empty() {
            true => Ok(0),
            false => Err(io::Error::other(Error::internal(
                "changes are read outside of a runtime",
            ))),
        }
    }
}
