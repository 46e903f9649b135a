//! Checks a plain dump before psql gets a byte of it: by psql's own lexical rules, which are also the server's, and
//! with a list of what pg_dump writes in addition to plain statements.
//!
//! It refuses:
//!
//! - commands that psql itself would run (`\!`, `\o`, `\copy` …);
//! - statements that would end the transaction in which the script runs;
//! - texts that psql and the server read differently.
//!
//! Of psql's commands pg_dump writes only `\restrict` and `\unrestrict`, and around large objects it writes `BEGIN` and
//! `COMMIT`. The screen removes these, and `SET transaction_timeout`, which a server before 17 does not know.

mod ground;
mod quoted;
mod state;
mod statement;
#[cfg(test)]
mod tests;
mod watch;

use std::ops::Range;

use memchr::memchr;
use memchr::memmem::Finder;

use ground::GLUED;
use state::{State, in_word};
use statement::Statement;
pub use watch::Watch;
use watch::Watching;

/// A change to the script before psql gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// These bytes become spaces.
    Blank(Range<u64>),
    /// This text is inserted before the byte at that place.
    Insert(u64, &'static str),
}

impl Edit {
    pub fn place(&self) -> u64 {
        match self {
            Edit::Blank(range) => range.start,
            Edit::Insert(at, _) => *at,
        }
    }
}

/// Why pgstow does not run a script, and the line of the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub line: u64,
    pub why: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {} {}", self.line, self.why)
    }
}

/// More changes than any script of pg_dump needs. They take at most 8 MiB of memory.
const EDITS: usize = 1 << 18;
/// How many bytes of a word, a literal, a tag or a command are kept. All that the rules compare are shorter.
const KEPT: usize = 128;

/// Reads the script piece by piece; the memory does not depend on its size. `W` gets the content.
#[derive(Debug)]
pub struct Screen<W = ()> {
    state: State,
    watching: Watching<W>,
    /// Finds the end of a table's rows: a line's end, and the start of the last line.
    last_line: Finder<'static>,
    statement: Statement,
    /// The byte before this one, outside of quotes; a line's end at the start of the script.
    before: u8,
    /// The start of the current token.
    token: Vec<u8>,
    /// Whether a backslash within plain quotes is an ordinary character, as the script's last setting says.
    standard_strings: bool,
    /// The statement that sets the encoding which the script has named.
    encoding: Option<&'static str>,
    settled: Settled,
    edits: Vec<Edit>,
    /// Whether pg_dump's own `BEGIN` has come, and its `COMMIT` has not.
    begun: bool,
    offset: u64,
    line: u64,
}

/// The settings that the screen has set again before a statement, and that nothing can have changed since.
#[derive(Debug, Default)]
struct Settled {
    strings: bool,
    encoding: bool,
}

pub(super) type Screened<T = ()> = Result<T, String>;

impl Default for Screen {
    fn default() -> Self {
        Self::watched(())
    }
}

impl<W: Watch> Screen<W> {
    pub fn watched(watch: W) -> Self {
        Self {
            state: State::Ground,
            watching: Watching::new(watch),
            last_line: Finder::new(b"\n\\."),
            statement: Statement::default(),
            before: b'\n',
            token: Vec::new(),
            standard_strings: true,
            encoding: None,
            settled: Settled::default(),
            edits: Vec::new(),
            begun: false,
            offset: 0,
            line: 1,
        }
    }

    pub fn pass(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let mut at = 0;
        if let Some(nul) = memchr(0, bytes) {
            // psql would not see the rest of that line.
            let line = self.line + newlines(&bytes[..nul]);
            return Err(refused(line, "holds a byte 0, which no script can hold"));
        }
        self.watching.piece(self.state.is_of_rows());
        while at < bytes.len() {
            let before = self.state;
            let step = self.step(bytes, at);
            let step = step.and_then(|step| self.watched_step(before, bytes, at, step).map(|()| step));
            let step = step.map_err(|why| refused(self.line + newlines(&bytes[..at]), &why))?;
            at += step;
            self.offset += step as u64;
        }
        let told = self.watching.piece_ends(bytes);
        told.map_err(|why| refused(self.line + newlines(bytes), &why))?;
        self.line += newlines(bytes);
        Ok(())
    }

