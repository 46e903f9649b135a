//! Cuts the content into pieces for the workers, and digests it at the same time.

mod holding;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::earlier::{EarlierBlock, EarlierBlocks};
use super::framing::{Around, Ordered};
use super::level::{Level, Waited};
use crate::dataflow::compress::{Codec, PIECE, PieceJob, Shape, Squeezed};
use crate::format::archive::{
    ArchiveError, BlockDigest, BlockKind, BlockSink, ContentDigest, END_OF_COPY, Head, Input, Layout,
};
use crate::format::script::Refused;
use crate::format::script::{Contents, Reader};
use crate::run::progress::Observer;

/// What is known of the blocks when all are on their way.
pub(super) struct Cut {
    pub(super) digests: Vec<BlockDigest>,
    /// By block: it is in an earlier archive, and not in this one.
    pub(super) elsewhere: Vec<bool>,
    pub(super) levels: BTreeMap<i32, u64>,
}

/// The archive's blocks on their way to the workers.
pub(super) struct Pieces<'o> {
    cutter: Cutter,
    layout: Layout,
    blocks: Vec<Awaited>,
    digesting: Option<ContentDigest>,
    digests: Vec<BlockDigest>,
    /// By block: it is in an earlier archive, and not in this one.
    elsewhere: Vec<bool>,
    /// The text of the current block, as long as it may be that of the earlier block.
    held: Option<Vec<u8>>,
    /// The size of ranges, if a block can be read from the middle: not in one compressed stream.
    range: Option<usize>,
    /// Bytes of content in the open range.
    in_range: usize,
    /// The block's ranges have begun.
    ranged: bool,
    observer: &'o dyn Observer,
}

/// A block that the head lists.
struct Awaited {
    kind: BlockKind,
    dump_id: i64,
    /// For the observer and for errors.
    name: String,
    /// What an earlier archive has of the same table.
    earlier: Option<EarlierBlock>,
    /// Its text is known to be the same, and will not be delivered.
    is_proved: bool,
}

impl<'o> Pieces<'o> {
    pub(super) fn new(codec: Codec, range: usize, workers: Workers, observer: &'o dyn Observer) -> Self {
        Self {
            range: matches!(codec, Codec::None | Codec::Zstd(_) | Codec::AutoZstd).then_some(range),
            in_range: 0,
            ranged: false,
            cutter: Cutter::new(codec, workers),
            layout: Layout { int_size: 4 },
            blocks: Vec::new(),
            digesting: None,
            digests: Vec::new(),
            elsewhere: Vec::new(),
            held: None,
            observer,
        }
    }

    /// Passes the head on and records which blocks must follow.
    pub(super) fn begin(
        &mut self,
        head: &Head,
        announced: Vec<u8>,
        earlier: &EarlierBlocks,
    ) -> Result<(), ArchiveError> {
        self.layout = Layout {
            int_size: head.int_size,
        };
        self.blocks = head
            .data
            .iter()
            .map(|entry| Awaited {
                kind: entry.block_kind(),
                dump_id: entry.dump_id,
                name: entry.to_string(),
                earlier: earlier.of(entry).cloned(),
                is_proved: earlier.is_proved(entry),
            })
            .collect();
        self.cutter.frame = Some(self.layout);
        self.cutter.send(Ordered::Bytes(announced))
    }

    /// When every block was delivered.
    pub(super) fn finish(mut self) -> Result<Cut, ArchiveError> {
        self.pass_over(self.blocks.len())?;
        Ok(Cut {
            digests: self.digests,
            elsewhere: self.elsewhere,
            levels: self.cutter.level.used(),
        })
    }

