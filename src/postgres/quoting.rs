//! Names in SQL.

/// An identifier as SQL wants it, always in quotes.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A schema's object, both names in quotes.
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_within_are_doubled() {
        assert_eq!(qualified("a", "b\"; DROP"), "\"a\".\"b\"\"; DROP\"");
    }
}
