//! The tokens of a statement about roles.

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A bare word, in upper case.
    Word(String),
    /// In double quotes.
    Name(String),
    /// In single quotes.
    Text(String),
    Number(String),
    Sign(char),
}

/// The tokens that are not parsed yet.
pub(super) struct Rest<'t>(pub &'t [Token]);

impl<'t> Rest<'t> {
    pub fn next(&mut self) -> Option<&'t Token> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// The next bare word; empty if the next token is none.
    pub fn peek(&self) -> &'t str {
        match self.0.first() {
            Some(Token::Word(word)) => word,
            _ => "",
        }
    }

    pub fn word(&mut self) -> Option<&'t str> {
        match self.next()? {
            Token::Word(word) => Some(word),
            _ => None,
        }
    }

    pub fn take(&mut self, wanted: &str) -> Option<()> {
        if self.peek() != wanted {
            return None;
        }
        self.next().map(drop)
    }

    pub fn sign(&mut self, wanted: char) -> Option<()> {
        match self.0.first()? {
            Token::Sign(sign) if *sign == wanted => self.next().map(drop),
            _ => None,
        }
    }

    /// The server folds bare names to lower case. An empty name is not a name.
    pub fn name(&mut self) -> Option<String> {
        match self.next()? {
            Token::Word(word) => Some(word.to_ascii_lowercase()),
            Token::Name(name) if !name.is_empty() => Some(name.clone()),
            _ => None,
        }
    }

    /// One name, or several with dots between: `app.tenant`.
    pub fn setting(&mut self) -> Option<String> {
        let mut name = self.name()?;
        while self.sign('.').is_some() {
            name = format!("{name}.{}", self.name()?);
        }
        Some(name.to_ascii_lowercase())
    }

    pub fn text(&mut self) -> Option<String> {
        match self.next()? {
            Token::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    pub fn number(&mut self) -> Option<String> {
        let minus = if self.sign('-').is_some() { "-" } else { "" };
        match self.next()? {
            Token::Number(number) => Some(format!("{minus}{number}")),
            _ => None,
        }
    }
}

/// There are no comments, dollar quotes, Unicode escapes or operators: pg_dumpall needs none of them in these
/// statements, so a statement with any of them is not parsed.
pub(super) fn tokens(sql: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            ' ' | '\t' | '\n' | '\r' => {
                rest = &rest[1..];
                continue;
            }
            '\'' => {
                let (text, length) = quoted(rest, '\'')?;
                // It depends on a setting whether a backslash is an escape.
                (Token::Text(text).into_plain()?, length)
            }
            'E' | 'e' if rest[1..].starts_with('\'') => {
                let (text, length) = escaped(&rest[1..])?;
                (Token::Text(text), length + 1)
            }
            '"' => {
                let (name, length) = quoted(rest, '"')?;
                (Token::Name(name), length)
            }
            'a'..='z' | 'A'..='Z' | '_' => {
                let length = word_length(rest);
                (Token::Word(rest[..length].to_ascii_uppercase()), length)
            }
            '0'..='9' => {
                let length = word_length(rest);
                let number = &rest[..length];
                if !number.bytes().all(|byte| byte.is_ascii_digit()) {
                    return None;
                }
                (Token::Number(number.to_owned()), length)
            }
            '-' if !rest[1..].starts_with('-') => (Token::Sign('-'), 1),
            ',' | '=' | '.' => (Token::Sign(first), 1),
            _ => return None,
        };
        rest = &rest[length..];
        // Two adjacent tokens can have another meaning, as in U&"…" or 'a''b'.
        let touches = rest.starts_with(['\'', '"', '$', '&']);
        if touches && !matches!(token, Token::Sign(_)) {
            return None;
        }
        // The server joins texts that follow each other.
        if let (Token::Text(_), Some(Token::Text(_))) = (&token, tokens.last()) {
            return None;
        }
        tokens.push(token);
    }
    Some(tokens)
}

impl Token {
    fn into_plain(self) -> Option<Self> {
        match &self {
            Token::Text(text) if text.contains('\\') => None,
            _ => Some(self),
        }
    }
}

/// Letters of other scripts too, so that no word ends where the server's word does not.
fn word_length(text: &str) -> usize {
    let in_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
    let length = text.find(|c| !in_word(c)).unwrap_or(text.len());
    // pg_dumpall quotes names with any other character.
    if text[..length]
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        length
    } else {
        // Longer than any token, so the character here is no token.
        1
    }
}

fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut inner = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            inner.push(c);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            inner.push(quote);
        } else {
            return Some((inner, at + 1));
        }
    }
    None
}

/// The text after an `E`: pg_dumpall escapes only backslashes.
fn escaped(text: &str) -> Option<(String, usize)> {
    let mut inner = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => {
                chars.next_if(|(_, next)| *next == '\\')?;
                inner.push('\\');
            }
            '\'' if chars.next_if(|(_, next)| *next == '\'').is_some() => inner.push('\''),
            '\'' => return Some((inner, at + 1)),
            _ => inner.push(c),
        }
    }
    None
}
