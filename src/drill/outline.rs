//! A statement's own words: what of it stands outside of brackets, quotes and comments. pg_dump writes
//! keywords in capitals and names without quotes in small letters, so that a name is never taken for a
//! keyword.

/// Words with the depth of the brackets that they stand in.
pub(super) fn words(text: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut depth = 0_usize;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' => {
                depth += 1;
                1
            }
            ')' => {
                depth = depth.saturating_sub(1);
                1
            }
            '\'' | '"' => quoted(rest, first, false),
            'E' if rest[1..].starts_with('\'') => 1 + quoted(&rest[1..], '\'', true),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '$' => dollar_quoted(rest),
            _ if in_word(first) => {
                let length = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
                words.push((depth, &rest[..length]));
                length
            }
            _ => first.len_utf8(),
        };
        rest = &rest[length..];
    }
    words
}

fn in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// How long the quoted text is that `text` begins with; what is not closed goes to the end.
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
    use super::words;

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
    }
}
