//! Encryption as a stage of the pipeline, and its way back: the stored bytes are a message of OpenPGP
//! (`format/openpgp`). Places in the content stay what they were, and the digests of ranges cover what is stored.

use std::io::{self, Read};
use std::ops::Range;

use super::pipeline::{Ended, Mark, Onward, Passing, Stage};
use super::stored_file::{Content, Unstage};
use crate::error::{Code, Error, Result};
use crate::format::openpgp::{Head, Layout, MessageError, PartReader, SessionKey, Shape, Side, Writer, Written};

/// The way there. It holds about two pieces of 64 KiB.
pub struct Encrypting(Writer<Mark>);

impl Encrypting {
    pub fn new(head: &Head, key: &SessionKey) -> Result<Self> {
        let writer = Writer::new(head, key);
        writer
            .map(Self)
            .map_err(|why| Error::internal(format!("cannot encrypt: {why}")))
    }

    fn pass_on(&mut self, onward: &mut Onward<'_>) -> Result<(), Ended> {
        while let Some(written) = self.0.written() {
            onward.pass(match written {
                Written::Bytes(bytes) => Passing::Bytes(bytes),
                Written::Mark(mark) => Passing::Mark(mark),
            })?;
        }
        Ok(())
    }
}

impl Stage for Encrypting {
    fn take(&mut self, passing: Passing, onward: &mut Onward<'_>) -> Result<(), Ended> {
        match passing {
            Passing::Bytes(bytes) => self.0.push(&bytes),
            Passing::Mark(Mark::Begin) => self.0.mark(Side::Begin, Mark::Begin),
            Passing::Mark(mark) => self.0.mark(Side::End, mark),
        }
        self.pass_on(onward)
    }

    fn end(&mut self, onward: &mut Onward<'_>) -> Result<(), Ended> {
        self.0.finish();
        self.pass_on(onward)
    }
}

/// The way back, for any part of the content.
///
/// A wrong stored byte becomes a wrong byte of the content: whatever reads here compares a digest, of the stored bytes
/// or of the content, before it passes on the end of what it reads.
#[derive(Debug)]
pub struct Decrypting {
    layout: Layout,
    key: SessionKey,
}

impl Decrypting {
    /// `content` is the content's length, as the manifest has it. `None` if no message has this shape and length.
    pub fn new(shape: Shape, content: u64, key: SessionKey) -> Option<Self> {
        let layout = Layout::new(shape, content)?;
        Some(Self { layout, key })
    }

    /// The length that the stored file must have: gpg does not notice if all after the head is missing.
    pub fn stored_length(&self) -> u64 {
        self.layout.stored_length()
    }

    /// As much of the place as is in the content. A manifest may lie; then it is empty, or shorter.
    fn within(&self, place: &Range<u64>) -> Range<u64> {
        place.start.min(self.layout.content())..place.end.min(self.layout.content())
    }
}

impl Unstage for Decrypting {
    fn stored(&self, content: &Range<u64>) -> Range<u64> {
        let place = self.within(content);
        match place.is_empty() {
            true => self.stored_length()..self.stored_length(),
            false => self.layout.stored(&place),
        }
    }

    fn undo(&self, content: Range<u64>, stored: Content) -> Content {
        if content.is_empty() {
            return Box::new(io::empty());
        }
        let place = self.within(&content);
        if place != content {
            return Box::new(Refused);
        }
        Box::new(Decrypted(PartReader::new(&self.layout, &self.key, &place, stored)))
    }
}

/// A place that is not in the content.
struct Refused;

impl Read for Refused {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(unreadable(&MessageError::Cut))
    }
}

struct Decrypted(PartReader<Content>);

impl Read for Decrypted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into).map_err(|error| {
            let why = error.get_ref().and_then(|inner| inner.downcast_ref::<MessageError>());
            match why {
                Some(why) => unreadable(why),
                None => error,
            }
        })
    }
}

fn unreadable(why: &MessageError) -> io::Error {
    io::Error::other(Error::new(
        Code::Integrity,
        format!("an encrypted file cannot be decrypted: {why}"),
    ))
}
