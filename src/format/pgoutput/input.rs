//! The bytes of a message that have not been read. Each read takes from the front, or fails without a panic.

use jiff::Timestamp;

use super::{PgoutputError, time_of};
use crate::format::Lsn;

#[derive(Debug, Clone, Copy)]
pub(super) struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], PgoutputError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(PgoutputError::Cut)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PgoutputError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(PgoutputError::Cut)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub fn peek(&self) -> Result<u8, PgoutputError> {
        self.0.first().copied().ok_or(PgoutputError::Cut)
    }

    pub fn u8(&mut self) -> Result<u8, PgoutputError> {
        self.array().map(|[byte]| byte)
    }

    pub fn u32(&mut self) -> Result<u32, PgoutputError> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, PgoutputError> {
        self.array().map(i32::from_be_bytes)
    }

    pub fn lsn(&mut self) -> Result<Lsn, PgoutputError> {
        self.array().map(|bytes| Lsn(u64::from_be_bytes(bytes)))
    }

    pub fn time(&mut self) -> Result<Timestamp, PgoutputError> {
        let microseconds = self.array().map(i64::from_be_bytes)?;
        time_of(microseconds).ok_or(PgoutputError::Time)
    }

    /// A number of columns.
    pub fn count16(&mut self) -> Result<u16, PgoutputError> {
        let count = self.array().map(i16::from_be_bytes)?;
        u16::try_from(count).map_err(|_| PgoutputError::Negative)
    }

    /// A length, or a number of tables.
    pub fn count32(&mut self) -> Result<usize, PgoutputError> {
        usize::try_from(self.i32()?).map_err(|_| PgoutputError::Negative)
    }

    /// Up to the next zero byte, which is taken as well.
    pub fn text(&mut self) -> Result<&'a [u8], PgoutputError> {
        let end = memchr::memchr(0, self.0).ok_or(PgoutputError::Cut)?;
        let text = self.take(end)?;
        self.u8()?;
        Ok(text)
    }
}