    /// Gives these bytes to the watcher: they have changed the state from `before` to the present one.
    fn watched_step(&mut self, before: State, bytes: &[u8], at: usize, step: usize) -> Screened {
        if !W::WATCHES || (before.is_of_rows() && self.state.is_of_rows()) {
            return Ok(());
        }
        let end = at + step;
        match (before, self.state) {
            (State::CopyLine, _) if self.state.is_of_rows() => self.watching.rows_begin(end, self.offset + step as u64),
            _ if before.is_of_rows() => self.watching.rows_end(&bytes[..end]),
            (State::LineComment | State::LineCommentReturn, State::Ground) => {
                self.watching.keep(&bytes[at..end]);
                self.watching.comment_ends(self.statement.is_empty())
            }
            (State::Command, State::Ground) => {
                self.watching.forget();
                Ok(())
            }
            _ => {
                self.watching.keep(&bytes[at..end]);
                if self.statement.is_empty() && before == State::Ground && bytes[at..end] == *b";" {
                    self.watching.statement_ends(self.state == State::CopyLine)?;
                }
                Ok(())
            }
        }
    }

    /// Ends the script. Returns the changes, in the order of their places.
    pub fn end(self) -> Result<Vec<Edit>, Refused> {
        self.end_watched().map(|(edits, _)| edits)
    }

    /// The same, and returns the watcher too.
    pub fn end_watched(mut self) -> Result<(Vec<Edit>, W), Refused> {
        // Some states need one more byte to end.
        self.pass(b"\n")?;
        let open = match self.state {
            State::Ground if self.statement.is_empty() && !self.begun => {
                self.edits.sort_by_key(Edit::place);
                return Ok((self.edits, self.watching.into_inner()));
            }
            State::Ground if self.begun => "ends within a transaction of its own",
            State::Ground => "ends within a statement",
            State::CopyLine | State::CopyStart { .. } | State::CopyRow => "ends within a table's rows",
            _ => "ends within quotes or a comment",
        };
        Err(refused(self.line - 1, open))
    }

    /// Consumes one or more bytes from `at`, and returns how many: 0 if only the state has changed.
    fn step(&mut self, bytes: &[u8], at: usize) -> Screened<usize> {
        let rest = &bytes[at..];
        let byte = rest[0];
        let skip = |found: Option<usize>| found.unwrap_or(rest.len());
        Ok(match self.state {
            State::Ground => {
                self.ground(byte)?;
                1
            }
            State::Word => {
                let length = rest.iter().take_while(|byte| in_word(**byte)).count();
                self.keep(&rest[..length]);
                if length < rest.len() {
                    self.word(byte_after(rest, length))?;
                }
                length
            }
            State::Number => self.number(rest)?,
            State::Exponent { signed: false } if matches!(byte, b'+' | b'-') => {
                self.go(State::Exponent { signed: true })
            }
            State::Exponent { .. } if byte.is_ascii_digit() => self.go(State::ExponentDigits),
            State::Exponent { .. } => return Err(GLUED.into()),
            State::ExponentDigits => {
                let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                if let Some(next) = rest.get(length) {
                    self.number_ends(*next)?;
                }
                length
            }
            State::Minus if byte == b'-' => self.go(State::LineComment),
            State::Slash if byte == b'*' => self.go(State::Comment { depth: 1, before: 0 }),
            State::Minus | State::Slash => {
                self.statement.sign()?;
                self.back(b'-');
                0
            }
            State::Colon => self.colon(byte)?,
            State::LineComment => self.line_comment(rest),
            State::LineCommentReturn if byte == b'\n' => {
                self.back(byte);
                0
            }
            // For psql the next byte may be the second half of a character; that depends on the encoding.
            State::LineCommentReturn => {
                return Err(
                    "has a carriage return in a comment, which psql's and the server's rules end differently".into(),
                );
            }
            State::Comment { depth, before } => self.comment(rest, depth, before),
            State::Text { escapes, before } => self.text(rest, escapes, before)?,
            State::Escaped => {
                self.keep(&rest[..1]);
                self.go(State::Text {
                    escapes: true,
                    before: byte,
                })
            }
            State::TextQuote { escapes } if byte == b'\'' => {
                self.keep(b"'");
                self.go(State::Text { escapes, before: b'\'' })
            }
            State::TextQuote { .. } => {
                self.statement.literal(&self.token);
                self.back(b'\'');
                0
            }
            State::Name => {
                let end = skip(memchr(b'"', rest));
                self.keep(&rest[..end]);
                if end < rest.len() {
                    self.state = State::NameQuote;
                }
                (end + 1).min(rest.len())
            }
            State::NameQuote if byte == b'"' => {
                self.keep(b"\"");
                self.go(State::Name)
            }
            State::NameQuote => {
                self.back(b'"');
                0
            }
            State::Tag => self.tag(byte)?,
            State::Body { seen } => self.body(rest, seen),
            State::Command => self.command(rest)?,
            State::CopyLine if byte == b'\n' => self.go(State::CopyStart { seen: 0 }),
            State::CopyLine => return Err("has something after COPY in its line".into()),
            State::SettingLine if byte == b'\n' => {
                self.back(byte);
                1
            }
            State::SettingLine => return Err("has something after a setting in its line".into()),
            State::CopyStart { seen } => self.copy_start(byte, seen),
            State::CopyRow => self.copy_row(rest),
        })
    }

