//! Compression in pieces: a worker compresses one piece of content independently of the others, so that all cores can
//! work on one stream.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use flate2::{Compress, Compression, FlushCompress};
use zstd::bulk::Compressor;
use zstd::zstd_safe::{self, CParameter, Strategy};

/// Content is compressed in pieces of this size. It is zstd's window at its default level, so the cut does not make
/// the ratio worse. It is small enough that the pieces in progress, two per thread, take a few MiB.
pub const PIECE: usize = 2 << 20;

/// How far back deflate can refer, and so how much of the piece before primes the next.
const DEFLATE_WINDOW: usize = 32 << 10;

/// The manifest's compression: an algorithm with its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    None,
    Zstd(i32),
    Gzip(u32),
    /// zstd, as hard as time allows: [`Codec::ladder`].
    AutoZstd,
    AutoGzip,
}

/// How hard a worker works on one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    None,
    /// zstd's own parameters for a level.
    Zstd(i32),
    /// zstd's fast match finder, with a table of 128 Ki entries and matches of 7 bytes and more. On rows, as measured
    /// (docs/performance.md), its output is as small as that of level 3 within a few percent, smaller on numbers, and
    /// it takes a tenth to three quarters less time.
    Rows,
    /// zstd's double fast finder, with smaller tables than level 3 and matches of 6 bytes: the tables stay in the
    /// processor's cache. Smaller and cheaper than level 3.
    DenseRows,
    Gzip(u32),
}

impl Effort {
    /// The level of zstd or zlib that is nearest in size and cost.
    pub fn level(self) -> i32 {
        match self {
            Effort::None => 0,
            Effort::Zstd(level) => level,
            Effort::Rows => 2,
            Effort::DenseRows => 3,
            Effort::Gzip(level) => level as i32,
        }
    }
}

impl Codec {
    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Zstd(_) | Codec::AutoZstd => "zstd",
            Codec::Gzip(_) | Codec::AutoGzip => "gzip",
        }
    }

    /// The level that it starts with.
    pub fn level(self) -> i32 {
        let (ladder, usual) = self.ladder();
        ladder[usual].level()
    }

    /// The efforts, from the one for a busy processor to the one for a slow store, and which of them is the usual
    /// one. Only one if the user set the level.
    pub fn ladder(self) -> (Vec<Effort>, usize) {
        match self {
            Codec::None => (vec![Effort::None], 0),
            Codec::Zstd(level) => (vec![Effort::Zstd(level)], 0),
            Codec::Gzip(level) => (vec![Effort::Gzip(level)], 0),
            Codec::AutoZstd => {
                let (quick, hard, hardest) = (Effort::Zstd(1), Effort::Zstd(6), Effort::Zstd(9));
                (vec![quick, Effort::Rows, Effort::DenseRows, hard, hardest], 1)
            }
            Codec::AutoGzip => (vec![Effort::Gzip(6), Effort::Gzip(9)], 0),
        }
    }
}

/// The form of a compressed piece.
#[derive(Debug)]
pub enum Shape {
    /// A whole zstd frame with its content's checksum.
    ZstdFrame,
    /// A part of one raw deflate stream: it ends with a sync flush, so that the next part can be appended, or it
    /// finishes the stream. `before` is the piece before it, which primes the compressor.
    Deflate { before: Option<Arc<Vec<u8>>>, last: bool },
    /// A whole gzip member.
    GzipMember,
}

/// One piece for one worker.
pub struct PieceJob {
    pub content: Arc<Vec<u8>>,
    pub shape: Shape,
    pub effort: Effort,
    pub answer: Sender<io::Result<Squeezed>>,
}

/// A compressed piece. `adler` is the content's checksum, for zlib's trailer.
#[derive(Debug)]
pub struct Squeezed {
    pub bytes: Bytes,
    pub adler: u32,
    pub content_length: u64,
}

/// One worker: takes jobs until there are no more senders. It keeps its context and its output buffer, since making
/// them costs more than a small piece. It keeps only those of the last effort, since the tables of the harder efforts
/// are large.
pub fn work(jobs: &Receiver<PieceJob>) {
    let mut worker = Worker::default();
    for job in jobs {
        let squeezed = worker.squeeze(&job);
        // If the run has failed elsewhere, no thread waits for the answer.
        let _ = job.answer.send(squeezed);
    }
}

