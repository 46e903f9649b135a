//! The index: what is in each frame, so that a reader of one table or of some minutes takes only the frames it needs.

mod building;

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::bytes::{Numbers, skippable, skipped};
use super::error::ChangesError;
use super::head::{Head, VERSION};
use super::limits;
use super::selection::Selection;
use super::track::Transaction;
use crate::format::Lsn;
use crate::format::pgoutput::{Message, Relation, microseconds_of, time_of};

pub(super) use building::{Building, Ended};

const MAGIC: &[u8; 8] = b"PGSTOWIX";
/// What a frame takes in the index at least, and what a description does.
const FRAME: usize = 8 + 8 + 8 + 32 + 8 + 1 + 4;
const DESCRIBED: usize = 4 + 4;
/// The facts that a frame may lack.
const ENDS: u8 = 1;
const TIMES: u8 = 2;
const INSIDE: u8 = 4;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Where the index begins in the file.
    pub offset: u64,
    /// The file holds everything after the head's `from`, up to and including this position.
    pub to: Lsn,
    /// In the order of the file, without gaps between the head and the index.
    pub frames: Vec<Frame>,
    /// The descriptions of tables, in the order of the file. A description that repeats the one before is left out.
    pub described: Vec<Described>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub offset: u64,
    pub length: u64,
    /// The length of its content.
    pub raw: u64,
    /// Of the frame as it is stored.
    pub sha256: [u8; 32],
    /// The commits in it, and the ends of the first and of the last one.
    pub transactions: u64,
    pub ends: Option<(Lsn, Lsn)>,
    /// The earliest and the latest commit time of all transactions of which it holds any message. Times need not have
    /// the order of the commits.
    pub times: Option<(Timestamp, Timestamp)>,
    /// The transaction inside of which it begins, with its end.
    pub inside: Option<Transaction>,
    /// The tables that were changed in it, ascending.
    pub relids: Vec<u32>,
}

/// A description of a table, as the server sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The frame that it is in. It holds from there on.
    pub frame: usize,
    message: Box<[u8]>,
}

impl Described {
    /// `None` if the bytes are no description.
    fn of(frame: usize, message: &[u8]) -> Option<Self> {
        let described = Self {
            frame,
            message: message.into(),
        };
        described.relation().is_some().then_some(described)
    }

    pub fn relation(&self) -> Option<Relation> {
        match Message::parse(&self.message) {
            Ok(Message::Relation(relation)) => Some(relation),
            _ => None,
        }
    }

    /// The OID of the table.
    pub fn oid(&self) -> u32 {
        let oid = self.message.get(1..5).and_then(|oid| oid.try_into().ok());
        oid.map_or(0, u32::from_be_bytes)
    }
}

impl Index {
    /// Where the index begins, from the last 8 bytes of a file.
    pub fn offset_in(tail: &[u8]) -> Option<u64> {
        tail.last_chunk().map(|offset| u64::from_be_bytes(*offset))
    }

    /// The index of a file, from the bytes from its offset to the file's end.
    pub fn parse(bytes: &[u8], file_length: u64) -> Result<Self, ChangesError> {
        let broken = ChangesError::Index;
        let body = skipped(bytes).ok_or(broken("is not whole"))?;
        let offset = file_length.checked_sub(bytes.len() as u64);
        let offset = offset.filter(|_| bytes.len() <= limits::INDEX).ok_or(broken("is longer than can be"))?;
        let (body, last) = body.split_last_chunk().ok_or(broken("is cut"))?;
        if u64::from_be_bytes(*last) != offset {
            return Err(broken("is not where it says"));
        }
        let mut body = Numbers(body);
        if body.array().as_ref() != Some(MAGIC) {
            return Err(broken("is not that of a file of changes"));
        }
        match body.u16() {
            Some(VERSION) => {}
            Some(version) => return Err(ChangesError::Version(version)),
            None => return Err(broken("is cut")),
        }
        let index = Self::read(&mut body, offset).ok_or(broken("is cut, or has a time or a number that cannot be"))?;
        match body.0 {
            [] => index.checked().map_err(broken),
            _ => Err(broken("has more bytes than it should")),
        }
    }

    fn read(body: &mut Numbers<'_>, offset: u64) -> Option<Self> {
        let to = Lsn(body.u64()?);
        let frames = body.count(FRAME)?;
        let frames = (0..frames).map(|_| Frame::read(body)).collect::<Option<Vec<_>>>()?;
        let described = body.count(DESCRIBED)?;
        let described = (0..described).map(|_| {
            let frame = usize::try_from(body.u32()?).ok()?;
            let length = usize::try_from(body.u32()?).ok()?;
            Described::of(frame, body.take(length)?)
        });
        Some(Self {
            described: described.collect::<Option<_>>()?,
            offset,
            to,
            frames,
        })
    }

