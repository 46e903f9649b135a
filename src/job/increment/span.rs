//! A span of the stream on its way into a file of changes.

use std::collections::HashSet;

use jiff::Timestamp;

use super::facts::StreamFacts;
use crate::error::{Code, Error, Result};
use crate::format::Lsn;
use crate::format::changes::{ChangesError, ChangesSummary, Head, Writer};
use crate::format::pgoutput::Message;
use crate::repository::seen_catalog::SeenCatalog;

/// The level of zstd: the server sends slower than this compresses.
pub(super) const LEVEL: i32 = 3;
/// A file that is so long ends with its transaction; the next increment goes on.
const LARGE: u64 = 16 << 30;

pub(super) struct Span {
    writer: Writer,
    pub facts: StreamFacts,
    /// A transaction's first messages. They are kept until there is a change: a transaction without changes that are
    /// published leaves nothing.
    held: Vec<Vec<u8>>,
    /// The end of the last transaction, with changes or without.
    position: Lsn,
    described: HashSet<u32>,
    newest_xid: Option<u64>,
    /// A number of a transaction that the server gave out about now, in 64 bits.
    near_xid: u64,
    last_commit: Option<Timestamp>,
}

impl Span {
    /// `newest_xid` is that of the increment before; `near_xid` is a transaction of about now.
    pub fn new(head: &Head, previous: Option<&SeenCatalog>, newest_xid: Option<u64>, near_xid: u64) -> Result<Self> {
        Ok(Self {
            writer: Writer::new(head, LEVEL).map_err(|error| unwritable(&error))?,
            facts: StreamFacts::new(previous, head.from),
            held: Vec::new(),
            position: head.from,
            described: HashSet::new(),
            newest_xid,
            near_xid,
            last_commit: None,
        })
    }

    /// Whether a transaction has begun and not ended.
    pub fn is_inside(&self) -> bool {
        !self.held.is_empty() || self.writer.is_inside()
    }

    /// The end of the last transaction; first, where the span begins.
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// The transactions with changes.
    pub fn transactions(&self) -> u64 {
        self.writer.transactions()
    }

    pub fn is_large(&self) -> bool {
        self.writer.bytes() >= LARGE
    }

    /// The source's clock at the last commit.
    pub fn last_commit(&self) -> Option<Timestamp> {
        self.last_commit
    }

    /// The largest number of a transaction so far, in 64 bits.
    pub fn newest_xid(&self) -> Option<u64> {
        self.newest_xid
    }

    /// Whether the file describes this table; from now on it does.
    pub fn describes(&mut self, relid: u32) -> bool {
        !self.described.insert(relid)
    }

    /// Takes the next message, and adds the bytes that it completes to `ready`.
    pub fn take(&mut self, message: &Message<'_>, bytes: &[u8], ready: &mut Vec<u8>) -> Result<()> {
        match message {
            Message::Begin(begin) if self.held.is_empty() => {
                let xid = widened(begin.xid, self.near_xid);
                self.newest_xid = self.newest_xid.max(Some(xid));
                self.held.push(bytes.to_vec());
                return Ok(());
            }
            Message::Origin { .. } if !self.held.is_empty() => {
                self.held.push(bytes.to_vec());
                return Ok(());
            }
            Message::Commit(commit) if !self.held.is_empty() => {
                self.held.clear();
                self.position = self.position.max(commit.end);
                return Ok(());
            }
            _ => {}
        }
        for first in std::mem::take(&mut self.held) {
            let first_message = Message::parse(&first).map_err(|error| Error::internal(error.to_string()))?;
            self.push(&first_message, &first, ready)?;
        }
        self.push(message, bytes, ready)?;
        if let Message::Commit(commit) = message {
            self.position = self.position.max(commit.end);
            self.last_commit = Some(commit.time);
        }
        Ok(())
    }

    fn push(&mut self, message: &Message<'_>, bytes: &[u8], ready: &mut Vec<u8>) -> Result<()> {
        self.facts.hear(message);
        ready.extend(
            self.writer
                .push(bytes)
                .map_err(|error| unwritable(&error))?
                .into_iter()
                .flatten(),
        );
        Ok(())
    }

    /// Ends the file: everything up to `to` was read. Returns its last bytes.
    pub fn finish(self, to: Lsn) -> Result<(Vec<u8>, ChangesSummary)> {
        self.writer.finish(to).map_err(|error| unwritable(&error))
    }
}

/// The stream has 32 bits of a transaction's number.
fn widened(xid: u32, near: u64) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "the upper half is added again")]
    let apart = xid.wrapping_sub(near as u32).cast_signed();
    near.wrapping_add_signed(i64::from(apart))
}

fn unwritable(error: &ChangesError) -> Error {
    Error::new(
        Code::ConnErr,
        format!("the server's stream of changes cannot be stored: {error}"),
    )
    .hint("nothing was confirmed, so nothing is lost; run it again, and report it if it stays")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_transaction_gets_its_upper_half_from_a_near_one() {
        let epoch = 7 << 32;
        assert_eq!(widened(5, epoch + 3), epoch + 5);
        assert_eq!(widened(u32::MAX, epoch + 3), epoch - 1);
        assert_eq!(widened(2, epoch - 2), epoch + 2);
        assert_eq!(widened(700, 900), 700);
    }
}
