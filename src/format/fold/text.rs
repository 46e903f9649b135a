//! Rows as COPY text.

use crate::format::pgoutput::Value;

/// Stands for [`Value::Unchanged`]. COPY writes no field like it: a backslash in a value is doubled.
pub(super) const UNCHANGED: &[u8] = b"\\U";

/// A row's text that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub columns: usize,
    /// Some of its values are [`Value::Unchanged`].
    pub partial: bool,
}

/// Replaces the content of `row` with these values, as COPY writes them.
pub(super) fn write<'a>(values: impl Iterator<Item = Value<'a>>, row: &mut Vec<u8>) -> Written {
    row.clear();
    let mut written = Written {
        columns: 0,
        partial: false,
    };
    for value in values {
        if written.columns > 0 {
            row.push(b'\t');
        }
        written.columns += 1;
        match value {
            Value::Null => row.extend_from_slice(b"\\N"),
            Value::Unchanged => {
                written.partial = true;
                row.extend_from_slice(UNCHANGED);
            }
            Value::Text(text) => escape(text, row),
        }
    }
    written
}

/// Replaces the content of `row` with these values, as COPY writes them.
pub fn copy_row<'a>(values: impl Iterator<Item = Value<'a>>, row: &mut Vec<u8>) {
    write(values, row);
}

/// COPY's letter for a byte that it does not write as it is; 0 for the others.
const LETTERS: [u8; 256] = {
    let mut letters = [0; 256];
    letters[0x08] = b'b';
    letters[0x09] = b't';
    letters[0x0a] = b'n';
    letters[0x0b] = b'v';
    letters[0x0c] = b'f';
    letters[0x0d] = b'r';
    letters[b'\\' as usize] = b'\\';
    letters
};

fn escape(text: &[u8], out: &mut Vec<u8>) {
    let mut passed = 0;
    for (at, byte) in text.iter().enumerate() {
        let letter = LETTERS[usize::from(*byte)];
        if letter != 0 {
            out.extend_from_slice(&text[passed..at]);
            out.extend_from_slice(&[b'\\', letter]);
            passed = at + 1;
        }
    }
    out.extend_from_slice(&text[passed..]);
}

/// Replaces the content of `key` with the fields of these columns, in the order of the columns. False if the row has
/// fewer columns.
pub(super) fn key(row: &[u8], columns: &[usize], key: &mut Vec<u8>) -> bool {
    key.clear();
    let mut fields = row.split(|byte| *byte == b'\t');
    let mut next = 0;
    for (number, column) in columns.iter().enumerate() {
        let Some(field) = fields.nth(column - next) else {
            return false;
        };
        next = column + 1;
        if number > 0 {
            key.push(b'\t');
        }
        key.extend_from_slice(field);
    }
    true
}

/// Puts the row `new` at the end of `out`, with the values of `old` where `new` has none, for the columns that `takes`
/// allows. Returns whether values are still missing.
pub(super) fn merge(new: &[u8], old: &[u8], takes: impl Fn(usize) -> bool, out: &mut Vec<u8>) -> bool {
    let mut old = old.split(|byte| *byte == b'\t');
    let mut partial = false;
    for (column, field) in new.split(|byte| *byte == b'\t').enumerate() {
        let before = old.next();
        if column > 0 {
            out.push(b'\t');
        }
        let field = match before {
            Some(before) if field == UNCHANGED && takes(column) => before,
            _ => field,
        };
        partial |= field == UNCHANGED;
        out.extend_from_slice(field);
    }
    partial
}

/// How many fields a row has. A row without fields and a row with one empty field are the same text.
pub(super) fn columns(row: &[u8]) -> usize {
    memchr::memchr_iter(b'\t', row).count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_copy_writes_them() {
        let mut row = Vec::new();
        let values = [
            Value::Text(b"a\tb\nc\\d\re\x08\x0b\x0c\x01\xc3\xbc"),
            Value::Null,
            Value::Text(b""),
            Value::Text(b"\\N"),
            Value::Unchanged,
        ];
        let written = write(values.into_iter(), &mut row);
        assert_eq!(row, b"a\\tb\\nc\\\\d\\re\\b\\v\\f\x01\xc3\xbc\t\\N\t\t\\\\N\t\\U");
        assert_eq!((written.columns, written.partial), (5, true));
    }

    #[test]
    fn a_key_is_taken_from_its_columns() {
        let mut found = Vec::new();
        assert!(key(b"a\tb\tc\td", &[1, 3], &mut found));
        assert_eq!(found, b"b\td");
        assert!(!key(b"a\tb", &[2], &mut found));
    }

    #[test]
    fn missing_values_are_taken_from_the_row_before() {
        let mut out = Vec::new();
        assert!(!merge(b"1\t\\U\t\\N", b"0\told\tx", |_| true, &mut out));
        assert_eq!(out, b"1\told\t\\N");
        out.clear();
        assert!(merge(b"\\U\t\\U", b"k\t\\N", |column| column == 0, &mut out));
        assert_eq!(out, b"k\t\\U");
    }
}
