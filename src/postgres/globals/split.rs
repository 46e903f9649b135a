//! Splits SQL text into statements, with as much of PostgreSQL's lexical rules as needed to find the semicolons
//! between them.

/// One statement, without its semicolon and the comments before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    text: Vec<u8>,
    words: Vec<Word>,
}

/// A bare word in upper case, or a quoted identifier unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Bare(String),
    Quoted(String),
}

/// How much of a statement is shown when it fails.
const SUMMARY: usize = 80;

/// Splits a script. psql's own commands are on lines of their own between statements, and count as statements, except
/// `\restrict` and `\unrestrict`.
pub fn statements(sql: &[u8]) -> Vec<Statement> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < sql.len() {
        at = match sql[at] {
            b'\\' => {
                let end = line_end(sql, at);
                let text = sql[at..end].trim_ascii_end();
                if !text.starts_with(b"\\restrict ") && !text.starts_with(b"\\unrestrict ") {
                    found.push(Statement {
                        text: text.to_vec(),
                        words: Vec::new(),
                    });
                }
                end
            }
            byte if byte == b';' || byte.is_ascii_whitespace() => at + 1,
            _ if is_comment(sql, at) => token_end(sql, at),
            _ => {
                let start = at;
                let mut words = Vec::new();
                while at < sql.len() && sql[at] != b';' {
                    let end = token_end(sql, at);
                    words.extend(word(&sql[at..end]));
                    at = end;
                }
                found.push(Statement {
                    text: sql[start..at].trim_ascii_end().to_vec(),
                    words,
                });
                at
            }
        };
    }
    found
}

impl Statement {
    pub fn bytes(&self) -> &[u8] {
        &self.text
    }

    fn starts_with(&self, words: &[&str]) -> bool {
        let mut own = self.words.iter();
        words
            .iter()
            .all(|wanted| matches!(own.next(), Some(Word::Bare(word)) if word == wanted))
    }

    /// Whether it concerns only the session: `SET …`.
    pub(super) fn is_setting(&self) -> bool {
        self.starts_with(&["SET"]) || self.starts_with(&["RESET"])
    }

    /// The encoding of the text that follows.
    pub(super) fn client_encoding(&self) -> Option<String> {
        let text = std::str::from_utf8(&self.text).ok()?;
        let value = self
            .starts_with(&["SET", "CLIENT_ENCODING"])
            .then(|| text.split_once('='))??
            .1;
        Some(value.trim().trim_matches('\'').to_owned())
    }

    pub(super) fn is_about_tablespace(&self) -> bool {
        let is = |word: Option<&Word>, wanted: &str| matches!(word, Some(Word::Bare(word)) if word == wanted);
        is(self.words.get(1), "TABLESPACE")
            || self
                .words
                .windows(2)
                .any(|pair| is(pair.first(), "ON") && is(pair.get(1), "TABLESPACE"))
    }

    /// Its beginning, up to the first value.
    pub fn summary(&self) -> String {
        summary(&self.text)
    }
}

pub(super) fn summary(sql: &[u8]) -> String {
    let text = String::from_utf8_lossy(sql);
    // A value is in single quotes or dollar quotes.
    let words = text.split(['\'', '$']).next().unwrap_or_default();
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let words = words.replace(char::is_control, "?");
    if words.chars().count() <= SUMMARY && words.len() + 1 >= text.len() {
        return words;
    }
    let cut: String = words.chars().take(SUMMARY).collect();
    format!("{}…", cut.trim_end())
}

fn line_end(sql: &[u8], at: usize) -> usize {
    memchr::memchr2(b'\n', b'\r', &sql[at..]).map_or(sql.len(), |end| at + end + 1)
}

fn is_comment(sql: &[u8], at: usize) -> bool {
    sql[at..].starts_with(b"--") || sql[at..].starts_with(b"/*")
}