    /// Digests the current piece at once, before it is passed on: row by row would cost more than the digest itself.
    /// If a range ends in the piece, the bytes after its last row begin the next piece.
    fn submit(&mut self, last: bool) -> Result<(), ArchiveError> {
        if !last {
            self.begin_ranges()?;
        }
        self.in_range += self.cutter.piece.len();
        let next = if last { None } else { self.end_range() };
        if let Some(digest) = &mut self.digesting {
            digest.update(&self.cutter.piece);
        }
        self.cutter.submit(last)?;
        let Some(next) = next else { return Ok(()) };
        self.cutter.piece.extend_from_slice(&next);
        self.in_range = 0;
        let Some((rows, bytes)) = self.digesting.as_ref().and_then(ContentDigest::so_far) else {
            return Ok(());
        };
        self.cutter.send(Ordered::EndRange { rows, bytes })
    }

    /// Called before the first of several pieces of a table: a table of a single piece is at most one range.
    fn begin_ranges(&mut self) -> Result<(), ArchiveError> {
        let of_table = matches!(self.digesting, Some(ContentDigest::Table(_)));
        if self.ranged || !of_table || self.range.is_none() {
            return Ok(());
        }
        self.ranged = true;
        self.cutter.send(Ordered::BeginRange)
    }

    /// If the range is full, cuts the piece after its last row and returns the rest, which may be empty. `None` if no
    /// range ends.
    fn end_range(&mut self) -> Option<Vec<u8>> {
        let of_table = matches!(self.digesting, Some(ContentDigest::Table(_)));
        if !of_table || self.range.is_none_or(|range| self.in_range < range) {
            return None;
        }
        // More bytes follow this piece, so at most all but the last byte of COPY's end are in it: its newlines end no
        // row.
        let rows = self.cutter.piece.len().saturating_sub(END_OF_COPY.len() - 1);
        let last = memchr::memrchr(b'\n', &self.cutter.piece[..rows])?;
        Some(self.cutter.piece.split_off(last + 1))
    }
}

impl BlockSink for Pieces<'_> {
    fn begin(&mut self, index: usize) -> Result<(), ArchiveError> {
        self.pass_over(index)?;
        let Awaited {
            kind, name, earlier, ..
        } = &self.blocks[index];
        self.observer.table(name);
        self.digesting = Some(ContentDigest::of(*kind));
        if earlier.as_ref().is_some_and(EarlierBlock::is_held) {
            self.held = Some(Vec::new());
            return Ok(());
        }
        self.open()
    }

    fn begin_object(&mut self, oid: i64) -> Result<(), ArchiveError> {
        if let Some(digest) = &mut self.digesting {
            digest.begin_object(oid);
        }
        let mut frame = Vec::with_capacity(8);
        self.layout.begin_object(oid, &mut frame);
        self.cutter.send(Ordered::Bytes(frame))?;
        self.cutter.begin_stream();
        Ok(())
    }

    #[inline]
    fn data(&mut self, mut bytes: &[u8]) -> Result<(), ArchiveError> {
        if let Some(held) = self.held.take() {
            return self.hold(held, bytes);
        }
        loop {
            let room = PIECE - self.cutter.piece.len();
            if bytes.len() <= room {
                self.cutter.piece.extend_from_slice(bytes);
                return Ok(());
            }
            // More bytes follow, so a full piece is not the last of its stream.
            let (now, later) = bytes.split_at(room);
            self.cutter.piece.extend_from_slice(now);
            self.submit(false)?;
            bytes = later;
        }
    }

    /// A buffer that is large enough goes to the workers as it is, and so do the bytes before it.
    fn owned(&mut self, bytes: Vec<u8>) -> Result<(), ArchiveError> {
        if self.held.is_some() {
            return self.data(&bytes);
        }
        let worth = |length: usize| (PIECE / 4..=PIECE).contains(&length);
        let before = self.cutter.piece.len();
        if !worth(bytes.len()) || !(before == 0 || worth(before)) {
            return self.data(&bytes);
        }
        if before > 0 {
            self.submit(false)?;
            if !self.cutter.piece.is_empty() {
                // A range has ended, and some bytes remain.
                return self.data(&bytes);
            }
        }
        self.cutter.piece = bytes;
        self.submit(false)
    }

    fn end_object(&mut self) -> Result<(), ArchiveError> {
        self.submit(true)?;
        if let Some(digest) = &mut self.digesting {
            digest.end_object();
        }
        self.end_stream()
    }

    fn end(&mut self, at: u64) -> Result<(), ArchiveError> {
        if let Some(held) = self.held.take()
            && self.compare(&held)?
        {
            return Ok(());
        }
        if matches!(self.digesting, Some(ContentDigest::Table(_))) {
            self.submit(true)?;
        }
        let malformed = |what: String| ArchiveError::Malformed { at, what };
        let Some(digest) = self.digesting.take() else {
            return Err(malformed("a block ends twice".into()));
        };
        let digest = digest.finish().ok_or_else(|| {
            let name = &self.blocks[self.digests.len()].name;
            malformed(format!("{name} does not end as COPY ends"))
        })?;
        self.digests.push(digest);
        self.elsewhere.push(false);
        let mut frame = Vec::with_capacity(8);
        self.layout.end(&mut frame);
        self.cutter.send(Ordered::EndBlock(frame))
    }
}

