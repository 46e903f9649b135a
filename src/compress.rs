//! Compression in pieces: what one worker does to one piece of content, independent of the
//! others, so that all cores can work on one stream.

use std::io::{self, Write};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use flate2::{Compress, Compression, FlushCompress};
use zstd::zstd_safe::{self, CParameter};

/// Content is compressed in pieces of this size: zstd's window at its default level, so that the
/// ratio does not suffer from the cut; and small enough that the pieces in flight, two per thread,
/// are a few MiB.
pub const PIECE: usize = 2 << 20;

/// How far back deflate can refer, and so how much of the piece before primes the next.
const DEFLATE_WINDOW: usize = 32 << 10;

/// What the manifest names: an algorithm with its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    None,
    Zstd(i32),
    Gzip(u32),
}

impl Codec {
    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Zstd(_) => "zstd",
            Codec::Gzip(_) => "gzip",
        }
    }

    pub fn level(self) -> i32 {
        match self {
            Codec::None => 0,
            Codec::Zstd(level) => level,
            Codec::Gzip(level) => level as i32,
        }
    }
}

/// In which shape a piece must come out.
#[derive(Debug)]
pub enum Shape {
    /// A whole zstd frame with its content's checksum.
    ZstdFrame,
    /// A stretch of one raw deflate stream: ended by a sync flush so that the next can be
    /// appended, or finished. `before` is the piece in front of it, as priming.
    Deflate { before: Option<Arc<Vec<u8>>>, last: bool },
    /// A whole gzip member.
    GzipMember,
}

pub struct Job {
    pub content: Arc<Vec<u8>>,
    pub shape: Shape,
    pub answer: Sender<io::Result<Squeezed>>,
}

/// A compressed piece. `adler` is of the content, for zlib's trailer.
#[derive(Debug)]
pub struct Squeezed {
    pub bytes: Vec<u8>,
    pub adler: u32,
    pub content_length: u64,
}

/// One worker: takes jobs until there are no more senders. A worker keeps its contexts, since
/// making one costs more than a small piece.
pub fn work(jobs: &Receiver<Job>, codec: Codec) {
    let mut worker = Worker::new(codec);
    for job in jobs {
        let squeezed = worker.squeeze(&job.content, &job.shape);
        // Nobody waits any more when the run has failed elsewhere.
        let _ = job.answer.send(squeezed);
    }
}

struct Worker {
    level: Compression,
    deflate: Option<Compress>,
    zstd: io::Result<zstd::bulk::Compressor<'static>>,
}

impl Worker {
    fn new(codec: Codec) -> Self {
        let (zstd_level, gzip_level) = match codec {
            Codec::Zstd(level) => (level, 0),
            Codec::Gzip(level) => (1, level),
            Codec::None => (1, 0),
        };
        let zstd = zstd::bulk::Compressor::new(zstd_level).and_then(|mut compressor| {
            compressor.set_parameter(CParameter::ChecksumFlag(true))?;
            Ok(compressor)
        });
        Self {
            level: Compression::new(gzip_level),
            deflate: None,
            zstd,
        }
    }

    fn squeeze(&mut self, content: &[u8], shape: &Shape) -> io::Result<Squeezed> {
        let mut adler = 1;
        let bytes = match shape {
            Shape::ZstdFrame => self.zstd_frame(content)?,
            Shape::Deflate { before, last } => {
                adler = zlib_rs::adler32::adler32(1, content);
                self.deflate(content, before.as_deref().map(Vec::as_slice), *last)?
            }
            Shape::GzipMember => {
                let member = Vec::with_capacity(content.len() / 2);
                let mut encoder = flate2::write::GzEncoder::new(member, self.level);
                encoder.write_all(content)?;
                encoder.finish()?
            }
        };
        Ok(Squeezed {
            bytes,
            adler,
            content_length: content.len() as u64,
        })
    }

    fn zstd_frame(&mut self, content: &[u8]) -> io::Result<Vec<u8>> {
        let compressor = self
            .zstd
            .as_mut()
            .map_err(|error| io::Error::other(error.to_string()))?;
        let frame = compressor.compress(content)?;
        // pg_restore drops, without a word, what follows a frame's end inside a chunk: so the
        // frame must be the chunk, no more and no less.
        match zstd_safe::find_frame_compressed_size(&frame) {
            Ok(length) if length == frame.len() => Ok(frame),
            _ => Err(io::Error::other("zstd did not give exactly one frame")),
        }
    }

    fn deflate(&mut self, content: &[u8], before: Option<&[u8]>, last: bool) -> io::Result<Vec<u8>> {
        let level = self.level;
        let deflate = self.deflate.get_or_insert_with(|| Compress::new(level, false));
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
        let mut out = Vec::with_capacity(content.len() / 2 + 1024);
        loop {
            let taken = deflate.total_in() as usize;
            let status = deflate
                .compress_vec(&content[taken..], &mut out, flush)
                .map_err(io::Error::other)?;
            let done = match status {
                flate2::Status::StreamEnd => true,
                // A flush is complete when it left room in the output.
                _ => !last && deflate.total_in() as usize == content.len() && out.len() < out.capacity(),
            };
            if done {
                return Ok(out);
            }
            out.reserve(64 << 10);
        }
    }
}
