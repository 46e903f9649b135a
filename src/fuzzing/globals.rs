//! Any bytes as a script of roles.

use crate::postgres::{Statement, statements};

/// Nothing that is run is made up, nothing runs twice: the statements stand in the script, in
/// their order, with only blanks, comments, semicolons and psql's two keys between them. They
/// are found again when they are written with semicolons, and two scripts, one after the other,
/// give what each gives. What is told of a statement ends before its first value.
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

/// On a line of its own, because a comment may be the end of what is before it.
fn joined<'a>(texts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    texts.into_iter().collect::<Vec<_>>().join(&b"\n;\n"[..])
}

/// Whether what follows the script is not a part of a quoted text or comment in it.
fn is_closed(script: &[u8]) -> bool {
    let found = statements(&joined([script, b"LAST"]));
    found.last().is_some_and(|last| last.bytes() == b"LAST")
}

/// Read by rules of its own: blanks and semicolons, psql's keys and `--…` to the line's end, `/* … */`.
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

/// The first line, and what follows it. A carriage return ends one too.
fn line(script: &[u8]) -> (&[u8], &[u8]) {
    let end = script.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
    end.map_or((script, &[]), |end| (&script[..end], &script[end + 1..]))
}

/// All other commands of psql's are statements, which are none that is run.
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
