//! Reads the messages of some or all frames, each frame only after its digest and its checksum were right.

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::error::ChangesError;
use super::frame::Unpack;
use super::index::Index;
use super::limits;
use super::selection::Selection;
use super::track::{Track, Transaction};
use crate::format::Lsn;
use crate::format::pgoutput::{Message, Relation};

/// One message with all that is known at it.
#[derive(Debug)]
pub struct Item<'a> {
    pub frame: usize,
    /// The transaction that it belongs to, also at its Begin and Commit. `None` for a logical message between two
    /// transactions.
    pub transaction: Option<Transaction>,
    pub message: Message<'a>,
    /// The description of the table that an insert, an update or a delete changes.
    pub relation: Option<&'a Relation>,
    /// The message as the server sent it.
    pub bytes: &'a [u8],
    track: &'a Track,
}

impl<'a> Item<'a> {
    /// The description of any table that was described before, such as those of a TRUNCATE.
    pub fn relation_of(&self, relid: u32) -> Option<&'a Relation> {
        self.track.relation(relid)
    }
}

/// The messages of a file, in order. If frames are left out, a transaction may lack its Begin or its Commit: the next
/// message then belongs to another transaction.
pub struct Reader<R> {
    source: R,
    index: Arc<Index>,
    selection: Selection,
    /// The frames that are read, the next one last.
    frames: Vec<usize>,
    /// The frame that is read now.
    frame: Option<usize>,
    stored: Vec<u8>,
    unpack: Unpack,
    /// The place of the next message in the frame's content.
    at: usize,
    track: Track,
    /// The descriptions that were taken from the index.
    described: usize,
}

/// What stands before a message is passed on.
struct Next {
    range: Range<usize>,
    frame: usize,
}

impl<R: Read> Reader<R> {
    /// `source` gives the bytes of the frames in [`Index::frames`] of the selection, one after the other. `from` is the
    /// head's.
    pub fn new(source: R, from: Lsn, index: Arc<Index>, selection: Selection) -> Result<Self, ChangesError> {
        let frames = index.frames(&selection);
        let reader = Self::of_frames(source, from, index, frames)?;
        Ok(Self { selection, ..reader })
    }

    /// All messages of these frames, which are ascending.
    pub fn of_frames(source: R, from: Lsn, index: Arc<Index>, mut frames: Vec<usize>) -> Result<Self, ChangesError> {
        frames.reverse();
        Ok(Self {
            source,
            selection: Selection::default(),
            frames,
            frame: None,
            stored: Vec::new(),
            unpack: Unpack::new()?,
            at: 0,
            track: Track::new(from),
            described: 0,
            index,
        })
    }

