//! The messages of PostgreSQL's logical decoding plugin `pgoutput`, protocol version 1. The source of the format is
//! PostgreSQL's `src/backend/replication/logical/proto.c`.
//!
//! Rows are not copied: a message borrows the bytes that it was parsed from. Texts and names have the encoding of the
//! session, which is the database's; the parser does not look into them.

mod input;
mod relation;
mod tuple;

use jiff::Timestamp;

use super::Lsn;
use input::Input;

pub use relation::{Column, Identity, Relation};
pub use tuple::{Tuple, Value, Values};

/// The version that pgstow asks the server for.
pub const PROTOCOL: u16 = 1;

/// The bytes are no message of this protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PgoutputError {
    #[error("the message ends too early")]
    Cut,
    #[error("{0} bytes follow the end of the message")]
    Rest(usize),
    #[error("it has the unknown kind {:?}", char::from(*.0))]
    Kind(u8),
    #[error("it has {:?} where a kind of row should be", char::from(*.0))]
    Row(u8),
    #[error("it has a value of the unknown kind {:?}", char::from(*.0))]
    Value(u8),
    #[error("it has the unknown replica identity {:?}", char::from(*.0))]
    Identity(u8),
    #[error("a length or a number in it is negative")]
    Negative,
    #[error("a time in it is beyond the year 9999")]
    Time,
}

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub enum Message<'a> {
    Begin(Begin),
    Commit(Commit),
    /// The transaction came to this server by replication.
    Origin { commit: Lsn, name: &'a [u8] },
    /// Describes a table. It comes before the first change of the table, and again when its definition may have
    /// changed.
    Relation(Relation),
    /// Describes a type that is not built in.
    Type { oid: u32, schema: &'a [u8], name: &'a [u8] },
    Insert { relid: u32, new: Tuple<'a> },
    /// `old` is there if the replica identity is `full`, or if a column of the identity was changed or is stored apart.
    Update { relid: u32, old: Option<Old<'a>>, new: Tuple<'a> },
    Delete { relid: u32, old: Old<'a> },
    Truncate { relids: Relids<'a>, cascade: bool, restart_identity: bool },
    /// Of `pg_logical_emit_message`. One that is not transactional may come between transactions.
    Logical { transactional: bool, lsn: Lsn, prefix: &'a [u8], content: &'a [u8] },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// The position of the transaction's commit record, which its [`Commit::lsn`] repeats.
    pub final_lsn: Lsn,
    /// The source's clock at the commit.
    pub time: Timestamp,
    pub xid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    pub lsn: Lsn,
    /// Behind the commit record. It rises from transaction to transaction.
    pub end: Lsn,
    pub time: Timestamp,
}

/// A row as it was before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Old<'a> {
    /// Only the columns of the identity; the others are null.
    Key(Tuple<'a>),
    /// All columns: the identity is `full`.
    Row(Tuple<'a>),
}

impl<'a> Old<'a> {
    pub fn tuple(&self) -> Tuple<'a> {
        match self {
            Old::Key(tuple) | Old::Row(tuple) => *tuple,
        }
    }
}

/// The tables of a TRUNCATE, in the server's order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Relids<'a>(&'a [u8]);

impl<'a> Relids<'a> {
    pub fn iter(&self) -> impl Iterator<Item = u32> + use<'a> {
        let (relids, _) = self.0.as_chunks::<4>();
        relids.iter().map(|relid| u32::from_be_bytes(*relid))
    }
}

impl<'a> Message<'a> {
    /// Parses one whole message.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PgoutputError> {
        let mut input = Input(bytes);
        let message = Self::read(&mut input)?;
        match input.0.len() {
            0 => Ok(message),
            rest => Err(PgoutputError::Rest(rest)),
        }
    }

    fn read(input: &mut Input<'a>) -> Result<Self, PgoutputError> {
        Ok(match input.u8()? {
            b'B' => Message::Begin(Begin {
                final_lsn: input.lsn()?,
                time: input.time()?,
                xid: input.u32()?,
            }),
            b'C' => {
                // Flags, of which none is in use.
                input.u8()?;
                Message::Commit(Commit {
                    lsn: input.lsn()?,
                    end: input.lsn()?,
                    time: input.time()?,
                })
            }
            b'O' => Message::Origin {
                commit: input.lsn()?,
                name: input.text()?,
            },
            b'R' => Message::Relation(Relation::read(input)?),
            b'Y' => Message::Type {
                oid: input.u32()?,
                schema: input.text()?,
                name: input.text()?,
            },
            b'I' => Message::Insert {
                relid: input.u32()?,
                new: new(input)?,
            },
            b'U' => Message::Update {
                relid: input.u32()?,
                old: match input.peek()? {
                    b'N' => None,
                    _ => Some(old(input)?),
                },
                new: new(input)?,
            },
            b'D' => Message::Delete {
                relid: input.u32()?,
                old: old(input)?,
            },
            b'T' => {
                let count = input.count32()?;
                let flags = input.u8()?;
                let relids = count.checked_mul(4).ok_or(PgoutputError::Cut)?;
                Message::Truncate {
                    cascade: flags & 1 != 0,
                    restart_identity: flags & 2 != 0,
                    relids: Relids(input.take(relids)?),
                }
            }
            b'M' => {
                let flags = input.u8()?;
                let (lsn, prefix) = (input.lsn()?, input.text()?);
                let length = input.count32()?;
                Message::Logical {
                    transactional: flags & 1 != 0,
                    lsn,
                    prefix,
                    content: input.take(length)?,
                }
            }
            kind => return Err(PgoutputError::Kind(kind)),
        })
    }
}

fn new<'a>(input: &mut Input<'a>) -> Result<Tuple<'a>, PgoutputError> {
    match input.u8()? {
        b'N' => Tuple::read(input),
        kind => Err(PgoutputError::Row(kind)),
    }
}

fn old<'a>(input: &mut Input<'a>) -> Result<Old<'a>, PgoutputError> {
    match input.u8()? {
        b'K' => Tuple::read(input).map(Old::Key),
        b'O' => Tuple::read(input).map(Old::Row),
        kind => Err(PgoutputError::Row(kind)),
    }
}

/// Seconds from 1970 to 2000, where PostgreSQL's times begin.
const EPOCH: i64 = 946_684_800;

/// A time as PostgreSQL sends it: microseconds since 2000. `None` if it is beyond the years -9999 to 9999.
pub fn time_of(microseconds: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(microseconds.checked_add(EPOCH * 1_000_000)?).ok()
}

/// The same backwards; it cuts what is shorter than a microsecond.
pub fn microseconds_of(time: Timestamp) -> i64 {
    time.as_microsecond() - EPOCH * 1_000_000
}
