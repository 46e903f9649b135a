//! Compares a block's content with the manifest before it passes on the block's end.

use super::digest::END_OF_COPY;
use super::{ArchiveError, BlockContent, BlockDigest, BlockKind, BlockSink, ContentDigest};
use crate::units::count;

/// A [`BlockSink`] for content. If a block differs from the manifest it fails: at the first byte too many, or at the
/// block's end. The next sink never gets the end of such a block, so it can drop what it has begun.
pub struct BlockCheck<'a, S> {
    /// The manifest's digests, by the index of the block.
    promises: &'a [BlockDigest],
    inner: S,
    digest: Option<ContentDigest>,
    index: usize,
    left: u64,
}

impl<'a, S> BlockCheck<'a, S> {
    pub fn new(promises: &'a [BlockDigest], inner: S) -> Self {
        Self {
            promises,
            inner,
            digest: None,
            index: 0,
            left: 0,
        }
    }

    pub fn inner(&mut self) -> &mut S {
        &mut self.inner
    }
}

impl<S: BlockSink> BlockSink for BlockCheck<'_, S> {
    fn begin(&mut self, index: usize) -> Result<(), ArchiveError> {
        let promise = self
            .promises
            .get(index)
            .ok_or_else(|| ArchiveError::Content("the manifest does not have it".into()))?;
        let (kind, terminator) = match promise.content {
            BlockContent::Table { .. } => (BlockKind::Table, END_OF_COPY.len() as u64),
            BlockContent::LargeObjects { .. } => (BlockKind::LargeObjects, 0),
        };
        self.index = index;
        self.left = promise.bytes.saturating_add(terminator);
        self.digest = Some(ContentDigest::of(kind));
        self.inner.begin(index)
    }

    fn begin_object(&mut self, oid: i64) -> Result<(), ArchiveError> {
        if let Some(digest) = &mut self.digest {
            digest.begin_object(oid);
        }
        self.inner.begin_object(oid)
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| ArchiveError::Content("it holds more bytes than the manifest says".into()))?;
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
        }
        self.inner.data(bytes)
    }

    fn end_object(&mut self) -> Result<(), ArchiveError> {
        if let Some(digest) = &mut self.digest {
            digest.end_object();
        }
        self.inner.end_object()
    }

    fn end(&mut self, at: u64) -> Result<(), ArchiveError> {
        let found = self
            .digest
            .take()
            .and_then(ContentDigest::finish)
            .ok_or_else(|| ArchiveError::Content("it does not end as COPY ends".into()))?;
        let promise = &self.promises[self.index];
        if found != *promise {
            return Err(ArchiveError::Content(difference(&found, promise)));
        }
        self.inner.end(at)
    }
}

/// The difference in words, for a message.
pub fn difference(found: &BlockDigest, promise: &BlockDigest) -> String {
    let holds = |content: &BlockContent| match content {
        BlockContent::Table { rows } => count(*rows, "row"),
        BlockContent::LargeObjects { count: objects } => count(*objects, "large object"),
    };
    if found.content != promise.content || found.bytes != promise.bytes {
        return format!(
            "it holds {} in {}, the manifest says {} in {}",
            holds(&found.content),
            count(found.bytes, "byte"),
            holds(&promise.content),
            count(promise.bytes, "byte")
        );
    }
    format!(
        "its SHA-256 is {}, the manifest says {}",
        hex::encode(found.sha256),
        hex::encode(promise.sha256)
    )
}

/// Drops the content, for a caller that needs only the check before it.
pub struct Discard;

impl BlockSink for Discard {
    fn begin(&mut self, _index: usize) -> Result<(), ArchiveError> {
        Ok(())
    }
    fn begin_object(&mut self, _oid: i64) -> Result<(), ArchiveError> {
        Ok(())
    }
    fn data(&mut self, _bytes: &[u8]) -> Result<(), ArchiveError> {
        Ok(())
    }
    fn end_object(&mut self) -> Result<(), ArchiveError> {
        Ok(())
    }
    fn end(&mut self, _at: u64) -> Result<(), ArchiveError> {
        Ok(())
    }
}