impl Pieces<'_> {
    fn end_stream(&mut self) -> Result<(), ArchiveError> {
        let mut frame = Vec::with_capacity(8);
        self.layout.end(&mut frame);
        self.cutter.send(Ordered::Bytes(frame))
    }
}

/// Plain SQL on its way to the workers: it can be cut anywhere. Its content is counted at the same time.
pub(super) struct SqlPieces {
    cutter: Cutter,
    counting: Result<Reader, Refused>,
}

/// What was read, and how it was compressed.
pub(super) struct Sql {
    pub(super) levels: BTreeMap<i32, u64>,
    /// Or why it could not be counted.
    pub(super) contents: Result<Contents, Refused>,
}

/// The beginning of a plain dump by pg_dump.
const SQL_START: &[u8] = b"--\n-- PostgreSQL database dump\n--\n";
/// The end of a plain dump by pg_dump. Since the minor releases of August 2025 an `\unrestrict` line follows, so
/// these may not be the very last bytes.
const SQL_END: &[u8] = b"\n-- PostgreSQL database dump complete\n--\n\n";
/// How much of the stream's end may contain it.
const SQL_TAIL: usize = 4096;

impl SqlPieces {
    pub(super) fn new(codec: Codec, workers: Workers) -> Self {
        Self {
            cutter: Cutter::new(codec, workers),
            counting: Ok(Reader::counting()),
        }
    }

    pub(super) fn take_all<R: Read>(mut self, input: &mut Input<R>) -> Result<Sql, ArchiveError> {
        let mut tail: Vec<u8> = Vec::new();
        let mut start = SQL_START;
        loop {
            let bytes = input.available()?;
            if bytes.is_empty() {
                break;
            }
            // Another beginning is not pg_dump's, so reading can stop at once.
            let compared = start.len().min(bytes.len());
            if bytes[..compared] != start[..compared] {
                return Err(ArchiveError::Malformed {
                    at: input.position(),
                    what: "it does not begin like pg_dump's SQL".into(),
                });
            }
            start = &start[compared..];
            let count = bytes.len().min(PIECE - self.cutter.piece.len());
            self.cutter.piece.extend_from_slice(&bytes[..count]);
            input.consume(count);
            if self.cutter.piece.len() == PIECE {
                self.count();
                keep_tail(&mut tail, &self.cutter.piece);
                self.cutter.submit(false)?;
            }
        }
        self.count();
        keep_tail(&mut tail, &self.cutter.piece);
        if !self.cutter.piece.is_empty() {
            self.cutter.submit(true)?;
        }
        let Some(end) = memchr::memmem::rfind(&tail, SQL_END) else {
            return Err(ArchiveError::EndsEarly {
                at: input.position(),
                missing: "pg_dump's closing comment is missing".into(),
            });
        };
        if !is_unrestrict(&tail[end + SQL_END.len()..]) {
            return Err(ArchiveError::Malformed {
                at: input.position(),
                what: "what follows pg_dump's closing comment is not pg_dump's".into(),
            });
        }
        let bytes = input.position();
        Ok(Sql {
            levels: self.cutter.level.used(),
            contents: self.counting.and_then(|reader| reader.end(bytes)),
        })
    }

