//! Where copies are made: `SCHEMA`, each table under its own name; or `SCHEMA.NAME`, for one table.

use crate::error::{Error, Result};

/// PostgreSQL shortens a longer name without an error.
pub(super) const LONGEST: usize = 63;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CopyPlace {
    pub schema: String,
    pub name: Option<String>,
}

impl CopyPlace {
    /// A name is written as it is, as in `--table`; one with a dot or a quote is written in double quotes, as in SQL.
    pub fn parse(text: &str) -> Result<Self> {
        let refused = |why: &str| {
            Error::config(format!("--into: {text:?} {why}")).hint(
                "give a schema (--into SCHEMA), or for one table also a name (--into SCHEMA.NAME); write a name with a \
                 dot or a quote in double quotes, as in SQL",
            )
        };
        let (schema, rest) = part(text).map_err(refused)?;
        let (name, rest) = match rest.strip_prefix('.') {
            Some(rest) => {
                let (name, rest) = part(rest).map_err(refused)?;
                (Some(name), rest)
            }
            None => (None, rest),
        };
        if !rest.is_empty() {
            return Err(refused("has more than a schema and a name"));
        }
        for part in [Some(&schema), name.as_ref()].into_iter().flatten() {
            if part.len() > LONGEST {
                return Err(refused(
                    "has a name of more than 63 bytes, which PostgreSQL would shorten",
                ));
            }
            if part.chars().any(char::is_control) {
                return Err(refused("has a control character"));
            }
        }
        if schema.starts_with("pg_") || schema == "information_schema" {
            return Err(refused("is a schema of PostgreSQL's own"));
        }
        Ok(Self { schema, name })
    }
}

/// The first name, and what follows it.
fn part(text: &str) -> std::result::Result<(String, &str), &'static str> {
    let (name, rest) = match text.strip_prefix('"') {
        Some(inner) => quoted(inner).ok_or("has a quote that is not closed")?,
        None => {
            let (name, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
            if name.contains('"') {
                return Err("has a quote within a name");
            }
            (name.to_owned(), rest)
        }
    };
    match name.is_empty() {
        true => Err("has an empty name"),
        false => Ok((name, rest)),
    }
}

/// The text before the closing quote, in which quotes are doubled; and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let at = rest.find('"')?;
        name.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None => return Some((name, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_schema_or_a_schema_and_a_name() {
        let parsed = |text: &str| {
            let place = CopyPlace::parse(text).unwrap();
            (place.schema, place.name)
        };
        let named = |schema: &str, name: &str| (schema.to_owned(), Some(name.to_owned()));
        assert_eq!(parsed("yesterday"), ("yesterday".to_owned(), None));
        assert_eq!(parsed("Yesterday's"), ("Yesterday's".to_owned(), None));
        assert_eq!(parsed("a.b"), named("a", "b"));
        assert_eq!(parsed("\"a.b\""), ("a.b".to_owned(), None));
        assert_eq!(parsed("\"a.b\".\"say \"\"hi\"\"\""), named("a.b", "say \"hi\""));
        assert_eq!(parsed("a.\"b.c\""), named("a", "b.c"));
        assert_eq!(parsed("a b.c;d"), named("a b", "c;d"));
        let long = "ü".repeat(32);
        for wrong in [
            "",
            ".",
            "a.",
            ".b",
            "a.b.c",
            "\"a",
            "\"a\"b",
            "a\"b",
            "\"\".b",
            "a.\"\"",
            "a.b\"",
            "\"a\".b.c",
            "pg_temp",
            "pg_catalog.x",
            "information_schema",
            "a\nb",
            "a.b\0",
            &long,
        ] {
            let error = CopyPlace::parse(wrong).unwrap_err();
            assert_eq!(error.code(), crate::error::Code::Config, "{wrong:?}");
        }
    }
}
