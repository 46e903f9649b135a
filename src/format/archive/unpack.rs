//! Decompresses blocks, by the rules of stock pg_restore: data that it would silently lose is an error here.

use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{Decoder as ZstdDecoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::DParameter;

use super::{ArchiveError, BlockCompression, BlockSink};

/// Content is passed on in slices of at most this size.
const SLICE: usize = 1 << 20;
/// pgstow's frames hold 2 MiB. A frame that needs more memory than this is not from pgstow, and may be made to exhaust
/// the memory.
const ZSTD_WINDOW_LOG: u32 = 24;

/// A [`BlockSink`] for stored blocks that passes their content to another sink.
pub struct Unpack<S> {
    inner: S,
    compression: BlockCompression,
    stream: Option<Stream>,
    /// Whether data has come since the block began.
    touched: bool,
    slice: Box<[u8]>,
}

enum Stream {
    Plain,
    Zlib {
        decoder: Box<Decompress>,
        ended: bool,
    },
    Zstd {
        decoder: Box<ZstdDecoder<'static>>,
        /// Between two frames: only there may the stream end.
        between: bool,
        /// A frame has ended in the current chunk.
        ended_in_chunk: bool,
    },
}

impl<S: BlockSink> Unpack<S> {
    pub fn new(compression: BlockCompression, inner: S) -> Self {
        Self {
            inner,
            compression,
            stream: None,
            touched: false,
            slice: vec![
                0;
                if compression == BlockCompression::None {
                    0
                } else {
                    SLICE
                }
            ]
            .into(),
        }
    }

    pub fn inner(&mut self) -> &mut S {
        &mut self.inner
    }

    fn begin_stream(&mut self) -> Result<(), ArchiveError> {
        self.stream = Some(match self.compression {
            BlockCompression::None => Stream::Plain,
            BlockCompression::Gzip => Stream::Zlib {
                decoder: Box::new(Decompress::new(true)),
                ended: false,
            },
            BlockCompression::Zstd => {
                let mut decoder = ZstdDecoder::new()?;
                decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))?;
                Stream::Zstd {
                    decoder: Box::new(decoder),
                    between: false,
                    ended_in_chunk: false,
                }
            }
            BlockCompression::Lz4 => return Err(content("it is compressed with lz4, which pgstow does not write")),
        });
        Ok(())
    }

    fn end_stream(&mut self) -> Result<(), ArchiveError> {
        match self.stream.take() {
            Some(Stream::Zlib { ended: false, .. } | Stream::Zstd { between: false, .. }) => {
                Err(content("its compressed stream is cut"))
            }
            _ => Ok(()),
        }
    }
}

impl<S: BlockSink> BlockSink for Unpack<S> {
    fn begin(&mut self, index: usize) -> Result<(), ArchiveError> {
        self.inner.begin(index)?;
        self.touched = false;
        self.begin_stream()
    }

    fn begin_object(&mut self, oid: i64) -> Result<(), ArchiveError> {
        self.inner.begin_object(oid)?;
        self.touched = true;
        self.begin_stream()
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.touched = true;
        match self.stream.as_mut() {
            None => Err(content("it has data outside of any stream")),
            Some(Stream::Plain) => self.inner.data(bytes),
            Some(Stream::Zlib { decoder, ended }) => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    if *ended {
                        return Err(content("its compressed stream is followed by more bytes"));
                    }
                    let (read, written) = (decoder.total_in(), decoder.total_out());
                    let status = decoder
                        .decompress(rest, &mut self.slice, FlushDecompress::None)
                        .map_err(|error| content(format!("it does not decompress: {error}")))?;
                    *ended = status == Status::StreamEnd;
                    let read = (decoder.total_in() - read) as usize;
                    let written = (decoder.total_out() - written) as usize;
                    if read == 0 && written == 0 && !*ended {
                        return Err(content("it does not decompress: its stream does not continue"));
                    }
                    rest = &rest[read..];
                    self.inner.data(&self.slice[..written])?;
                }
                Ok(())
            }
            Some(Stream::Zstd {
                decoder,
                between,
                ended_in_chunk,
            }) => {
                let mut input = InBuffer::around(bytes);
                loop {
                    if *ended_in_chunk {
                        if input.pos() == bytes.len() {
                            return Ok(());
                        }
                        return Err(content(
                            "a zstd frame ends within a chunk: pg_restore would silently lose the bytes after it",
                        ));
                    }
                    let mut output = OutBuffer::around(&mut self.slice[..]);
                    let hint = decoder
                        .run(&mut input, &mut output)
                        .map_err(|error| content(format!("it does not decompress: {error}")))?;
                    let written = output.pos();
                    *between = hint == 0;
                    *ended_in_chunk = *between;
                    self.inner.data(&self.slice[..written])?;
                    // If the slice is full, the decoder may hold more output.
                    if input.pos() == bytes.len() && written < self.slice.len() && !*between {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn end_chunk(&mut self) -> Result<(), ArchiveError> {
        if let Some(Stream::Zstd { ended_in_chunk, .. }) = &mut self.stream {
            *ended_in_chunk = false;
        }
        Ok(())
    }

    fn end_object(&mut self) -> Result<(), ArchiveError> {
        self.end_stream()?;
        self.inner.end_object()
    }

    fn end(&mut self, at: u64) -> Result<(), ArchiveError> {
        // A block of large objects ends between their streams, or without any. A table without a stream lacks COPY's
        // end; the next sink finds that.
        if self.touched {
            self.end_stream()?;
        }
        self.inner.end(at)
    }
}

fn content(what: impl Into<String>) -> ArchiveError {
    ArchiveError::Content(what.into())
}
