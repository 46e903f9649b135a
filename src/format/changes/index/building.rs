//! The index while the messages pass: the writer stores it, the check compares it.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;

use super::{Described, Frame, Index};
use crate::format::Lsn;
use crate::format::changes::track::Transaction;
use crate::format::pgoutput::Message;

#[derive(Default)]
pub(in crate::format::changes) struct Building {
    frames: Vec<Frame>,
    described: Vec<Described>,
    /// The last description of each table, in `described`.
    latest: HashMap<u32, usize>,
    /// The frame that has not ended.
    transactions: u64,
    ends: Option<(Lsn, Lsn)>,
    times: Option<(Timestamp, Timestamp)>,
    inside: Option<Transaction>,
    relids: BTreeSet<u32>,
    /// The table of the last change: most changes are of the same table as the one before.
    last: Option<u32>,
}

/// What is known of a frame when it ends.
pub(in crate::format::changes) struct Ended {
    pub offset: u64,
    pub length: u64,
    pub raw: u64,
    pub sha256: [u8; 32],
}

impl Building {
    /// Takes the next message; `bytes` are those of the message.
    pub fn take(&mut self, message: &Message<'_>, bytes: &[u8]) {
        match message {
            Message::Begin(begin) => self.time(begin.time),
            Message::Commit(commit) => {
                self.transactions += 1;
                let first = self.ends.map_or(commit.end, |(first, _)| first);
                self.ends = Some((first, commit.end));
                self.ended(commit.end);
            }
            Message::Relation(relation) => {
                let known = self.latest.get(&relation.oid).map(|at| &*self.described[*at].message);
                if known != Some(bytes)
                    && let Some(described) = Described::of(self.frames.len(), bytes)
                {
                    self.latest.insert(relation.oid, self.described.len());
                    self.described.push(described);
                }
            }
            Message::Insert { relid, .. } | Message::Update { relid, .. } | Message::Delete { relid, .. } => {
                self.changed(*relid);
            }
            Message::Truncate { relids, .. } => relids.iter().for_each(|relid| self.changed(relid)),
            Message::Origin { .. } | Message::Type { .. } | Message::Logical { .. } => {}
        }
    }

    fn time(&mut self, time: Timestamp) {
        self.times = match self.times {
            None => Some((time, time)),
            Some((earliest, latest)) => Some((earliest.min(time), latest.max(time))),
        };
    }

    fn changed(&mut self, relid: u32) {
        if self.last.replace(relid) != Some(relid) {
            self.relids.insert(relid);
        }
    }

    /// Writes the end of a transaction to the frames that begin inside of it.
    fn ended(&mut self, end: Lsn) {
        let inside = self.frames.iter_mut().rev().map(|frame| &mut frame.inside);
        for inside in std::iter::once(&mut self.inside).chain(inside) {
            match inside {
                Some(inside) if inside.end.is_none() => inside.end = Some(end),
                // The frame in which the transaction begins, or one of another transaction.
                _ => break,
            }
        }
    }

    /// Ends the frame. `open` is the transaction inside of which it ends.
    pub fn end_frame(&mut self, ended: &Ended, open: Option<Transaction>) {
        self.frames.push(Frame {
            offset: ended.offset,
            length: ended.length,
            raw: ended.raw,
            sha256: ended.sha256,
            transactions: std::mem::take(&mut self.transactions),
            ends: self.ends.take(),
            times: self.times.take(),
            inside: std::mem::replace(&mut self.inside, open),
            relids: std::mem::take(&mut self.relids).into_iter().collect(),
        });
        self.last = None;
        if let Some(open) = open {
            self.time(open.time);
        }
    }

    /// The number of frames that have ended.
    pub fn frames(&self) -> usize {
        self.frames.len()
    }

    /// `offset` is that of the index.
    pub fn end(self, offset: u64, to: Lsn) -> Index {
        Index {
            offset,
            to,
            frames: self.frames,
            described: self.described,
        }
    }
}
