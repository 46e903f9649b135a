//! One frame: compressed with its checksum, and decompressed within its limits.

use std::io;

use zstd::bulk::Compressor;
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::{CParameter, DParameter};

use super::limits;

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// In the byte after the magic number: the frame ends with a checksum of its content.
const CHECKSUM: u8 = 1 << 2;
/// The buffer grows in steps of this size, so a frame must hold what it announces before it gets the memory.
const STEP: usize = 4 << 20;

pub(super) fn compressor(level: i32) -> io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(level)?;
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    Ok(compressor)
}

/// Decompresses frames into a buffer that stays.
pub(super) struct Unpack {
    decoder: Decoder<'static>,
    /// The content of the last frame.
    pub content: Vec<u8>,
}

impl Unpack {
    pub fn new() -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(limits::WINDOW_LOG))?;
        Ok(Self {
            decoder,
            content: Vec::new(),
        })
    }

    /// Decompresses exactly one frame with `length` bytes of content, whose checksum must be right.
    pub fn unpack(&mut self, frame: &[u8], length: u64) -> Result<(), &'static str> {
        self.content.clear();
        let (magic, rest) = frame.split_first_chunk::<4>().ok_or("is cut")?;
        if *magic != MAGIC || rest.first().is_none_or(|flags| flags & CHECKSUM == 0) {
            return Err("is not a zstd frame with a checksum");
        }
        let length = usize::try_from(length).map_err(|_| "is too long")?;
        self.decoder.reinit().map_err(|_| "cannot be decompressed")?;
        let mut input = InBuffer::around(frame);
        loop {
            let missing = length.saturating_sub(self.content.len());
            // One more byte than expected tells a frame that is too long.
            self.content.reserve((missing + 1).min(STEP));
            let (read, written) = (input.pos(), self.content.len());
            let mut output = OutBuffer::around_pos(&mut self.content, written);
            let hint = self.decoder.run(&mut input, &mut output);
            let hint = hint.map_err(|_| "is damaged: it cannot be decompressed, or its checksum is wrong")?;
            if self.content.len() > length {
                return Err("holds more than the index says");
            }
            if hint == 0 {
                break;
            }
            if input.pos() == read && self.content.len() == written {
                return Err("is cut");
            }
        }
        match (self.content.len() == length, input.pos() == frame.len()) {
            (false, _) => Err("holds less than the index says"),
            (_, false) => Err("is followed by other bytes"),
            _ => Ok(()),
        }
    }
}
