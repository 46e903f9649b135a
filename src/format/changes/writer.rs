//! Writes a file of changes. It holds one frame, the index, and nothing else, whatever the size of a transaction.

use sha2::{Digest, Sha256};
use zstd::bulk::Compressor;

use super::error::ChangesError;
use super::frame;
use super::head::Head;
use super::index::{Building, Ended};
use super::limits;
use super::summary::{ChangesSummary, IndexPlace};
use super::track::{Track, Transaction};
use crate::format::Lsn;
use crate::format::pgoutput::Message;

/// Takes messages in the order of the stream, and gives the bytes of the file: from time to time by
/// [`Writer::push`], and at the end by [`Writer::finish`].
pub struct Writer {
    compressor: Compressor<'static>,
    track: Track,
    index: Building,
    /// The bytes that begin the file, until the first frame takes them along.
    head: Vec<u8>,
    /// The content of the frame that has not ended.
    raw: Vec<u8>,
    raw_bytes: u64,
    /// Where the next frame begins.
    offset: u64,
}

impl Writer {
    /// `level` is that of zstd, 1 to 19.
    pub fn new(head: &Head, level: i32) -> Result<Self, ChangesError> {
        Ok(Self {
            compressor: frame::compressor(level.clamp(1, 19))?,
            track: Track::new(head.from),
            index: Building::default(),
            head: head.to_bytes(),
            raw: Vec::new(),
            raw_bytes: 0,
            offset: Head::LENGTH as u64,
        })
    }

    /// Takes one message, and returns the next bytes of the file if a frame has ended. A message that is none, or that
    /// does not follow the messages before, is an error: nothing more can be written then.
    pub fn push(&mut self, message: &[u8]) -> Result<Option<Vec<u8>>, ChangesError> {
        let (frame, after) = (self.index.frames(), self.track.position);
        let length = u32::try_from(message.len())
            .ok()
            .filter(|_| message.len() <= limits::MESSAGE);
        let length = length.ok_or(ChangesError::Frame {
            frame,
            why: "would have a longer message than a server sends",
        })?;
        let parsed = Message::parse(message).map_err(|why| ChangesError::Message { frame, after, why })?;
        let taken = self.track.take(&parsed);
        taken.map_err(|why| ChangesError::Misplaced { frame, after, why })?;
        self.index.take(&parsed, message);
        self.raw.extend_from_slice(&length.to_be_bytes());
        self.raw.extend_from_slice(message);
        let is_full = self.raw.len() >= limits::SPLIT || (self.raw.len() >= limits::FRAME && !self.is_inside());
        is_full.then(|| self.end_frame()).transpose()
    }

    /// The transaction that has begun and not ended: the file cannot end here.
    pub fn open(&self) -> Option<&Transaction> {
        self.track.open.as_ref()
    }

    pub fn is_inside(&self) -> bool {
        self.track.open.is_some()
    }

    /// The end of the last transaction; first, the position after which the file begins.
    pub fn position(&self) -> Lsn {
        self.track.position
    }

    /// The transactions that have ended.
    pub fn transactions(&self) -> u64 {
        self.track.transactions
    }

    /// The bytes of the file so far, without the frame that has not ended.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// Ends the file between two transactions. Returns its last bytes and its summary. `to`: the server has sent
    /// everything up to this position.
    pub fn finish(mut self, to: Lsn) -> Result<(Vec<u8>, ChangesSummary), ChangesError> {
        if self.is_inside() {
            return Err(ChangesError::Unfinished);
        }
        if to < self.track.position {
            return Err(ChangesError::EndsBefore {
                to,
                end: self.track.position,
            });
        }
        let mut bytes = match self.raw.is_empty() {
            true => std::mem::take(&mut self.head),
            false => self.end_frame()?,
        };
        let index = self.index.end(self.offset, to);
        let times = index.times();
        let index = index.to_bytes();
        let index = index.ok_or(ChangesError::Index("would be longer than can be read again"))?;
        bytes.extend_from_slice(&index);
        let summary = ChangesSummary {
            position: self.track.position,
            transactions: self.track.transactions,
            commits: self.track.commits,
            tables: self.track.tables(),
            raw_bytes: self.raw_bytes,
            bytes: self.offset + index.len() as u64,
            index: IndexPlace {
                offset: self.offset,
                length: index.len() as u64,
                sha256: Sha256::digest(&index).into(),
                times,
            },
        };
        Ok((bytes, summary))
    }

    fn end_frame(&mut self) -> Result<Vec<u8>, ChangesError> {
        let frame = self.compressor.compress(&self.raw)?;
        let ended = Ended {
            offset: self.offset,
            length: frame.len() as u64,
            raw: self.raw.len() as u64,
            sha256: Sha256::digest(&frame).into(),
        };
        self.index.end_frame(&ended, self.track.open);
        self.offset += ended.length;
        self.raw_bytes += ended.raw;
        self.raw.clear();
        // A message of a gigabyte shall not keep its memory.
        self.raw.shrink_to(2 * limits::SPLIT);
        let mut bytes = std::mem::take(&mut self.head);
        match bytes.is_empty() {
            true => Ok(frame),
            false => {
                bytes.extend_from_slice(&frame);
                Ok(bytes)
            }
        }
    }
}
