//! Where in the script's syntax the screen is.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Ground,
    Word,
    Number,
    /// After the `e` of a number.
    Exponent {
        signed: bool,
    },
    ExponentDigits,
    Minus,
    Slash,
    Colon,
    LineComment,
    /// After a carriage return in a line comment.
    LineCommentReturn,
    Comment {
        depth: u32,
        before: u8,
    },
    /// Within single quotes; `escapes` says whether a backslash escapes there.
    Text {
        escapes: bool,
        before: u8,
    },
    /// After a backslash that escapes.
    Escaped,
    /// After a quote that ends the text, or is the first of a doubled one.
    TextQuote {
        escapes: bool,
    },
    Name,
    NameQuote,
    /// After a dollar sign.
    Tag,
    /// Within dollar quotes; `seen` counts the bytes of the closing quotes so far.
    Body {
        seen: usize,
    },
    /// In one of psql's commands, at the start of a line between statements.
    Command,
    /// After `COPY … FROM stdin;`.
    CopyLine,
    /// After a setting that says how texts are read: psql follows it from the next line on.
    SettingLine,
    /// At the start of a line of rows; `seen` counts the bytes of `\.` and its line's end so far.
    CopyStart {
        seen: usize,
    },
    CopyRow,
}

impl State {
    pub fn is_of_rows(self) -> bool {
        matches!(self, State::CopyStart { .. } | State::CopyRow)
    }
}

pub(super) fn begins_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

pub(super) fn in_word(byte: u8) -> bool {
    begins_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c)
}
