//! Any bytes, read as a script of roles.

use crate::postgres::{Statement, statements};

/// pgstow runs only statements of the script, each once: the statements are in the script, in this order, with only
/// blanks, comments, semicolons and psql's two keys between them. Written again with semicolons, the same statements
/// are found. Two scripts, one after the other, give the statements of both. The summary of a statement ends before
/// its first value.
pub fn check(bytes: &[u8]) {
    let found = statements(bytes);
    let mut rest = bytes;
    for statement in &found {
        let text = statement.bytes();
        assert!(!text.is_empty() && text == text.trim_ascii());
        rest = after_gap(rest);
        rest = rest.strip_prefix(text).expect("a statement stands in the script");
        let summary = statement.summary();
        assert!(!summary.contains('\'') && summary.chars().count() <= 81, "{summary:?}");
    }
    assert!(after_gap(rest).is_empty(), "the rest is no statement");

    let texts = || found.iter().map(Statement::bytes);
    let again = statements(&joined(texts()));
    assert!(again.iter().map(Statement::bytes).eq(texts()), "written and read");

    let middle = bytes.len() / 2;
    let end = middle + bytes[middle..].iter().take_while(|byte| **byte != b'\n').count();
    let (before, after) = bytes.split_at(end);
    if is_closed(before) {
        let mut both = statements(before);
        both.extend(statements(after));
        assert_eq!(statements(&joined([before, after])), both, "one after the other");
    }
}

/// Puts each semicolon on a line of its own, because the text before it may end with a comment.
fn joined<'a>(texts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    texts.into_iter().collect::<Vec<_>>().join(&b"\n;\n"[..])
}

/// Whether the script ends outside of quotes and comments.
fn is_closed(script: &[u8]) -> bool {
    let found = statements(&joined([script, b"LAST"]));
    found.last().is_some_and(|last| last.bytes() == b"LAST")
}

/// Skips blanks, semicolons, lines with psql's keys, `--…` and `/* … */`, by rules of its own.
fn after_gap(mut script: &[u8]) -> &[u8] {
    loop {
        script = match script {
            [b';' | b' ' | b'\t' | b'\n' | b'\r' | b'\x0c', rest @ ..] => rest,
            [b'-', b'-', ..] => line(script).1,
            [b'\\', ..] if is_key(line(script).0) => line(script).1,
            [b'/', b'*', rest @ ..] => after_comment(rest),
            _ => return script,
        };
    }
}

/// The first line, and the rest. A carriage return ends a line too.
fn line(script: &[u8]) -> (&[u8], &[u8]) {
    let end = script.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
    end.map_or((script, &[]), |end| (&script[..end], &script[end + 1..]))
}

/// All other commands of psql count as statements, and pgstow runs none of them.
fn is_key(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    [&b"\\restrict "[..], b"\\unrestrict "]
        .iter()
        .any(|key| line.starts_with(key))
}

fn after_comment(mut script: &[u8]) -> &[u8] {
    let mut depth = 1;
    while depth > 0 {
        script = match script {
            [b'/', b'*', rest @ ..] => {
                depth += 1;
                rest
            }
            [b'*', b'/', rest @ ..] => {
                depth -= 1;
                rest
            }
            [_, rest @ ..] => rest,
            [] => return script,
        };
    }
    script
}
