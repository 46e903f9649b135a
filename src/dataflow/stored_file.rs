//! A stored file on the way back: the pipeline's framing, stages and seal in reverse.
//!
//! ```text
//! store → reading (ranged requests) → seal (digests of ranges) → stages undone → content
//! ```
//!
//! Verify, restore and drill read an archive's content here; they differ in where the content ends.
//! A download takes the file as it is stored. Places are those of the content; only the stages know
//! where it is stored. Where the reader has a digest of the content (a whole block's), the stored
//! bytes are not digested as well.

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use crate::format::archive::{Sealed, SealedRange};
use crate::store::Store;
use crate::store::reading::{BlockingReading, Reading};

/// Content as it comes.
pub type Content = Box<dyn Read + Send>;

/// What undoes a stage of the pipeline, for any stretch of the file alone.
pub trait Unstage: Send + Sync {
    /// Where this content, which is not empty, is stored: all the bytes that [`Unstage::undo`] needs.
    fn stored(&self, content: &Range<u64>) -> Range<u64>;

    /// Gives this content, and fails as `stored` fails, which gives those bytes.
    fn undo(&self, content: Range<u64>, stored: Content) -> Content;
}

pub struct StoredFile {
    store: Arc<dyn Store>,
    key: String,
    /// In the order in which the bytes went through them.
    stages: Vec<Arc<dyn Unstage>>,
}

impl StoredFile {
    /// Content that is stored as it is.
    pub fn plain(store: &Arc<dyn Store>, key: &str) -> Self {
        Self {
            store: Arc::clone(store),
            key: key.to_owned(),
            stages: Vec::new(),
        }
    }

    #[must_use]
    pub fn staged(self, stages: Vec<Arc<dyn Unstage>>) -> Self {
        Self { stages, ..self }
    }

    /// Where this content is stored.
    pub fn stored(&self, content: &Range<u64>) -> Range<u64> {
        if content.is_empty() {
            return content.clone();
        }
        let through = |place: Range<u64>, stage: &Arc<dyn Unstage>| stage.stored(&place);
        self.stages.iter().fold(content.clone(), through)
    }

    /// The ranges, where they are stored: what their digests are of.
    pub fn seals(&self, ranges: &[SealedRange]) -> Vec<SealedRange> {
        let seal = |range: &SealedRange| {
            let stored = self.stored(&(range.offset..range.end()));
            SealedRange {
                offset: stored.start,
                length: stored.end - stored.start,
                ..range.clone()
            }
        };
        ranges.iter().map(seal).collect()
    }

    /// Content that its reader holds against a digest of its own. Begins at once, so within a tokio
    /// runtime; to be read outside of it.
    pub fn read(&self, content: Range<u64>) -> Content {
        let reading = self.reading(&content);
        self.undo(content, reading)
    }

    /// The same of ranges that lie one behind the other. The end of one whose stored bytes have
    /// another digest than they should is never given: reading fails, and names `of`.
    pub fn read_sealed(&self, ranges: &[SealedRange], of: String) -> Content {
        let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else {
            return Box::new(std::io::empty());
        };
        let content = first.offset..last.end();
        let sealed = Sealed::new(self.reading(&content), self.seals(ranges), of);
        self.undo(content, sealed)
    }

    /// This content, from its stored bytes, which the caller reads.
    pub fn undo(&self, content: Range<u64>, stored: impl Read + Send + 'static) -> Content {
        let mut places = Vec::with_capacity(self.stages.len());
        let mut place = content;
        for stage in &self.stages {
            let stored = stage.stored(&place);
            places.push((stage, std::mem::replace(&mut place, stored)));
        }
        let back = |stored: Content, (stage, content): (&Arc<dyn Unstage>, Range<u64>)| stage.undo(content, stored);
        places.into_iter().rev().fold(Box::new(stored), back)
    }

    fn reading(&self, content: &Range<u64>) -> BlockingReading {
        let stored = self.stored(content);
        Reading::start(Arc::clone(&self.store), self.key.clone(), stored).into_blocking()
    }
}