    fn count(&mut self) {
        if let Ok(reader) = &mut self.counting
            && let Err(refused) = reader.pass(&self.cutter.piece)
        {
            self.counting = Err(refused);
        }
    }
}

/// Nothing, or the one line that may follow the closing comment.
fn is_unrestrict(rest: &[u8]) -> bool {
    let token = rest
        .strip_prefix(b"\\unrestrict ")
        .and_then(|rest| rest.strip_suffix(b"\n\n"));
    rest.is_empty() || token.is_some_and(|token| !token.is_empty() && token.iter().all(u8::is_ascii_alphanumeric))
}

fn keep_tail(tail: &mut Vec<u8>, bytes: &[u8]) {
    tail.extend_from_slice(&bytes[bytes.len().saturating_sub(SQL_TAIL)..]);
    let excess = tail.len().saturating_sub(SQL_TAIL);
    tail.drain(..excess);
}

/// The destination of pieces: the workers that compress them, and the framing, which gets them in order.
pub(super) struct Workers {
    pub(super) jobs: Sender<PieceJob>,
    pub(super) ordered: Sender<Ordered>,
    pub(super) waited: Waited,
}

/// Turns filled pieces into jobs, and keeps the order: the answer's receiver enters the ordered queue before a worker
/// can take the job.
struct Cutter {
    codec: Codec,
    level: Level,
    jobs: Sender<PieceJob>,
    ordered: Sender<Ordered>,
    piece: Vec<u8>,
    /// The previous piece of the same stream, which primes deflate.
    before: Option<Arc<Vec<u8>>>,
    first: bool,
    /// Set for an archive, whose pieces are framed; plain SQL has no frames.
    frame: Option<Layout>,
}

impl Cutter {
    fn new(codec: Codec, workers: Workers) -> Self {
        let Workers { jobs, ordered, waited } = workers;
        Self {
            codec,
            level: Level::new(codec, waited),
            jobs,
            ordered,
            piece: Vec::new(),
            before: None,
            first: true,
            frame: None,
        }
    }

    fn begin_stream(&mut self) {
        self.before = None;
        self.first = true;
        self.piece.clear();
    }

    fn send(&self, ordered: Ordered) -> Result<(), ArchiveError> {
        self.ordered.send(ordered).map_err(|_| ArchiveError::Stopped)
    }

    fn submit(&mut self, last: bool) -> Result<(), ArchiveError> {
        let effort = self.level.effort(self.piece.len());
        // If a stream filled one piece, it will probably fill the next.
        let capacity = if last { 0 } else { PIECE };
        let content = std::mem::replace(&mut self.piece, Vec::with_capacity(capacity));
        let first = std::mem::replace(&mut self.first, false);
        let around = match (self.frame, self.codec) {
            (None, _) => Around::Bare,
            (Some(layout), Codec::Gzip(_) | Codec::AutoGzip) => Around::Zlib { layout, first, last },
            (Some(layout), _) => Around::Chunks { layout },
        };
        let shape = match (self.codec, self.frame) {
            (Codec::None, _) => return self.send(Ordered::Content(content, around)),
            (Codec::Zstd(_) | Codec::AutoZstd, _) => Shape::ZstdFrame,
            (Codec::Gzip(_) | Codec::AutoGzip, None) => Shape::GzipMember,
            (Codec::Gzip(_) | Codec::AutoGzip, Some(_)) => Shape::Deflate {
                before: self.before.take(),
                last,
            },
        };
        let content = Arc::new(content);
        if matches!(shape, Shape::Deflate { .. }) && !last {
            self.before = Some(Arc::clone(&content));
        }
        let (answer, squeezed): (_, Receiver<std::io::Result<Squeezed>>) = bounded(1);
        self.send(Ordered::Squeezed(squeezed, around))?;
        self.jobs
            .send(PieceJob {
                content,
                shape,
                effort,
                answer,
            })
            .map_err(|_| ArchiveError::Stopped)
    }
}