/// Letters of other scripts are part of identifiers too.
fn in_identifier(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// The end of the token that begins at `at`: a word, a quoted text, a comment, or one character. A token that is not
/// closed goes to the end of the text.
fn token_end(sql: &[u8], at: usize) -> usize {
    let rest = &sql[at..];
    match rest[0] {
        b'\'' => quoted_end(sql, at + 1, b'\'', false),
        b'"' => quoted_end(sql, at + 1, b'"', false),
        b'e' | b'E' if rest.get(1) == Some(&b'\'') => quoted_end(sql, at + 2, b'\'', true),
        b'-' if rest.starts_with(b"--") => line_end(sql, at),
        b'/' if rest.starts_with(b"/*") => comment_end(sql, at),
        b'$' => dollar_end(sql, at),
        byte if in_identifier(byte) => {
            let length = rest.iter().take_while(|byte| in_identifier(**byte)).count();
            at + length
        }
        _ => at + 1,
    }
}

fn quoted_end(sql: &[u8], mut at: usize, quote: u8, escapes: bool) -> usize {
    while at < sql.len() {
        match sql[at] {
            b'\\' if escapes => at += 2,
            byte if byte == quote && sql.get(at + 1) == Some(&quote) => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    sql.len()
}

/// Comments can be nested.
fn comment_end(sql: &[u8], mut at: usize) -> usize {
    let mut depth = 0;
    while at < sql.len() {
        if sql[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if sql[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    sql.len()
}

/// `$tag$ … $tag$`; a single `$` (as in `$1`) is one character.
fn dollar_end(sql: &[u8], at: usize) -> usize {
    let tag = sql[at + 1..]
        .iter()
        .take_while(|byte| in_identifier(**byte) && **byte != b'$');
    let close = at + 1 + tag.count();
    if sql.get(close) != Some(&b'$') || sql[at + 1].is_ascii_digit() {
        return at + 1;
    }
    let delimiter = &sql[at..=close];
    let end = memchr::memmem::find(&sql[close + 1..], delimiter);
    end.map_or(sql.len(), |end| close + 1 + end + delimiter.len())
}

fn word(token: &[u8]) -> Option<Word> {
    let text = std::str::from_utf8(token).ok()?;
    if let Some(inner) = text.strip_prefix('"') {
        let name = inner.strip_suffix('"').unwrap_or(inner);
        return Some(Word::Quoted(name.replace("\"\"", "\"")));
    }
    let first = *token.first()?;
    let is_word = in_identifier(first) && first != b'$' && !text.contains('\'');
    is_word.then(|| Word::Bare(text.to_uppercase()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(sql: &str) -> Vec<String> {
        let found = statements(sql.as_bytes());
        found
            .iter()
            .map(|one| String::from_utf8(one.text.clone()).unwrap())
            .collect()
    }

    #[test]
    fn semicolons_within_quotes_and_comments_end_nothing() {
        let pieces = [
            "CREATE ROLE \"a;b\n\"\"--c\"",
            "COMMENT ON ROLE x IS 'it''s; /* no'",
            "ALTER ROLE x SET search_path TO E'\\';', \"y\"",
            "SELECT $$;'$$, $b$ ;$$; $b$, $1 + a$b",
            "GRANT a /* ; /* nested; */ ; */ TO b -- ; last",
            "SELECT 'back\\'",
        ];
        let sql = format!(
            "--\n-- ; head\n--\n\n\\restrict x;'y\nSET a = 1;{};\n\n;\\unrestrict x\n/* tail; */ ",
            pieces.join("\n;\n")
        );
        assert_eq!(split(&sql)[1..], pieces);
        assert_eq!(split("ALTER ROLE x WITH"), ["ALTER ROLE x WITH"]);
        assert_eq!(split("SELECT 'open; SELECT"), ["SELECT 'open; SELECT"]);
        assert!(split(" \n-- nothing").is_empty());
    }

    fn one(sql: &str) -> Statement {
        statements(sql.as_bytes()).remove(0)
    }

    #[test]
    fn what_is_about_tablespaces_is_known_and_what_is_only_named_so_is_not() {
        for sql in [
            "CREATE TABLESPACE fast OWNER ada LOCATION '/disk'",
            "alter tablespace fast SET (random_page_cost = 1)",
            "GRANT ALL ON TABLESPACE fast TO PUBLIC",
            "COMMENT ON TABLESPACE fast IS 'x'",
            "SECURITY LABEL FOR p ON TABLESPACE fast IS 'x'",
        ] {
            assert!(one(sql).is_about_tablespace(), "{sql}");
        }
        for sql in [
            "CREATE ROLE \"tablespace\"",
            "COMMENT ON ROLE x IS 'ON TABLESPACE y'",
            "GRANT \"TABLESPACE\" TO \"on\"",
            "ALTER ROLE ada SET default_tablespace TO 'fast'",
        ] {
            assert!(!one(sql).is_about_tablespace(), "{sql}");
        }
    }

    #[test]
    fn settings_are_known_and_the_encoding_is_read() {
        assert_eq!(
            one("SET client_encoding = 'LATIN1'").client_encoding().unwrap(),
            "LATIN1"
        );
        assert!(one("SET x = 1").is_setting() && one("SET x = 1").client_encoding().is_none());
        assert!(!one("ALTER ROLE x SET client_encoding = 'LATIN1'").is_setting());
    }

    #[test]
    fn a_summary_has_no_value() {
        assert_eq!(
            one("ALTER ROLE x SET a.token TO 'secret'").summary(),
            "ALTER ROLE x SET a.token TO…"
        );
        assert_eq!(one("CREATE ROLE x").summary(), "CREATE ROLE x");
        assert_eq!(one("DO $x$secret$x$").summary(), "DO…");
        assert_eq!(one("\\! echo \x1b[m").summary(), "\\! echo ?[m");
        assert!(
            one(&format!("CREATE ROLE \"{}\"", "é".repeat(300)))
                .summary()
                .chars()
                .count()
                <= SUMMARY + 1
        );
    }

    proptest! {
        #[test]
        fn any_names_and_texts_come_back_as_they_were(texts in proptest::collection::vec("[^\0]{0,20}", 1..6)) {
            let made: Vec<String> = texts
                .iter()
                .map(|text| {
                    let (name, value) = (text.replace('"', "\"\""), text.replace('\'', "''"));
                    format!("COMMENT ON ROLE \"{name}\" IS '{value}'")
                })
                .collect();
            prop_assert_eq!(split(&(made.join(";\n") + ";\n")), made);
        }

        #[test]
        fn no_bytes_make_it_panic_and_none_get_lost(sql in "[-/*;'\"$eE\\\\ab\n ]{0,60}") {
            let kept: usize = statements(sql.as_bytes()).iter().map(|one| one.bytes().len()).sum();
            prop_assert!(kept <= sql.len());
            for statement in statements(sql.as_bytes()) {
                statement.summary();
                statement.is_about_tablespace();
            }
        }
    }
}