    /// The next message; `None` at the end.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Item<'_>>, ChangesError> {
        loop {
            let Some(Next { range, frame }) = self.next_range()? else {
                return Ok(None);
            };
            if !self.wants(&self.unpack.content[range.clone()]) {
                continue;
            }
            let before = self.track.open;
            self.take(frame, range.clone())?;
            let transaction = self.track.open.or(before);
            if transaction.is_some_and(|transaction| !self.selection.wants_time(transaction.time)) {
                continue;
            }
            return self.item(frame, range, transaction).map(Some);
        }
    }

    /// What the transaction, its tables and its place say of the message.
    fn item(
        &self,
        frame: usize,
        range: Range<usize>,
        transaction: Option<Transaction>,
    ) -> Result<Item<'_>, ChangesError> {
        let bytes = &self.unpack.content[range];
        let message = self.parse(frame, bytes)?;
        let (transaction, relid) = match &message {
            Message::Logical { transactional: false, .. } => (None, None),
            Message::Commit(commit) => {
                let end = Some(commit.end);
                (transaction.map(|transaction| Transaction { end, ..transaction }), None)
            }
            Message::Insert { relid, .. } | Message::Update { relid, .. } | Message::Delete { relid, .. } => {
                (transaction, Some(*relid))
            }
            _ => (transaction, None),
        };
        Ok(Item {
            frame,
            transaction,
            relation: relid.and_then(|relid| self.track.relation(relid)),
            message,
            bytes,
            track: &self.track,
        })
    }

    fn parse<'a>(&self, frame: usize, bytes: &'a [u8]) -> Result<Message<'a>, ChangesError> {
        let after = self.track.position;
        Message::parse(bytes).map_err(|why| ChangesError::Message { frame, after, why })
    }

    fn take(&mut self, frame: usize, range: Range<usize>) -> Result<(), ChangesError> {
        let after = self.track.position;
        let message = Message::parse(&self.unpack.content[range]);
        let message = message.map_err(|why| ChangesError::Message { frame, after, why })?;
        let taken = self.track.take(&message);
        taken.map_err(|why| ChangesError::Misplaced { frame, after, why })?;
        if let (Message::Begin(begin), Some(open)) = (&message, &mut self.track.open) {
            // The next frame tells the end of a transaction that does not end in this one.
            let next = self.index.frames.get(frame + 1).and_then(|next| next.inside);
            let same = |inside: &Transaction| inside.xid == begin.xid && inside.final_lsn == begin.final_lsn;
            open.end = next.filter(same).and_then(|inside| inside.end);
        }
        Ok(())
    }

    /// Whether the message is selected, from its first bytes: a change of another table needs no more work.
    fn wants(&self, bytes: &[u8]) -> bool {
        let Some(relids) = &self.selection.relids else {
            return true;
        };
        let oid = |at: usize| bytes.get(at..at + 4).and_then(|oid| oid.try_into().ok()).map(u32::from_be_bytes);
        match bytes.first() {
            Some(b'I' | b'U' | b'D') => oid(1).is_none_or(|oid| relids.contains(&oid)),
            Some(b'T') => (6..bytes.len()).step_by(4).any(|at| oid(at).is_none_or(|oid| relids.contains(&oid))),
            _ => true,
        }
    }

    /// The place of the next message, in the current frame or the next one.
    fn next_range(&mut self) -> Result<Option<Next>, ChangesError> {
        loop {
            if let Some(frame) = self.frame {
                let rest = &self.unpack.content[self.at..];
                if !rest.is_empty() {
                    let cut = ChangesError::Frame {
                        frame,
                        why: "ends inside of a message",
                    };
                    let Some((length, rest)) = rest.split_first_chunk::<{ limits::LENGTH }>() else {
                        return Err(cut);
                    };
                    let length = u32::from_be_bytes(*length) as usize;
                    if length > rest.len() {
                        return Err(cut);
                    }
                    let begin = self.at + limits::LENGTH;
                    self.at = begin + length;
                    let range = begin..self.at;
                    return Ok(Some(Next { range, frame }));
                }
            }
            let Some(next) = self.frames.pop() else {
                return self.ended().map(|()| None);
            };
            self.begin_frame(next)?;
        }
    }

    /// Where the last frame of the file was read, no transaction may be open.
    fn ended(&self) -> Result<(), ChangesError> {
        let whole = self.frame.is_some_and(|frame| frame + 1 == self.index.frames.len());
        match self.track.open {
            Some(_) if whole => Err(ChangesError::Unfinished),
            _ => Ok(()),
        }
    }

    fn begin_frame(&mut self, number: usize) -> Result<(), ChangesError> {
        let index = Arc::clone(&self.index);
        let frame = &index.frames[number];
        let failed = |why| ChangesError::Frame { frame: number, why };
        self.stored.clear();
        let stored = (&mut self.source).take(frame.length).read_to_end(&mut self.stored)?;
        if stored as u64 != frame.length {
            return Err(failed("is cut"));
        }
        if <[u8; 32]>::from(Sha256::digest(&self.stored)) != frame.sha256 {
            return Err(failed("is damaged: it has another SHA-256 than the index says"));
        }
        self.unpack.unpack(&self.stored, frame.raw).map_err(failed)?;
        let follows = self.frame.map_or(number == 0, |last| last + 1 == number);
        self.frame = Some(number);
        self.at = 0;
        if !follows {
            self.skip_to(number, &index);
        }
        let same = |open: Option<Transaction>| open.map(|open| (open.xid, open.time, open.final_lsn));
        if same(self.track.open) != same(frame.inside) {
            return Err(ChangesError::Facts {
                frame: number,
                what: "transactions",
            });
        }
        Ok(())
    }

    /// Takes from the index what the frames in between would have told.
    fn skip_to(&mut self, number: usize, index: &Index) {
        self.track.open = index.frames[number].inside;
        let before = index.frames[..number].iter().rev();
        if let Some((_, last)) = before.filter_map(|frame| frame.ends).next() {
            self.track.position = self.track.position.max(last);
        }
        while let Some(described) = index.described.get(self.described).filter(|one| one.frame < number) {
            if let Some(relation) = described.relation() {
                self.track.describe(relation);
            }
            self.described += 1;
        }
    }
}
