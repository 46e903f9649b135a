//! The values of a row.

use super::PgoutputError;
use super::input::Input;

/// A row, or the part of it that was sent. Parsing has checked it, so its values can be read without errors, and as
/// often as needed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tuple<'a> {
    count: u16,
    bytes: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    Null,
    /// Stored apart from the row (TOAST), and not changed by the update: not sent.
    Unchanged,
    /// As the type's output function writes it.
    Text(&'a [u8]),
}

impl<'a> Tuple<'a> {
    pub(super) fn read(input: &mut Input<'a>) -> Result<Self, PgoutputError> {
        let count = input.count16()?;
        let begin = input.0;
        for _ in 0..count {
            value(input)?;
        }
        let bytes = &begin[..begin.len() - input.0.len()];
        Ok(Self { count, bytes })
    }

    /// The number of its columns.
    pub fn len(&self) -> usize {
        self.count.into()
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn values(&self) -> Values<'a> {
        Values(Input(self.bytes))
    }
}

/// The values of a [`Tuple`], in the order of the relation's columns.
#[derive(Debug, Clone)]
pub struct Values<'a>(Input<'a>);

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        value(&mut self.0).ok()
    }
}

fn value<'a>(input: &mut Input<'a>) -> Result<Value<'a>, PgoutputError> {
    match input.u8()? {
        b'n' => Ok(Value::Null),
        b'u' => Ok(Value::Unchanged),
        b't' => {
            let length = input.count32()?;
            Ok(Value::Text(input.take(length)?))
        }
        kind => Err(PgoutputError::Value(kind)),
    }
}
