//! libpq's keyword strings: `host=db.example dbname='it''s'` with backslash escapes.

use super::{ConnectionInfo, parameters};
use crate::error::{Error, Result};

pub(super) fn parse(text: &str, info: &mut ConnectionInfo) -> Result<()> {
    let mut rest = text.trim_start();
    let mut names_are_safe = true;
    while !rest.is_empty() {
        let name_end = rest
            .find(|c: char| c == '=' || c.is_ascii_whitespace())
            .unwrap_or(rest.len());
        let (name, after) = rest.split_at(name_end);
        let Some(after) = after.trim_start().strip_prefix('=') else {
            return Err(
                Error::config("the connection string lacks an `=` after a parameter's name")
                    .hint("quote values with spaces: host='…' password='…', with \\' and \\\\ inside"),
            );
        };
        let after = after.trim_start();
        // Words after a password with spaces and without quotes are part of the password.
        if !names_are_safe && !parameters::is_known(name) {
            return Err(Error::config("the connection string has an unknown parameter")
                .hint("quote the password: password='…', with \\' and \\\\ inside"));
        }
        names_are_safe &= name != "password" || after.starts_with('\'');
        let (value, after) = read_value(after)?;
        parameters::set(info, name, &value)?;
        rest = after.trim_start();
    }
    Ok(())
}

/// One value, and the rest after it.
fn read_value(text: &str) -> Result<(String, &str)> {
    let quoted = text.starts_with('\'');
    let body = if quoted { &text[1..] } else { text };
    let mut value = String::new();
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &body[at + 1..])),
            c if !quoted && c.is_ascii_whitespace() => return Ok((value, &body[at..])),
            c => value.push(c),
        }
    }
    if quoted {
        return Err(Error::config("the connection string has a quote that is not closed"));
    }
    Ok((value, ""))
}

pub(super) fn write<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(name);
        text.push_str("='");
        for c in value.chars() {
            if matches!(c, '\'' | '\\') {
                text.push('\\');
            }
            text.push(c);
        }
        text.push('\'');
    }
    text
}
