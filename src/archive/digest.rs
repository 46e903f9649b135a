//! What is known of a block's content when it has passed: rows, bytes, SHA-256.

use sha2::{Digest, Sha256};

use super::BlockKind;

/// What a block holds, by its content alone.
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

/// The digest of the block that passes now, of either kind.
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
            // Above 2^31 an OID is read as a negative integer: its low 32 bits are right.
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

    /// `None` when a table's text did not end as pg_dump ends it.
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

/// Rows and digest of a table's COPY text: exactly the bytes that `COPY table TO STDOUT` gives,
/// without the terminator that pg_dump adds.
#[derive(Default)]
pub struct TableDigest {
    sha256: Sha256,
    bytes: u64,
    rows: u64,
    /// The last bytes seen, held back until it is known that they are not the terminator.
    tail: Vec<u8>,
}

impl TableDigest {
    pub fn update(&mut self, text: &[u8]) {
        let keep = END_OF_COPY.len();
        if text.len() >= keep {
            let tail = std::mem::take(&mut self.tail);
            self.take_in(&tail);
            self.tail = tail;
            self.tail.clear();
            let (body, tail) = text.split_at(text.len() - keep);
            self.take_in(body);
            self.tail.extend_from_slice(tail);
        } else {
            self.tail.extend_from_slice(text);
            let sure = self.tail.len().saturating_sub(keep);
            let body: Vec<u8> = self.tail.drain(..sure).collect();
            self.take_in(&body);
        }
    }

    fn take_in(&mut self, body: &[u8]) {
        self.sha256.update(body);
        self.bytes += body.len() as u64;
        // COPY escapes newlines inside values: each one here ends a row.
        self.rows += memchr::memchr_iter(b'\n', body).count() as u64;
    }

    /// `(rows, bytes, sha256)`, or `None` when the text did not end as pg_dump ends it.
    pub fn finish(self) -> Option<(u64, u64, [u8; 32])> {
        (self.tail == END_OF_COPY).then(|| (self.rows, self.bytes, self.sha256.finalize().into()))
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
