//! Comments, texts in single quotes, and bodies in dollar quotes.

use memchr::{memchr, memchr2};

use super::state::State;
use super::{Edit, KEPT, Screen, Screened, Watch};

impl<W: Watch> Screen<W> {
    pub(super) fn line_comment(&mut self, rest: &[u8]) -> usize {
        let end = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        match rest.get(end) {
            Some(b'\r') => {
                self.state = State::LineCommentReturn;
                return end + 1;
            }
            // The next step reads the line's end as whitespace.
            Some(_) => self.back(b'\n'),
            None => {}
        }
        end
    }

    pub(super) fn comment(&mut self, rest: &[u8], depth: u32, before: u8) -> usize {
        let byte = rest[0];
        let (depth, before) = match (before, byte) {
            (b'/', b'*') => (depth + 1, 0),
            (b'*', b'/') => (depth - 1, 0),
            _ => (depth, byte),
        };
        if depth == 0 {
            self.back(b' ');
            return 1;
        }
        self.state = State::Comment { depth, before };
        if matches!(byte, b'*' | b'/') {
            return 1;
        }
        let end = memchr2(b'*', b'/', rest).unwrap_or(rest.len());
        self.state = State::Comment { depth, before: 0 };
        end
    }

    pub(super) fn text(&mut self, rest: &[u8], escapes: bool, before: u8) -> Screened<usize> {
        let end = match escapes {
            true => memchr2(b'\'', b'\\', rest),
            false => memchr(b'\'', rest),
        };
        let end = end.unwrap_or(rest.len());
        self.keep(&rest[..end]);
        let before = rest[..end].last().copied().unwrap_or(before);
        match rest.get(end) {
            None => {
                self.state = State::Text { escapes, before };
                return Ok(end);
            }
            Some(b'\\') => {
                if !self.standard_strings {
                    self.settle_strings()?;
                }
                if before >= 0x80 {
                    self.settle_encoding()?;
                }
                self.state = State::Escaped;
            }
            Some(_) => {
                if !escapes && before == b'\\' {
                    self.settle_strings()?;
                }
                self.state = State::TextQuote { escapes };
            }
        }
        Ok(end + 1)
    }

    /// A setting decides whether a quote ends this text, and any function may have changed it. So the screen sets it
    /// again just before the statement, on a line of its own, because psql reads each line by the setting at its
    /// start.
    pub(super) fn settle_strings(&mut self) -> Screened {
        if std::mem::replace(&mut self.settled.strings, true) {
            return Ok(());
        }
        self.edit(Edit::Insert(
            self.statement.start,
            match self.standard_strings {
                true => "SET standard_conforming_strings = on;\n",
                false => "SET standard_conforming_strings = off;\n",
            },
        ))
    }

    /// The encoding decides whether this backslash is a character, or the second half of one. So it is set again too.
    pub(super) fn settle_encoding(&mut self) -> Screened {
        let Some(encoding) = self.encoding else {
            return Err("has an escaped text before it names its encoding".into());
        };
        if std::mem::replace(&mut self.settled.encoding, true) {
            return Ok(());
        }
        self.edit(Edit::Insert(self.statement.start, encoding))
    }

    pub(super) fn tag(&mut self, byte: u8) -> Screened<usize> {
        let inner = byte.is_ascii_alphabetic() || byte == b'_' || (byte.is_ascii_digit() && !self.token.is_empty());
        if self.token.is_empty() && byte.is_ascii_digit() {
            // A parameter, such as `$1`.
            self.state = State::Number;
            return Ok(1);
        }
        if byte == b'$' {
            self.state = State::Body { seen: 0 };
        } else if inner && self.token.len() < KEPT {
            self.token.push(byte);
        } else {
            return Err("has dollar quotes that pg_dump does not write".into());
        }
        Ok(1)
    }

    /// The closing quotes have a dollar sign at both ends, and nowhere else.
    pub(super) fn body(&mut self, rest: &[u8], seen: usize) -> usize {
        if seen == 0 {
            let found = memchr(b'$', rest);
            if found.is_some() {
                self.state = State::Body { seen: 1 };
            }
            return found.map_or(rest.len(), |found| found + 1);
        }
        let wanted = self.token.get(seen - 1).copied().unwrap_or(b'$');
        if rest[0] != wanted {
            let seen = usize::from(rest[0] == b'$');
            return self.go(State::Body { seen });
        }
        if seen > self.token.len() {
            self.back(b'$');
        } else {
            self.state = State::Body { seen: seen + 1 };
        }
        1
    }
}
