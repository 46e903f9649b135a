//! Puts the pieces together again in order: framing, positions, the object's digest.

use std::io;
use std::time::Instant;

use bytes::Bytes;
use crossbeam_channel::Receiver;
use md5::Md5;
use sha2::{Digest, Sha256};

use super::fanout::Outlets;
use super::level::Waited;
use super::pump::Ended;
use super::ranges::Ranges;
use crate::dataflow::compress::Squeezed;
use crate::error::Error;
use crate::format::archive::{Layout, SealedRange};

/// What is shorter is gathered up to this size before it is handed to the stores; what is longer
/// goes as it is, in the buffer in which it was made.
const SLICE: usize = 128 << 10;

/// zlib's header: deflate, 32 KiB window, default level.
const ZLIB_HEADER: [u8; 2] = [0x78, 0x9c];

/// What the assembly takes, in the order of the object's bytes.
pub(super) enum Item {
    /// Bytes that go out as they are.
    Bytes(Vec<u8>),
    /// A block's first bytes, and whether it comes in ranges.
    BeginBlock { frame: Vec<u8>, divisible: bool },
    /// A range ends here: so many rows and bytes of text since the block began.
    EndRange { rows: u64, bytes: u64 },
    /// A block's last bytes.
    EndBlock(Vec<u8>),
    /// A piece of content that is stored as it is.
    Content(Vec<u8>, Stream),
    /// A piece that some worker is compressing.
    Squeezed(Receiver<io::Result<Squeezed>>, Stream),
}

/// What surrounds a piece.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stream {
    /// Nothing: plain SQL.
    Bare,
    /// A chunk of its own.
    Chunks { layout: Layout },
    /// A chunk with its share of the one zlib stream: header, deflate, trailer.
    Zlib { layout: Layout, first: bool, last: bool },
}

/// Where a block lies in the object, from its type byte to its terminator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockPlace {
    pub offset: u64,
    pub length: u64,
}

pub(super) struct Assembled {
    pub(super) blocks: Vec<BlockPlace>,
    /// By block: its ranges, where it has several.
    pub(super) ranges: Vec<Vec<SealedRange>>,
    pub(super) bytes: u64,
    pub(super) sha256: [u8; 32],
    pub(super) md5: Option<[u8; 16]>,
}

pub(super) struct Assembly {
    outlets: Outlets,
    waited: Waited,
    /// Frames and short pieces.
    gathered: Vec<u8>,
    /// Bytes before `gathered`.
    sent: u64,
    sha256: Sha256,
    md5: Option<Md5>,
    blocks: Vec<BlockPlace>,
    ranges: Ranges,
    adler: u32,
}

impl Assembly {
    pub(super) fn new(outlets: Outlets, waited: Waited, md5: bool) -> Self {
        Self {
            outlets,
            waited,
            gathered: Vec::new(),
            sent: 0,
            sha256: Sha256::new(),
            md5: md5.then(Md5::new),
            blocks: Vec::new(),
            ranges: Ranges::default(),
            adler: 1,
        }
    }

    /// Takes items until the reader is done or has failed; which of them, the reader knows.
    pub(super) fn run(mut self, items: &Receiver<Item>) -> Result<Assembled, Ended> {
        for item in items {
            match item {
                Item::Bytes(bytes) => self.gathered.extend_from_slice(&bytes),
                Item::BeginBlock { frame, divisible } => {
                    self.blocks.push(BlockPlace {
                        offset: self.position(),
                        length: 0,
                    });
                    self.gathered.extend_from_slice(&frame);
                    self.ranges.begin_block(divisible, self.position(), self.gathered.len());
                }
                Item::EndRange { rows, bytes } => {
                    self.ranges.end(rows, bytes, self.position(), &self.gathered);
                }
                Item::EndBlock(bytes) => {
                    self.ranges.end_block(self.position(), &self.gathered);
                    self.gathered.extend_from_slice(&bytes);
                    let end = self.position();
                    if let Some(block) = self.blocks.last_mut() {
                        block.length = end - block.offset;
                    }
                }
                Item::Content(content, stream) => self.content(&Bytes::from(content), stream)?,
                Item::Squeezed(answer, stream) => {
                    let squeezed = answer
                        .recv()
                        .map_err(|_| Ended::Failed(Error::internal("a compression thread died")))?
                        .map_err(|error| Ended::Failed(Error::internal("compression failed").source(error)))?;
                    self.squeezed(&squeezed, stream)?;
                }
            }
            if self.gathered.len() >= SLICE {
                self.flush()?;
            }
        }
        self.flush()?;
        Ok(Assembled {
            blocks: self.blocks,
            ranges: self.ranges.finish(),
            bytes: self.sent,
            sha256: self.sha256.finalize().into(),
            md5: self.md5.map(|md5| md5.finalize().into()),
        })
    }

    fn position(&self) -> u64 {
        self.sent + self.gathered.len() as u64
    }

    fn content(&mut self, content: &Bytes, stream: Stream) -> Result<(), Ended> {
        // An empty large object has no chunk at all: a chunk of length zero is the terminator.
        if let (Stream::Chunks { layout } | Stream::Zlib { layout, .. }, false) = (stream, content.is_empty()) {
            layout.chunk(content.len(), &mut self.gathered);
        }
        self.put(content)
    }

    fn squeezed(&mut self, piece: &Squeezed, stream: Stream) -> Result<(), Ended> {
        match stream {
            Stream::Bare | Stream::Chunks { .. } => self.content(&piece.bytes, stream),
            Stream::Zlib { layout, first, last } => {
                // One zlib stream for the whole table: pg_restore 15 and 18 loop for ever on two.
                self.adler = if first {
                    piece.adler
                } else {
                    zlib_rs::adler32::adler32_combine(self.adler, piece.adler, piece.content_length)
                };
                let around = if first { ZLIB_HEADER.len() } else { 0 } + if last { 4 } else { 0 };
                layout.chunk(piece.bytes.len() + around, &mut self.gathered);
                if first {
                    self.gathered.extend_from_slice(&ZLIB_HEADER);
                }
                self.put(&piece.bytes)?;
                if last {
                    self.gathered.extend_from_slice(&self.adler.to_be_bytes());
                }
                Ok(())
            }
        }
    }

    fn put(&mut self, bytes: &Bytes) -> Result<(), Ended> {
        if bytes.len() < SLICE {
            self.gathered.extend_from_slice(bytes);
            return Ok(());
        }
        self.flush()?;
        self.ranges.passed(bytes);
        self.send(bytes)
    }

    fn flush(&mut self) -> Result<(), Ended> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        self.ranges.flushed(&self.gathered);
        // Copied to its length: the buffer may be far larger, and the copy waits for its part.
        let gathered = Bytes::copy_from_slice(&self.gathered);
        self.gathered.clear();
        self.send(&gathered)
    }

    fn send(&mut self, bytes: &Bytes) -> Result<(), Ended> {
        self.sha256.update(bytes);
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        self.sent += bytes.len() as u64;
        let began = Instant::now();
        let sent = self.outlets.send(bytes);
        self.waited.since(began);
        sent
    }
}
