//! The words of a statement, with their depth in brackets and without texts and comments. pg_dump writes keywords in
//! capitals and names without quotes in small letters, so a name never looks like a keyword.

/// A word, a sign, or a name in quotes, with the depth of brackets around it. A bracket has the depth of its own
/// inside. Texts and comments are not tokens.
pub(super) type Token<'a> = (usize, &'a str);

pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut depth = 0_usize;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\'' => quoted(rest, first, false),
            'E' | 'e' if rest[1..].starts_with('\'') => 1 + quoted(&rest[1..], '\'', true),
            '-' if rest.starts_with("--") => rest.find(['\n', '\r']).unwrap_or(rest.len()),
            '$' => dollar_quoted(rest),
            _ if first.is_whitespace() => first.len_utf8(),
            _ => {
                let length = match first {
                    '"' => quoted(rest, first, false),
                    _ if first.is_ascii_digit() => length_while(rest, |c| in_word(c) || c == '.'),
                    _ if in_word(first) => length_while(rest, in_word),
                    _ => first.len_utf8(),
                };
                if first == '(' {
                    depth += 1;
                }
                tokens.push((depth, &rest[..length]));
                if first == ')' {
                    depth = depth.saturating_sub(1);
                }
                length
            }
        };
        rest = &rest[length..];
    }
    tokens
}

/// Whether every server reads the text as [`tokens`] does, whatever its encoding: it holds nothing that versions,
/// encodings or settings read differently. That is true for pg_dump's statements for objects that a superuser makes.
pub(super) fn is_clear(text: &str, standard_strings: bool) -> bool {
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let Some(length) = clear_token(rest, first, standard_strings) else {
            return false;
        };
        rest = &rest[length..];
    }
    // Programs in C stop reading here.
    !text.contains('\0')
}

fn clear_token(rest: &str, first: char, standard_strings: bool) -> Option<usize> {
    let closed = |text: &str, quote: char, escapes: bool| {
        let length = quoted(text, quote, escapes);
        (length > 1 && text[..length].ends_with(quote) && is_closed(&text[..length], quote, escapes)).then_some(length)
    };
    match first {
        '\'' => closed(rest, first, false).filter(|length| standard_strings || !rest[..*length].contains('\\')),
        '"' => closed(rest, first, false),
        // The second byte of a letter may look like a backslash.
        'E' | 'e' if rest[1..].starts_with('\'') => {
            let length = 1 + closed(&rest[1..], '\'', true)?;
            rest[..length].is_ascii().then_some(length)
        }
        'U' | 'u' if rest[1..].starts_with('&') => None,
        '$' => {
            let end = 1 + length_while(&rest[1..], |c| c.is_ascii_alphanumeric() || c == '_');
            let tag = rest.get(..=end).filter(|tag| tag.ends_with('$'))?;
            let begins = tag[1..].starts_with(|c: char| !c.is_ascii_digit());
            let at = rest[tag.len()..].find(tag).filter(|_| begins)?;
            Some(at + 2 * tag.len())
        }
        '-' if rest.starts_with("--") => None,
        '/' if rest.starts_with("/*") => None,
        '\\' => None,
        ' ' | '\n' | '\t' => Some(1),
        _ if first.is_ascii_alphanumeric() || first == '_' => {
            let length = length_while(rest, |c| c.is_ascii_alphanumeric() || c == '_');
            (!rest[length..].starts_with('$')).then_some(length)
        }
        _ => first.is_ascii_graphic().then_some(1),
    }
}

/// Whether the text ends with its closing quote.
fn is_closed(text: &str, quote: char, escapes: bool) -> bool {
    // If the quote were open, the quoted text would continue into the added letter.
    let longer = format!("{text} ");
    quoted(&longer, quote, escapes) == text.len()
}

/// The name in a token, without its quotes.
pub(super) fn name(token: &str) -> String {
    match token.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => token.to_owned(),
    }
}

