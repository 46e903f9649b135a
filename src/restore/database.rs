//! The database itself: how the archive says it was made and set up, for one of another name.

use crate::archive::Item;
use crate::postgres::quoting::identifier;

/// The statement that makes it, with the encoding and locale that it had.
pub(crate) fn creation(items: &[Item], name: &str) -> String {
    items
        .iter()
        .find(|item| item.entry.desc == "DATABASE")
        .and_then(|item| renamed(&item.details.definition, name))
        .unwrap_or_else(|| format!("CREATE DATABASE {} WITH TEMPLATE = template0", identifier(name)))
}

/// The same for a server that has no tablespaces but its own.
pub(crate) fn without_tablespace(creation: &str) -> String {
    match creation.rfind(" TABLESPACE = ") {
        Some(at) => creation[..at].to_owned(),
        None => creation.to_owned(),
    }
}

/// Its owner, where the archive names one.
pub(super) fn owner(items: &[Item]) -> Option<&str> {
    let database = items.iter().find(|item| item.entry.desc == "DATABASE")?;
    Some(database.details.owner.as_str()).filter(|owner| !owner.is_empty())
}

/// Its settings, comment and grants: statements for when all data is there, since some of them
/// (`default_transaction_read_only`) would stand in its way.
pub(super) fn properties(items: &[Item], name: &str, grants: bool) -> Vec<String> {
    items
        .iter()
        .filter(|item| item.is_of_database() && item.entry.desc != "DATABASE")
        .filter(|item| grants || !item.is_grant())
        .flat_map(|item| statements(&item.details.definition))
        .filter_map(|statement| renamed(statement, name))
        .collect()
}

/// The statements of a definition: each ends with a semicolon outside of quotes.
pub(crate) fn statements(definition: &str) -> Vec<&str> {
    let mut statements = Vec::new();
    let mut start = 0;
    let mut quote = None;
    for (at, c) in definition.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None, ';') => {
                statements.push(definition[start..=at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    statements.retain(|statement| !statement.is_empty());
    statements
}

/// The same statement about a database of this name: what follows its first word `DATABASE`.
fn renamed(statement: &str, name: &str) -> Option<String> {
    const WORD: &str = "DATABASE ";
    // Before it stand only keywords and names of roles.
    let mut quote = false;
    let at = statement.char_indices().find_map(|(at, c)| {
        if c == '"' {
            quote = !quote;
        }
        (!quote && statement[at..].starts_with(WORD)).then_some(at + WORD.len())
    })?;
    let (before, rest) = statement.split_at(at);
    let end = match rest.strip_prefix('"') {
        Some(inner) => {
            let mut chars = inner.char_indices().peekable();
            loop {
                match chars.next()? {
                    (_, '"') if chars.peek().is_some_and(|(_, next)| *next == '"') => {
                        chars.next();
                    }
                    (at, '"') => break at + 2,
                    _ => {}
                }
            }
        }
        None => rest.find([' ', ';', '\n']).unwrap_or(rest.len()),
    };
    Some(format!("{before}{}{}", identifier(name), &rest[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_speak_of_the_new_database() {
        for (statement, expected) in [
            (
                "CREATE DATABASE shop WITH TEMPLATE = template0 ENCODING = 'UTF8';",
                "CREATE DATABASE \"new\" WITH TEMPLATE = template0 ENCODING = 'UTF8';",
            ),
            (
                "CREATE DATABASE \"sh\"\"op WITH\" WITH TEMPLATE = template0;",
                "CREATE DATABASE \"new\" WITH TEMPLATE = template0;",
            ),
            (
                "ALTER ROLE \"DATABASE x\" IN DATABASE shop SET work_mem TO '1MB';",
                "ALTER ROLE \"DATABASE x\" IN DATABASE \"new\" SET work_mem TO '1MB';",
            ),
            (
                "GRANT CONNECT ON DATABASE shop TO reader;",
                "GRANT CONNECT ON DATABASE \"new\" TO reader;",
            ),
        ] {
            assert_eq!(renamed(statement, "new").as_deref(), Some(expected));
        }
        assert_eq!(
            statements("COMMENT ON DATABASE shop IS 'a;b';\n\nALTER DATABASE shop SET x TO 'it''s;';\n"),
            [
                "COMMENT ON DATABASE shop IS 'a;b';",
                "ALTER DATABASE shop SET x TO 'it''s;';"
            ]
        );
    }
}
