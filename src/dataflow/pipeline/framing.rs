//! Joins the pieces again in order: adds the format's frames, and records where each block and range is.

use std::io;

use bytes::Bytes;
use crossbeam_channel::Receiver;

use super::ended::Ended;
use super::passing::{Mark, Passing};
use super::ranges::Ranges;
use super::seal::{Sealed, SealedFile};
use super::stage::Stages;
use crate::dataflow::compress::Squeezed;
use crate::error::Error;
use crate::format::archive::{Layout, SealedRange};

/// Shorter pieces are collected up to this size before they are passed on; longer ones are passed on as they are, in
/// the buffer in which they were made.
const SLICE: usize = 128 << 10;

/// zlib's header: deflate, 32 KiB window, default level.
const ZLIB_HEADER: [u8; 2] = [0x78, 0x9c];

/// The input of the framing, in the order of the file's bytes.
pub(super) enum Ordered {
    /// Bytes that are passed on unchanged.
    Bytes(Vec<u8>),
    /// A block's first bytes.
    BeginBlock(Vec<u8>),
    /// The block's chunks follow, and may be in ranges.
    BeginRange,
    /// A range ends here: the rows and bytes of text since the block began.
    EndRange { rows: u64, bytes: u64 },
    /// A block's last bytes.
    EndBlock(Vec<u8>),
    /// A block that is in an earlier archive, and not in this one.
    Elsewhere,
    /// A piece of content that is stored uncompressed.
    Content(Vec<u8>, Around),
    /// A piece that a worker is compressing.
    Squeezed(Receiver<io::Result<Squeezed>>, Around),
}

/// The frame around a piece.
#[derive(Debug, Clone, Copy)]
pub(super) enum Around {
    /// Nothing: plain SQL.
    Bare,
    /// A chunk of its own.
    Chunks { layout: Layout },
    /// A chunk with its part of the one zlib stream: header, deflate, trailer.
    Zlib { layout: Layout, first: bool, last: bool },
}

/// The place of a block in the file's content, from its type byte to its terminator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockPlace {
    pub offset: u64,
    pub length: u64,
}

/// All results, when the last byte has been sealed.
pub(super) struct Written {
    pub(super) blocks: Vec<BlockPlace>,
    /// By block: its ranges, if it has several.
    pub(super) ranges: Vec<Vec<SealedRange>>,
    pub(super) file: SealedFile,
    pub(super) md5: Option<[u8; 16]>,
}

pub(super) struct Framing {
    stages: Stages,
    /// Frames and short pieces.
    gathered: Vec<u8>,
    /// Bytes before `gathered`.
    sent: u64,
    blocks: Vec<BlockPlace>,
    ranges: Ranges,
    adler: u32,
}

impl Framing {
    pub(super) fn new(stages: Stages) -> Self {
        Self {
            stages,
            gathered: Vec::new(),
            sent: 0,
            blocks: Vec::new(),
            ranges: Ranges::default(),
            adler: 1,
        }
    }

    /// Takes the input until the reader is done or has failed; the reader knows which.
    pub(super) fn run(mut self, ordered: &Receiver<Ordered>) -> Result<Written, Ended> {
        for next in ordered {
            self.take(next)?;
            if self.gathered.len() >= SLICE {
                self.flush()?;
            }
        }
        self.flush()?;
        let Sealed { file, md5, stretches } = self.stages.end(self.sent)?;
        let differ = || Ended::Failed(Error::internal("the seal did not find the ranges that were written"));
        let ranges = self.ranges.sealed(stretches).ok_or_else(differ)?;
        Ok(Written {
            blocks: self.blocks,
            ranges,
            file,
            md5,
        })
    }

    fn take(&mut self, ordered: Ordered) -> Result<(), Ended> {
        match ordered {
            Ordered::Bytes(bytes) => self.gathered.extend_from_slice(&bytes),
            Ordered::BeginBlock(frame) => {
                self.blocks.push(BlockPlace {
                    offset: self.position(),
                    length: 0,
                });
                self.gathered.extend_from_slice(&frame);
                self.ranges.begin_block();
            }
            Ordered::Elsewhere => {
                self.blocks.push(BlockPlace {
                    offset: self.position(),
                    length: 0,
                });
                self.ranges.begin_block();
            }
            Ordered::BeginRange => {
                self.mark(Mark::Begin)?;
                self.ranges.begin(self.position());
            }
            Ordered::EndRange { rows, bytes } => {
                self.ranges.end(rows, bytes, self.position());
                self.mark(Mark::End)?;
                self.mark(Mark::Begin)?;
            }
            Ordered::EndBlock(bytes) => {
                if let Some(mark) = self.ranges.end_block(self.position()) {
                    self.mark(mark)?;
                }
                self.gathered.extend_from_slice(&bytes);
                let end = self.position();
                if let Some(block) = self.blocks.last_mut() {
                    block.length = end - block.offset;
                }
            }
            Ordered::Content(content, around) => self.content(&Bytes::from(content), around)?,
            Ordered::Squeezed(answer, around) => {
                let squeezed = answer
                    .recv()
                    .map_err(|_| Ended::Failed(Error::internal("a compression thread died")))?
                    .map_err(|error| Ended::Failed(Error::internal("compression failed").source(error)))?;
                self.squeezed(&squeezed, around)?;
            }
        }
        Ok(())
    }

    fn position(&self) -> u64 {
        self.sent + self.gathered.len() as u64
    }

    fn content(&mut self, content: &Bytes, around: Around) -> Result<(), Ended> {
        // An empty large object has no chunk: a chunk of length zero is the terminator.
        if let (Around::Chunks { layout } | Around::Zlib { layout, .. }, false) = (around, content.is_empty()) {
            layout.chunk(content.len(), &mut self.gathered);
        }
        self.put(content)
    }

    fn squeezed(&mut self, piece: &Squeezed, around: Around) -> Result<(), Ended> {
        match around {
            Around::Bare | Around::Chunks { .. } => self.content(&piece.bytes, around),
            Around::Zlib { layout, first, last } => {
                // One zlib stream for the whole table: pg_restore 15 and 18 loop for ever on two.
                self.adler = if first {
                    piece.adler
                } else {
                    zlib_rs::adler32::adler32_combine(self.adler, piece.adler, piece.content_length)
                };
                let more = if first { ZLIB_HEADER.len() } else { 0 } + if last { 4 } else { 0 };
                layout.chunk(piece.bytes.len() + more, &mut self.gathered);
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
        self.send(bytes.clone())
    }

    /// The offset after all bytes so far.
    fn mark(&mut self, mark: Mark) -> Result<(), Ended> {
        self.flush()?;
        self.stages.pass(Passing::Mark(mark))
    }

    fn flush(&mut self) -> Result<(), Ended> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        // Copied at its exact length: the buffer may be far larger, and the copy waits until its part is sent.
        let gathered = Bytes::copy_from_slice(&self.gathered);
        self.gathered.clear();
        self.send(gathered)
    }

    fn send(&mut self, bytes: Bytes) -> Result<(), Ended> {
        self.sent += bytes.len() as u64;
        self.stages.pass(Passing::Bytes(bytes))
    }
}
