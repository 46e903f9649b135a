//! Outside of quotes and comments: words, numbers, signs, and the ends of statements.

use super::state::{State, begins_word, in_word, is_space};
use super::statement::{Ended, Statement};
use super::{Edit, KEPT, Screen, Screened, Settled, Watch};

pub(super) const GLUED: &str = "has a number without a space after it, which versions of PostgreSQL read differently";

impl<W: Watch> Screen<W> {
    pub(super) fn ground(&mut self, byte: u8) -> Screened {
        let line_begins = matches!(self.before, b'\n');
        let glued = std::mem::replace(&mut self.before, byte);
        if self.statement.is_empty() && !is_space(byte) {
            self.statement.begins(self.offset);
        }
        match byte {
            _ if is_space(byte) => {}
            0x0b => return Err("has a vertical tab, which versions of PostgreSQL read differently".into()),
            // psql hides the bytes that it takes for the rest of a character, and any function may have changed its
            // encoding.
            0x80.. => {
                return Err(
                    "has letters beyond ASCII outside of quotes, which psql and the server may read differently".into(),
                );
            }
            b'\'' => {
                if self.statement.behind_text {
                    return Err("continues a text in other quotes, which psql and the server read differently".into());
                }
                if !self.standard_strings && glued == b'&' {
                    return Err("has U&'…' where a backslash escapes".into());
                }
                let escapes = !self.standard_strings;
                self.statement.sign()?;
                self.begin(State::Text { escapes, before: 0 });
            }
            b'"' => {
                self.statement.sign()?;
                self.begin(State::Name);
            }
            b'$' => {
                self.statement.sign()?;
                self.begin(State::Tag);
            }
            b'-' => self.state = State::Minus,
            b'/' => self.state = State::Slash,
            b':' => {
                self.statement.sign()?;
                self.state = State::Colon;
            }
            b'\\' => {
                if !(line_begins && self.statement.is_empty()) {
                    return Err("has a backslash, which begins one of psql's commands".into());
                }
                self.begin(State::Command);
                self.token.push(b'\\');
            }
            b';' => self.semicolon()?,
            b'(' => {
                self.statement.sign()?;
                self.statement.depth += 1;
            }
            b')' => {
                self.statement.sign()?;
                self.statement.depth = self.statement.depth.saturating_sub(1);
            }
            b'0'..=b'9' => {
                self.statement.sign()?;
                self.state = State::Number;
            }
            _ if begins_word(byte) => {
                self.begin(State::Word);
                self.token.push(byte);
            }
            _ => self.statement.sign()?,
        }
        Ok(())
    }

    pub(super) fn number(&mut self, rest: &[u8]) -> Screened<usize> {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.');
        let length = digits.count();
        match rest.get(length) {
            None => {}
            Some(b'e' | b'E') => {
                self.state = State::Exponent { signed: false };
                return Ok(length + 1);
            }
            Some(next) => self.number_ends(*next)?,
        }
        Ok(length)
    }

    /// PostgreSQL's versions read a number differently if a letter or a quote follows it without a space.
    pub(super) fn number_ends(&mut self, next: u8) -> Screened {
        if in_word(next) || matches!(next, b'\'' | b'"') {
            return Err(GLUED.into());
        }
        self.back(b'0');
        Ok(())
    }

    /// A word without quotes has ended before the byte `next`.
    pub(super) fn word(&mut self, next: u8) -> Screened {
        let prefix = |letters: &[u8]| self.token.len() == 1 && letters.contains(&self.token[0]);
        if next == b'\'' && (prefix(b"eE") || prefix(b"bBxX")) {
            let escapes = prefix(b"eE");
            self.statement.sign()?;
            // The next byte is the quote.
            self.begin(State::TextQuote { escapes });
            return Ok(());
        }
        let text = String::from_utf8_lossy(&self.token).to_ascii_uppercase();
        let text = if self.token.len() < KEPT { text } else { String::new() };
        self.statement.word(&text)?;
        self.back(b'a');
        Ok(())
    }

    /// psql replaces `:NAME`, `:'NAME'` and `:"NAME"` by the value of a variable, and has set some variables itself.
    /// With a space after the colon it does not, and the server ignores that space.
    pub(super) fn colon(&mut self, byte: u8) -> Screened<usize> {
        match byte {
            b'{' => return Err("uses one of psql's variables".into()),
            b':' | b'=' => {
                self.back(byte);
                return Ok(1);
            }
            b'\'' | b'"' => self.edit(Edit::Insert(self.offset, " "))?,
            _ if begins_word(byte) || byte.is_ascii_digit() => self.edit(Edit::Insert(self.offset, " "))?,
            _ => {}
        }
        self.back(b':');
        Ok(0)
    }

    pub(super) fn semicolon(&mut self) -> Screened {
        let Some(ended) = self.statement.semicolon(self.begun)? else {
            return Ok(());
        };
        let place = self.statement.start..self.offset + 1;
        if !self.statement.is_of_large_objects() {
            self.settled = Settled::default();
        }
        self.statement = Statement::default();
        match ended {
            Ended::Plain => {}
            Ended::Rows => self.state = State::CopyLine,
            Ended::StandardStrings(on) => {
                self.standard_strings = on;
                self.state = State::SettingLine;
            }
            Ended::Encoding(sql) => {
                self.encoding = Some(sql);
                self.state = State::SettingLine;
            }
            Ended::Begin => {
                self.begun = true;
                self.edit(Edit::Blank(place))?;
            }
            Ended::TransactionTimeout => self.edit(Edit::Blank(place))?,
            Ended::Commit => {
                self.begun = false;
                self.edit(Edit::Blank(place))?;
            }
        }
        Ok(())
    }
}
