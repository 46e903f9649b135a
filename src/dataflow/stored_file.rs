//! A stored file on the way back: the pipeline's framing, stages and seal in reverse.
//!
//! ```text
//! store → reading (ranged requests) → seal (digests of ranges) → stages undone → content
//! ```
//!
//! Verify, restore and drill read an archive's content here; they differ in where the content ends.
//! A download takes the file as it is stored. Places are those of the content; only the stages know where it is stored.
//! If the reader has a digest of the content (of a whole block), the stored bytes are not digested as well.

mod assembly;

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::format::archive::{Sealed, SealedRange};
use crate::store::Store;
use crate::store::reading::Reading;
use assembly::Assembling;
pub use assembly::{Assembly, Source};

/// Content that is read in order.
pub type Content = Box<dyn Read + Send>;

/// Undoes one stage of the pipeline, for any part of the file.
pub trait Unstage: Send + Sync {
    /// The stored bytes of this content, which is not empty: all bytes that [`Unstage::undo`] needs.
    fn stored(&self, content: &Range<u64>) -> Range<u64>;

    /// Returns this content. `stored` gives the bytes; if it fails, this fails with the same error.
    fn undo(&self, content: Range<u64>, stored: Content) -> Content;
}

pub struct StoredFile {
    store: Arc<dyn Store>,
    key: String,
    /// In the order in which the pipeline applied them.
    stages: Vec<Arc<dyn Unstage>>,
    /// Set if some of the content is in another object. Such a file has no stages.
    assembly: Option<Assembly>,
}

impl StoredFile {
    /// A file whose content is stored without stages.
    pub fn plain(store: &Arc<dyn Store>, key: &str) -> Self {
        Self {
            store: Arc::clone(store),
            key: key.to_owned(),
            stages: Vec::new(),
            assembly: None,
        }
    }

    /// A file whose content is partly in another object.
    #[must_use]
    pub fn assembled(self, assembly: Option<Assembly>) -> Self {
        Self { assembly, ..self }
    }

    #[must_use]
    pub fn staged(self, stages: Vec<Arc<dyn Unstage>>) -> Self {
        Self { stages, ..self }
    }

    /// The stored bytes of this content, in the object that holds them.
    pub fn stored(&self, content: &Range<u64>) -> Range<u64> {
        if content.is_empty() {
            return content.clone();
        }
        if let Some(assembly) = &self.assembly {
            return assembly.stored(content);
        }
        let through = |place: Range<u64>, stage: &Arc<dyn Unstage>| stage.stored(&place);
        self.stages.iter().fold(content.clone(), through)
    }

    /// The places of the ranges' stored bytes, which their digests cover.
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

    /// Content that its reader compares with a digest of its own. The requests start at once, so call this in a tokio
    /// runtime, but read outside of it.
    pub fn read(&self, content: Range<u64>) -> Content {
        let reading = self.reading(&content);
        self.undo(content, reading)
    }

    /// The same for consecutive ranges. If a range's stored bytes have another digest than they should, the end of
    /// that range is never returned: reading fails, and the error names `of`.
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
        self.unstage(content, Box::new(stored))
    }

    /// The same for a file of which the caller reads its own bytes; what is in another object is requested, in
    /// `runtime`.
    pub fn undo_own(&self, content: Range<u64>, own: impl Read + Send + 'static, runtime: &Handle) -> Content {
        let own: Content = Box::new(own);
        match &self.assembly {
            Some(assembly) => Box::new(Assembling::begin(
                assembly,
                (&self.store, &self.key),
                &content,
                Some(own),
                runtime.clone(),
            )),
            None => self.unstage(content, own),
        }
    }

    fn unstage(&self, content: Range<u64>, stored: Content) -> Content {
        let mut places = Vec::with_capacity(self.stages.len());
        let mut place = content;
        for stage in &self.stages {
            let stored = stage.stored(&place);
            places.push((stage, std::mem::replace(&mut place, stored)));
        }
        let back = |stored: Content, (stage, content): (&Arc<dyn Unstage>, Range<u64>)| stage.undo(content, stored);
        places.into_iter().rev().fold(stored, back)
    }

    fn reading(&self, content: &Range<u64>) -> Content {
        if let Some(assembly) = &self.assembly {
            let runtime = Handle::current();
            let place = (&self.store, self.key.as_str());
            return Box::new(Assembling::begin(assembly, place, content, None, runtime));
        }
        let stored = self.stored(content);
        Box::new(Reading::start(Arc::clone(&self.store), self.key.clone(), stored).into_blocking())
    }
}
