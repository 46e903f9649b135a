//! Reads `.env` text like dotenv of Node.js, because files of the older systems must keep working: values may hold
//! spaces (`0 2 * * *`) and `$` without quotes, nothing is substituted, and the last of several equal names counts.
//!
//! One difference: an unquoted `#` starts a comment only after a space, so that a password with a `#` is not cut short.

/// A line that is not `NAME=value`. The text itself is not kept, because it may be a part of a secret.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed {
    pub line: usize,
    pub why: &'static str,
}

pub fn parse(text: &str) -> Result<Vec<(String, String)>, Malformed> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut pairs = Vec::new();
    let mut lines = text.split('\n').enumerate();
    while let Some((index, line)) = lines.next() {
        let malformed = |why| Malformed { line: index + 1, why };
        let line = line.trim_start().trim_end_matches('\r');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or(malformed("there is no `=`"))?;
        let name = name.trim();
        let name = name.strip_prefix("export ").map_or(name, str::trim_start);
        let plausible = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if name.is_empty() || !name.chars().all(plausible) {
            return Err(malformed("the text before `=` is not a variable's name"));
        }
        let value = value.trim_start();
        let value = match value.chars().next() {
            Some(quote @ ('"' | '\'' | '`')) => {
                // A quoted value may run over several lines (keys and certificates do).
                let mut quoted = String::new();
                let mut part = &value[1..];
                let end = loop {
                    if let Some(end) = closing(part, quote) {
                        break end;
                    }
                    quoted.push_str(part);
                    quoted.push('\n');
                    let (_, next) = lines.next().ok_or(malformed("a quote is not closed"))?;
                    part = next.trim_end_matches('\r');
                };
                let rest = part[end + 1..].trim_start();
                if !rest.is_empty() && !rest.starts_with('#') {
                    return Err(malformed("something follows the closing quote"));
                }
                quoted.push_str(&part[..end]);
                if quote == '"' { unescape(&quoted) } else { quoted }
            }
            _ => without_comment(value).trim_end().to_owned(),
        };
        pairs.push((name.to_owned(), value));
    }
    Ok(pairs)
}

/// Where in this line `quote` ends the value. In double quotes, a quote after a backslash does not end it.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' && quote == '"' {
            escaped = true;
        } else if c == quote {
            return Some(at);
        }
    }
    None
}

/// `\n`, `\r`, `\t`, `\"` and `\\` are the same as in JSON; any other backslash stays as it is.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some(c @ ('"' | '\\')) => out.push(c),
            Some(c) => out.extend(['\\', c]),
            None => out.push('\\'),
        }
    }
    out
}

fn without_comment(value: &str) -> &str {
    if value.starts_with('#') {
        return "";
    }
    let comment = value
        .char_indices()
        .zip(value.chars().skip(1))
        .find(|((_, before), c)| *c == '#' && before.is_whitespace());
    comment.map_or(value, |((at, _), _)| &value[..at])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap()
    }

    fn value(text: &str) -> String {
        pairs(text).pop().unwrap().1
    }

    #[test]
    fn a_cron_line_needs_no_quotes() {
        assert_eq!(value("FULL_BACKUP_SCHEDULE=0 2 * * *"), "0 2 * * *");
    }

    #[test]
    fn dollars_and_hashes_in_a_password_stay() {
        assert_eq!(value("DB_PASSWORD=pa$$w#rd{x}"), "pa$$w#rd{x}");
        assert_eq!(value(r#"DB_PASSWORD="p#a$HOME\"q\\""#), r#"p#a$HOME"q\"#);
        assert_eq!(value(r"DB_PASSWORD='a\nb'"), r"a\nb");
    }

    #[test]
    fn comments_exports_blank_lines_and_byte_order_marks_are_understood() {
        let text = "\u{feff}# head\r\n\r\nexport A = 1 # one\r\nB=\r\nC=#nothing\r\nD=x#y\r\n";
        let expected = [("A", "1"), ("B", ""), ("C", ""), ("D", "x#y")];
        assert_eq!(pairs(text), expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn a_quoted_value_may_span_lines() {
        assert_eq!(value("KEY=\"one\ntwo\" # end\n"), "one\ntwo");
        assert_eq!(value("KEY=`a'b\"c`"), "a'b\"c");
    }

    #[test]
    fn a_value_of_many_lines_is_read_once() {
        // In quadratic time, this test would not end today.
        let lines = "\\\n".repeat(1 << 20);
        assert_eq!(value(&format!("A=\"{lines}\"\n")), lines);
    }

    #[test]
    fn a_malformed_line_is_named_by_its_number_alone() {
        assert_eq!(parse("A=1\nhunter2\n").unwrap_err().line, 2);
        assert_eq!(parse("A='x' y").unwrap_err().why, "something follows the closing quote");
        assert_eq!(parse("\nA=\"x\n\n").unwrap_err().line, 2);
        assert_eq!(parse("a b=1").unwrap_err().line, 1);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_without_panic(text in "\\PC*|[A-Z='\"`#\\\\ \n\r]{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn a_value_in_double_quotes_comes_back(value in "[^\\x00\r]{0,40}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            prop_assert_eq!(&pairs(&format!("A=\"{quoted}\""))[0].1, &value);
        }
    }
}
