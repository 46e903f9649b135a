//! Why a file of changes cannot be read, or a stream cannot be written.

use std::io;

use crate::format::Lsn;
use crate::format::pgoutput::PgoutputError;

#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("its head {0}")]
    Head(&'static str),
    #[error("its format has the version {0}, this pgstow reads version 1: a newer pgstow wrote it")]
    Version(u16),
    #[error("its index {0}")]
    Index(&'static str),
    #[error("its frame {frame} {why}")]
    Frame { frame: usize, why: &'static str },
    #[error("a message in its frame {frame}, after {after}, cannot be read: {why}")]
    Message {
        frame: usize,
        after: Lsn,
        why: PgoutputError,
    },
    #[error("a message in its frame {frame}, after {after}, is out of place: {why}")]
    Misplaced {
        frame: usize,
        after: Lsn,
        why: Misplaced,
    },
    #[error("the index has other {what} for the frame {frame} than are in it")]
    Facts { frame: usize, what: &'static str },
    #[error("the last frame ends inside of a transaction")]
    Unfinished,
    #[error("it ends at {to}, before its last transaction, which ends at {end}")]
    EndsBefore { to: Lsn, end: Lsn },
}

/// How a message contradicts the messages before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    #[error("it is outside of any transaction")]
    Outside,
    #[error("a transaction begins inside of another one")]
    Inside,
    #[error("the commit is not that of the transaction that has begun")]
    OtherCommit,
    #[error("the transaction ends at {end}, not after the position {before}")]
    NotRising { end: Lsn, before: Lsn },
    #[error("the table {0} is not described before its first change")]
    Unknown(u32),
    #[error("a row of {table} has {found} columns, the table has {columns}")]
    Columns {
        table: String,
        found: usize,
        columns: usize,
    },
}
