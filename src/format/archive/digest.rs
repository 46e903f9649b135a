//! The count of rows, the bytes and the SHA-256 of a block's content, computed as it passes.

use sha2::{Digest, Sha256};

use super::BlockKind;

/// The content of a block, independent of how it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockDigest {
    pub content: BlockContent,
    pub bytes: u64,
    pub sha256: [u8; 32],
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockContent {
    Table { rows: u64 },
    LargeObjects { count: u64 },
}

impl BlockContent {
    /// Changes the number, not the kind.
    pub fn set_count(&mut self, number: u64) {
        match self {
            BlockContent::Table { rows } => *rows = number,
            BlockContent::LargeObjects { count } => *count = number,
        }
    }
}

/// The digest of the current block, of either kind.
pub enum ContentDigest {
    Table(TableDigest),
    LargeObjects(LargeObjectsDigest),
}

impl ContentDigest {
    pub fn of(kind: BlockKind) -> Self {
        match kind {
            BlockKind::Table => ContentDigest::Table(TableDigest::default()),
            BlockKind::LargeObjects => ContentDigest::LargeObjects(LargeObjectsDigest::default()),
        }
    }

    pub fn begin_object(&mut self, oid: i64) {
        if let ContentDigest::LargeObjects(digest) = self {
            // An OID above 2^31 is read as a negative integer: its low 32 bits are right.
            digest.begin(oid as u32);
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            ContentDigest::Table(digest) => digest.update(bytes),
            ContentDigest::LargeObjects(digest) => digest.update(bytes),
        }
    }

    pub fn end_object(&mut self) {
        if let ContentDigest::LargeObjects(digest) = self {
            digest.end();
        }
    }

    /// `(rows, bytes)` of a table's text so far: see [`TextCount::so_far`].
    pub fn so_far(&self) -> Option<(u64, u64)> {
        match self {
            ContentDigest::Table(digest) => Some(digest.so_far()),
            ContentDigest::LargeObjects(_) => None,
        }
    }

    /// `None` if a table's text did not end as pg_dump ends it.
    pub fn finish(self) -> Option<BlockDigest> {
        match self {
            ContentDigest::Table(digest) => digest.finish().map(|(rows, bytes, sha256)| BlockDigest {
                content: BlockContent::Table { rows },
                bytes,
                sha256,
            }),
            ContentDigest::LargeObjects(digest) => {
                let (count, bytes, sha256) = digest.finish();
                Some(BlockDigest {
                    content: BlockContent::LargeObjects { count },
                    bytes,
                    sha256,
                })
            }
        }
    }
}

/// pg_dump ends every table's text with this, inside the stream.
pub const END_OF_COPY: &[u8; 5] = b"\\.\n\n\n";

/// Counts COPY text, without the terminator that pg_dump adds.
#[derive(Debug, Default)]
pub struct TextCount {
    bytes: u64,
    rows: u64,
    /// The last bytes. They are not counted until it is certain that they are not the terminator.
    tail: Vec<u8>,
}

impl TextCount {
    /// `sure` gets the bytes that are certainly text.
    pub fn update(&mut self, text: &[u8], mut sure: impl FnMut(&[u8])) {
        let keep = END_OF_COPY.len();
        if text.len() >= keep {
            let tail = std::mem::take(&mut self.tail);
            self.take_in(&tail, &mut sure);
            self.tail = tail;
            self.tail.clear();
            let (body, tail) = text.split_at(text.len() - keep);
            self.take_in(body, &mut sure);
            self.tail.extend_from_slice(tail);
        } else {
            self.tail.extend_from_slice(text);
            let certain = self.tail.len().saturating_sub(keep);
            let body: Vec<u8> = self.tail.drain(..certain).collect();
            self.take_in(&body, &mut sure);
        }
    }

    fn take_in(&mut self, body: &[u8], sure: &mut impl FnMut(&[u8])) {
        sure(body);
        self.bytes += body.len() as u64;
        self.rows += rows(body);
    }

    /// `(rows, bytes)` of the whole text so far; right only if the terminator has not begun.
    pub fn so_far(&self) -> (u64, u64) {
        (self.rows + rows(&self.tail), self.bytes + self.tail.len() as u64)
    }

    /// `(rows, bytes)`, or `None` if the text did not end as pg_dump ends it.
    pub fn finish(&self) -> Option<(u64, u64)> {
        (self.tail == END_OF_COPY).then_some((self.rows, self.bytes))
    }
}

/// COPY escapes newlines inside values, so every newline ends a row.
fn rows(text: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', text).count() as u64
}

/// Rows and digest of a table's COPY text: exactly the bytes that `COPY table TO STDOUT` gives,
/// without the terminator that pg_dump adds.
#[derive(Debug, Default)]
pub struct TableDigest {
    sha256: Sha256,
    count: TextCount,
}

impl TableDigest {
    pub fn update(&mut self, text: &[u8]) {
        let Self { sha256, count } = self;
        count.update(text, |body| sha256.update(body));
    }

    /// See [`TextCount::so_far`].
    pub fn so_far(&self) -> (u64, u64) {
        self.count.so_far()
    }

    /// `(rows, bytes, sha256)`, or `None` if the text did not end as pg_dump ends it.
    pub fn finish(self) -> Option<(u64, u64, [u8; 32])> {
        let (rows, bytes) = self.count.finish()?;
        Some((rows, bytes, self.sha256.finalize().into()))
    }
}

/// Count, bytes and digest of a block of large objects. The digest is the SHA-256 over one line
/// per object, `<oid> <bytes> <sha256 of its content>\n`, in archive order: SQL can compute it.
#[derive(Default)]
pub struct LargeObjectsDigest {
    lines: Sha256,
    count: u64,
    bytes: u64,
    current: Option<(u32, Sha256, u64)>,
}

impl LargeObjectsDigest {
    pub fn begin(&mut self, oid: u32) {
        self.current = Some((oid, Sha256::new(), 0));
    }

    pub fn update(&mut self, content: &[u8]) {
        if let Some((_, sha256, bytes)) = &mut self.current {
            sha256.update(content);
            *bytes += content.len() as u64;
        }
    }

    pub fn end(&mut self) {
        if let Some((oid, sha256, bytes)) = self.current.take() {
            self.lines
                .update(format!("{oid} {bytes} {}\n", hex::encode(sha256.finalize())));
            self.count += 1;
            self.bytes += bytes;
        }
    }

    /// `(count, bytes, sha256)`.
    pub fn finish(self) -> (u64, u64, [u8; 32]) {
        (self.count, self.bytes, self.lines.finalize().into())
    }
}
