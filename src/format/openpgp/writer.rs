//! Writes a message in one pass, and keeps track of places between its bytes. It holds little more than a piece of each
//! packet.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use sha1::{Digest, Sha1};

use super::cfb::{BLOCK, Encryptor};
use super::cut::header;
use super::error::KeyError;
use super::head::Head;
use super::layout::{DIGEST_START, LITERAL_START, PREFIX, Shape, VERSION, before};
use super::packet::{DATA, LITERAL};
use super::session_key::{SessionKey, random};

/// Encrypted bytes that are kept back: a mark may belong before the last of them, because the length before a piece is
/// known only when the piece is whole.
const KEPT: usize = 4 * BLOCK;

/// Smaller slices are gathered, so that few of them wait for the stores.
const SLICE: usize = 128 << 10;

/// What of a part of the content a mark stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// All stored bytes that are needed to read the content from here on come after the mark.
    Begin,
    /// All stored bytes that are needed to read the content up to here come before the mark.
    End,
}

/// The stored bytes, with the marks between them.
#[derive(Debug)]
pub enum Written<M> {
    Bytes(Bytes),
    Mark(M),
}

/// Takes the content, and returns the message. The marks of one side keep their order.
pub struct Writer<M> {
    cipher: Encryptor,
    sha1: Sha1,
    /// The literal packet's piece that is not whole.
    piece: Vec<u8>,
    /// The marks in this piece, with the number of bytes before each.
    open: Vec<(usize, Side, M)>,
    /// Whether the literal packet's first piece is written.
    begun: bool,
    /// The data packet's body, as far as it is not passed on. Its end, shorter than a block, is not yet encrypted.
    body: BytesMut,
    encrypted: usize,
    /// How much of the body is passed on.
    passed: u64,
    /// The marks in the body from there on.
    begins: VecDeque<(u64, M)>,
    ends: VecDeque<(u64, M)>,
    /// What is passed on, up to the end of `written`.
    passing: BytesMut,
    written: VecDeque<Written<M>>,
}

impl<M> Writer<M> {
    /// In [`Shape::OURS`].
    pub fn new(head: &Head, key: &SessionKey) -> Result<Self, KeyError> {
        let mut prefix = [0; PREFIX as usize];
        random(&mut prefix[..BLOCK])?;
        prefix.copy_within(BLOCK - 2..BLOCK, BLOCK);
        let mut writer = Self {
            cipher: Encryptor::new(key),
            sha1: Sha1::new(),
            piece: LITERAL_START.to_vec(),
            open: Vec::new(),
            begun: false,
            body: BytesMut::from(&[1][..]),
            encrypted: VERSION as usize,
            passed: 0,
            begins: VecDeque::new(),
            ends: VecDeque::new(),
            passing: BytesMut::from(&head.bytes()[..]),
            written: VecDeque::new(),
        };
        writer.append(&prefix);
        Ok(writer)
    }

    /// What can be stored already.
    pub fn written(&mut self) -> Option<Written<M>> {
        if self.written.is_empty() && self.passing.len() >= SLICE {
            self.end_slice();
        }
        self.written.pop_front()
    }

    pub fn push(&mut self, mut content: &[u8]) {
        while !content.is_empty() {
            let room = (1 << Shape::OURS.inner) - self.piece.len();
            let (taken, rest) = content.split_at(room.min(content.len()));
            self.piece.extend_from_slice(taken);
            content = rest;
            if taken.len() == room {
                self.end_piece(None);
            }
        }
    }

    /// Sets a mark at the end of the content so far.
    pub fn mark(&mut self, side: Side, mark: M) {
        match side {
            // The byte before it has its place.
            Side::End if self.piece.is_empty() => self.ends.push_back((self.end_of_body(), mark)),
            _ => self.open.push((self.piece.len(), side, mark)),
        }
    }

    /// The content has ended: the rest of the message can be stored.
    pub fn finish(&mut self) {
        self.end_piece(Some(self.piece.len() as u32));
        self.append(&DIGEST_START);
        let digest = std::mem::take(&mut self.sha1).finalize();
        self.encrypt(&digest);
        let last = &mut self.body[self.encrypted..];
        self.cipher.encrypt_last(last);
        let size = 1 << Shape::OURS.outer;
        while self.body.len() >= size {
            self.pass_on(size, None);
        }
        let rest = self.body.len();
        self.pass_on(rest, Some(rest as u32));
        self.end_slice();
    }

    fn end_of_body(&self) -> u64 {
        self.passed + self.body.len() as u64
    }

    /// Ends the literal packet's piece, whose marks get their places.
    fn end_piece(&mut self, last: Option<u32>) {
        let header = header(LITERAL, Shape::OURS.inner, !self.begun, last);
        self.begun = true;
        self.append(&header);
        let begin = self.end_of_body();
        for (before_it, side, mark) in std::mem::take(&mut self.open) {
            let at = begin + before_it as u64;
            match side {
                Side::Begin => self.begins.push_back((before(at - VERSION) + VERSION, mark)),
                Side::End => self.ends.push_back((at, mark)),
            }
        }
        let mut piece = std::mem::take(&mut self.piece);
        self.append(&piece);
        piece.clear();
        self.piece = piece;
    }

    fn append(&mut self, bytes: &[u8]) {
        self.sha1.update(bytes);
        self.encrypt(bytes);
        let size = 1 << Shape::OURS.outer;
        while self.body.len() >= size + KEPT {
            self.pass_on(size, None);
        }
    }

    fn encrypt(&mut self, bytes: &[u8]) {
        self.body.extend_from_slice(bytes);
        self.encrypted += self.cipher.encrypt(&mut self.body[self.encrypted..]);
    }

    /// Passes on a piece of the data packet, with the marks in it.
    fn pass_on(&mut self, length: usize, last: Option<u32>) {
        let header = header(DATA, Shape::OURS.outer, self.passed == 0, last);
        self.passing.extend_from_slice(&header);
        let mut piece = self.body.split_to(length);
        let (begin, end) = (self.passed, self.passed + length as u64);
        let mut at = begin;
        self.passed = end;
        self.encrypted = self.encrypted.saturating_sub(length);
        loop {
            // What begins at the end belongs after the next header.
            let next_begin = self
                .begins
                .front()
                .map(|(place, _)| *place)
                .filter(|place| *place < end || last.is_some());
            let next_end = self.ends.front().map(|(place, _)| *place).filter(|place| *place <= end);
            let (place, side) = match (next_begin, next_end) {
                (None, None) => break,
                (Some(begin), Some(end)) if begin <= end => (begin, Side::Begin),
                (_, Some(end)) => (end, Side::End),
                (Some(begin), None) => (begin, Side::Begin),
            };
            let bytes = piece.split_to((place.clamp(at, end) - at) as usize);
            at = place.clamp(at, end);
            self.passing.extend_from_slice(&bytes);
            self.end_slice();
            let mark = match side {
                Side::Begin => self.begins.pop_front(),
                Side::End => self.ends.pop_front(),
            };
            self.written.extend(mark.map(|(_, mark)| Written::Mark(mark)));
        }
        self.passing.extend_from_slice(&piece);
    }

    fn end_slice(&mut self) {
        if !self.passing.is_empty() {
            let slice = self.passing.split().freeze();
            self.written.push_back(Written::Bytes(slice));
        }
    }
}