#[derive(Default)]
struct Worker {
    deflate: Option<(u32, Compress)>,
    zstd: Option<(Effort, Compressor<'static>)>,
    out: Vec<u8>,
}

impl Worker {
    fn squeeze(&mut self, job: &PieceJob) -> io::Result<Squeezed> {
        let content = &job.content[..];
        let mut adler = 1;
        match (&job.shape, job.effort) {
            (Shape::ZstdFrame, effort) => self.zstd_frame(content, effort)?,
            (Shape::Deflate { before, last }, Effort::Gzip(level)) => {
                adler = zlib_rs::adler32::adler32(1, content);
                self.deflate(content, level, before.as_deref().map(Vec::as_slice), *last)?;
            }
            (Shape::GzipMember, Effort::Gzip(level)) => {
                self.out.clear();
                let mut encoder = flate2::write::GzEncoder::new(&mut self.out, Compression::new(level));
                encoder.write_all(content)?;
                encoder.finish()?;
            }
            (shape, effort) => return Err(io::Error::other(format!("{effort:?} does not give {shape:?}"))),
        }
        Ok(Squeezed {
            // Exactly as long as needed: it may wait until its part is sent.
            bytes: Bytes::copy_from_slice(&self.out),
            adler,
            content_length: content.len() as u64,
        })
    }

    fn zstd_frame(&mut self, content: &[u8], effort: Effort) -> io::Result<()> {
        let compressor = match self.zstd.take() {
            Some(known) if known.0 == effort => self.zstd.insert(known),
            _ => self.zstd.insert((effort, compressor(effort)?)),
        };
        self.out.clear();
        self.out.reserve(zstd_safe::compress_bound(content.len()));
        compressor.1.compress_to_buffer(content, &mut self.out)?;
        // pg_restore drops, without a message, what follows a frame's end in a chunk. So the chunk must hold exactly
        // one frame.
        match zstd_safe::find_frame_compressed_size(&self.out) {
            Ok(length) if length == self.out.len() => Ok(()),
            _ => Err(io::Error::other("zstd did not give exactly one frame")),
        }
    }

    fn deflate(&mut self, content: &[u8], level: u32, before: Option<&[u8]>, last: bool) -> io::Result<()> {
        let (_, deflate) = match self.deflate.take() {
            Some(known) if known.0 == level => self.deflate.insert(known),
            _ => self
                .deflate
                .insert((level, Compress::new(Compression::new(level), false))),
        };
        deflate.reset();
        if let Some(before) = before {
            let window = &before[before.len().saturating_sub(DEFLATE_WINDOW)..];
            deflate.set_dictionary(window).map_err(io::Error::other)?;
        }
        let flush = if last {
            FlushCompress::Finish
        } else {
            FlushCompress::Sync
        };
        let out = &mut self.out;
        out.clear();
        out.reserve(content.len() / 2 + 1024);
        loop {
            let taken = deflate.total_in() as usize;
            let status = deflate
                .compress_vec(&content[taken..], out, flush)
                .map_err(io::Error::other)?;
            let done = match status {
                flate2::Status::StreamEnd => true,
                // A flush is complete if the output buffer was not filled.
                _ => !last && deflate.total_in() as usize == content.len() && out.len() < out.capacity(),
            };
            if done {
                return Ok(());
            }
            out.reserve(64 << 10);
        }
    }
}

fn compressor(effort: Effort) -> io::Result<Compressor<'static>> {
    let level = if let Effort::Zstd(level) = effort { level } else { 1 };
    let mut compressor = Compressor::new(level)?;
    let (strategy, tables, shortest) = match effort {
        Effort::Rows => (Strategy::ZSTD_fast, (12, 17), 7),
        Effort::DenseRows => (Strategy::ZSTD_dfast, (15, 16), 6),
        _ => {
            compressor.set_parameter(CParameter::ChecksumFlag(true))?;
            return Ok(compressor);
        }
    };
    for parameter in [
        CParameter::ChecksumFlag(true),
        CParameter::Strategy(strategy),
        CParameter::WindowLog(PIECE.ilog2()),
        CParameter::ChainLog(tables.0),
        CParameter::HashLog(tables.1),
        CParameter::SearchLog(1),
        CParameter::MinMatch(shortest),
        CParameter::TargetLength(0),
    ] {
        compressor.set_parameter(parameter)?;
    }
    Ok(compressor)
}