fn length_while(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

fn in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the quoted text at the start of `text`; an open quote reaches to the end.
fn quoted(text: &str, quote: char, escapes: bool) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if escapes && c == '\\' {
            chars.next();
        } else if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return at + 1;
        }
    }
    text.len()
}

fn dollar_quoted(text: &str) -> usize {
    let tag = text[1..].find(|c: char| !in_word(c)).map(|at| at + 1);
    match tag {
        Some(end) if text[end..].starts_with('$') => {
            let tag = &text[..=end];
            text[tag.len()..].find(tag).map_or(text.len(), |at| at + 2 * tag.len())
        }
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::{Token, in_word, is_clear, name, tokens};

    fn words(text: &str) -> Vec<Token<'_>> {
        let mut tokens = tokens(text);
        tokens.retain(|(_, token)| token.starts_with(in_word));
        tokens
    }

    #[test]
    fn words_in_quotes_are_not_seen_and_brackets_are_counted() {
        let text = "CREATE FUNCTION a.\"b LANGUAGE c\"(x text DEFAULT 'it''s LANGUAGE c'::text) RETURNS int\n    \
                    LANGUAGE plpgsql\n    AS $a$ LANGUAGE c $b$ $a$ -- LANGUAGE c\n;E'\\' SUPPORT'";
        let found = words(text);
        let outside: Vec<&str> = found
            .iter()
            .filter(|(depth, _)| *depth == 0)
            .map(|(_, word)| *word)
            .collect();
        assert_eq!(
            outside,
            ["CREATE", "FUNCTION", "a", "RETURNS", "int", "LANGUAGE", "plpgsql", "AS"]
        );
        let inside: Vec<&str> = found
            .iter()
            .filter(|(depth, _)| *depth == 1)
            .map(|(_, word)| *word)
            .collect();
        assert_eq!(inside, ["x", "text", "DEFAULT", "text"]);
        assert!(words("$1 'open").iter().all(|(_, word)| *word == "1"));
        assert_eq!(
            tokens("a.\"b\"\"c\" (1.5, ''); d"),
            [
                (0, "a"),
                (0, "."),
                (0, "\"b\"\"c\""),
                (1, "("),
                (1, "1.5"),
                (1, ","),
                (1, ")"),
                (0, ";"),
                (0, "d")
            ]
        );
        assert_eq!(name("\"b\"\"c\""), "b\"c");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_not_clear() {
        for clear in [
            "CREATE SCHEMA \"Größe\" AUTHORIZATION x;\n\n",
            "COMMENT ON EXTENSION x IS 'it''s \u{fffd} -- /* $a$';",
            "CREATE FUNCTION s.f(a integer DEFAULT 1.5) RETURNS x\n    LANGUAGE sql LEAKPROOF\n    AS $_X$ ; -- é $ $_X$;",
            "CREATE FUNCTION s.f() RETURNS x LANGUAGE c AS '$libdir/x', E'\\'f';",
            "",
        ] {
            assert!(is_clear(clear, true), "{clear}");
        }
        for unclear in [
            "CREATE ACCESS METHOD z HANDLER h;--\rDO $$ $$;",
            "CREATE SCHEMA x; -- more",
            "CREATE SCHEMA x /* ' */",
            "SELECT E'\u{fffd}\\'; DO $$ $$; --'",
            "SELECT $é$ ; $é$",
            "SELECT s$b$ ; s$b$",
            "SELECT $1$ ; $1$",
            "SELECT $a$ ; $A$",
            "SELECT U&'x'",
            "SELECT 'open",
            "SELECT 'open''",
            "SELECT \"open",
            "SELECT e'open\\'",
            "SELECT 1\u{b}2",
            "SELECT é",
            "SELECT 'a\0b'",
            "\\! id",
        ] {
            assert!(!is_clear(unclear, true), "{unclear}");
        }
        assert!(is_clear("SELECT 'a\\'", true) && !is_clear("SELECT 'a\\'", false));
    }
}