    /// Whether its parts fit each other.
    fn checked(self) -> Result<Self, &'static str> {
        let mut end = Head::LENGTH as u64;
        for frame in &self.frames {
            if frame.offset != end || frame.length == 0 {
                return Err("leaves a gap between the frames");
            }
            end = end.checked_add(frame.length).ok_or("is longer than can be")?;
            if frame.raw > limits::FRAME_MOST || frame.raw == 0 {
                return Err("has a frame of a length that cannot be");
            }
            if !frame.relids.is_sorted_by(|one, next| one < next) {
                return Err("has tables out of order");
            }
        }
        if end != self.offset {
            return Err("leaves a gap behind the frames");
        }
        let frames = self.described.iter().map(|described| described.frame);
        match frames.is_sorted() && self.described.last().is_none_or(|last| last.frame < self.frames.len()) {
            true => Ok(self),
            false => Err("has descriptions out of order"),
        }
    }

    /// The bytes of the index. `None`: more than [`limits::INDEX`].
    pub(super) fn to_bytes(&self) -> Option<Vec<u8>> {
        let mut body = MAGIC.to_vec();
        body.extend_from_slice(&VERSION.to_be_bytes());
        body.extend_from_slice(&self.to.0.to_be_bytes());
        body.extend_from_slice(&u32::try_from(self.frames.len()).ok()?.to_be_bytes());
        for frame in &self.frames {
            frame.write(&mut body)?;
        }
        body.extend_from_slice(&u32::try_from(self.described.len()).ok()?.to_be_bytes());
        for described in &self.described {
            body.extend_from_slice(&u32::try_from(described.frame).ok()?.to_be_bytes());
            body.extend_from_slice(&u32::try_from(described.message.len()).ok()?.to_be_bytes());
            body.extend_from_slice(&described.message);
        }
        body.extend_from_slice(&self.offset.to_be_bytes());
        skippable(&body).filter(|bytes| bytes.len() <= limits::INDEX)
    }

    /// The frames that can hold what is selected, ascending.
    pub fn frames(&self, selection: &Selection) -> Vec<usize> {
        let frames = self.frames.iter().enumerate();
        frames
            .filter(|(_, frame)| frame.can_hold(selection))
            .map(|(number, _)| number)
            .collect()
    }

    /// The first frame, in the order of the commits, that holds a transaction whose time is later. The first such
    /// transaction is in it.
    pub fn first_later(&self, time: Timestamp) -> Option<usize> {
        let later = |frame: &Frame| frame.times.is_some_and(|(_, latest)| latest > time);
        self.frames.iter().position(later)
    }

    /// The earliest and the latest commit time in the file.
    pub fn times(&self) -> Option<(Timestamp, Timestamp)> {
        let times = self.frames.iter().filter_map(|frame| frame.times);
        times.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)))
    }

    /// The OIDs of the tables that it describes.
    pub fn tables(&self) -> BTreeSet<u32> {
        self.described.iter().map(Described::oid).collect()
    }
}

impl Frame {
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    fn can_hold(&self, selection: &Selection) -> bool {
        let in_time = self.times.is_some_and(|(earliest, latest)| {
            selection.since.is_none_or(|since| since <= latest) && selection.until.is_none_or(|until| earliest <= until)
        });
        let any_time = selection.since.is_none() && selection.until.is_none();
        let names = |wanted: &BTreeSet<u32>| self.relids.iter().any(|relid| wanted.contains(relid));
        (in_time || any_time) && selection.relids.as_ref().is_none_or(names)
    }

    fn read(body: &mut Numbers<'_>) -> Option<Self> {
        let (offset, length, raw) = (body.u64()?, body.u64()?, body.u64()?);
        let (sha256, transactions, facts) = (body.array()?, body.u64()?, body.u8()?);
        let lsn = |body: &mut Numbers<'_>| body.u64().map(Lsn);
        let time = |body: &mut Numbers<'_>| time_of(body.i64()?);
        // Each fact is read if it is there; `None` is the end of the bytes.
        let ends = match facts & ENDS {
            0 => None,
            _ => Some((lsn(body)?, lsn(body)?)),
        };
        let times = match facts & TIMES {
            0 => None,
            _ => Some((time(body)?, time(body)?)),
        };
        let inside = match facts & INSIDE {
            0 => None,
            _ => Some(Transaction {
                xid: body.u32()?,
                time: time(body)?,
                final_lsn: lsn(body)?,
                end: Some(lsn(body)?),
            }),
        };
        let relids = body.count(4)?;
        let relids = (0..relids).map(|_| body.u32()).collect::<Option<_>>()?;
        (facts <= ENDS | TIMES | INSIDE).then_some(Self {
            offset,
            length,
            raw,
            sha256,
            transactions,
            ends,
            times,
            inside,
            relids,
        })
    }

    fn write(&self, body: &mut Vec<u8>) -> Option<()> {
        for number in [self.offset, self.length, self.raw] {
            body.extend_from_slice(&number.to_be_bytes());
        }
        body.extend_from_slice(&self.sha256);
        body.extend_from_slice(&self.transactions.to_be_bytes());
        let facts = [(self.ends.is_some(), ENDS), (self.times.is_some(), TIMES), (self.inside.is_some(), INSIDE)];
        body.push(facts.iter().filter(|(is, _)| *is).map(|(_, fact)| fact).sum());
        let time = |time: Timestamp| microseconds_of(time).to_be_bytes();
        if let Some((first, last)) = self.ends {
            body.extend_from_slice(&first.0.to_be_bytes());
            body.extend_from_slice(&last.0.to_be_bytes());
        }
        if let Some((earliest, latest)) = self.times {
            body.extend_from_slice(&time(earliest));
            body.extend_from_slice(&time(latest));
        }
        if let Some(inside) = &self.inside {
            body.extend_from_slice(&inside.xid.to_be_bytes());
            body.extend_from_slice(&time(inside.time));
            body.extend_from_slice(&inside.final_lsn.0.to_be_bytes());
            body.extend_from_slice(&inside.end?.0.to_be_bytes());
        }
        body.extend_from_slice(&u32::try_from(self.relids.len()).ok()?.to_be_bytes());
        for relid in &self.relids {
            body.extend_from_slice(&relid.to_be_bytes());
        }
        Some(())
    }
}