    fn go(&mut self, state: State) -> usize {
        self.state = state;
        1
    }

    fn back(&mut self, before: u8) {
        self.state = State::Ground;
        self.before = before;
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = KEPT.saturating_sub(self.token.len());
        self.token.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Begins a token of more than one byte.
    fn begin(&mut self, state: State) {
        self.token.clear();
        self.state = state;
    }

    fn edit(&mut self, edit: Edit) -> Screened {
        if self.edits.len() >= EDITS {
            return Err("has one more text than pgstow can change in a script".into());
        }
        self.edits.push(edit);
        Ok(())
    }

    fn command(&mut self, rest: &[u8]) -> Screened<usize> {
        let end = memchr(b'\n', rest).unwrap_or(rest.len());
        self.keep(&rest[..end]);
        let refuse = |token: &[u8]| {
            let shown = |byte: &&u8| byte.is_ascii_graphic();
            let shown: Vec<u8> = token.iter().take_while(shown).take(16).copied().collect();
            format!(
                "holds psql's command {}, which is not run",
                String::from_utf8_lossy(&shown)
            )
        };
        if end == rest.len() {
            // A longer line holds more than a key.
            return if self.token.len() < KEPT {
                Ok(end)
            } else {
                Err(refuse(&self.token))
            };
        }
        let line = self.token.strip_suffix(b"\r").unwrap_or(&self.token);
        let key = [&b"\\restrict "[..], b"\\unrestrict "]
            .iter()
            .find_map(|command| line.strip_prefix(*command));
        let is_key = key.is_some_and(|key| !key.is_empty() && key.iter().all(u8::is_ascii_alphanumeric));
        if !is_key || self.token.len() >= KEPT {
            return Err(refuse(&self.token));
        }
        let start = self.offset + end as u64 - self.token.len() as u64;
        self.edit(Edit::Blank(start..start + line.len() as u64))?;
        self.back(b'a');
        Ok(end)
    }

    fn copy_row(&mut self, rest: &[u8]) -> usize {
        if let Some(end) = self.last_line.find(rest) {
            self.state = State::CopyStart { seen: 0 };
            return end + 1;
        }
        // The end of this piece may be the start of the last line.
        match rest {
            [.., b'\n'] => self.state = State::CopyStart { seen: 0 },
            [.., b'\n', b'\\'] => self.state = State::CopyStart { seen: 1 },
            _ => {}
        }
        rest.len()
    }

    fn copy_start(&mut self, byte: u8, seen: usize) -> usize {
        match (seen, byte) {
            (2 | 3, b'\n') => {
                self.back(b'\n');
                1
            }
            (0, b'\\') | (1, b'.') | (2, b'\r') => self.go(State::CopyStart { seen: seen + 1 }),
            (_, b'\n') => self.go(State::CopyStart { seen: 0 }),
            _ => self.go(State::CopyRow),
        }
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

fn byte_after(rest: &[u8], length: usize) -> u8 {
    rest.get(length).copied().unwrap_or(b'\n')
}

fn refused(line: u64, why: &str) -> Refused {
    Refused {
        line,
        why: why.to_owned(),
    }
}
