//! Sequences that the restore itself moves: the query of a materialized view, or a function in an index, may take
//! numbers after the position of the sequence was set.

use crate::error::Result;
use crate::format::archive::Item;
use crate::format::script::{Contents, Definition};
use crate::postgres::Session;

/// Kinds that a restore does not evaluate after positions are set.
const INERT: [&str; 10] = [
    "ACL",
    "COMMENT",
    "DATABASE",
    "DEFAULT",
    "FOREIGN TABLE",
    "SEQUENCE",
    "SEQUENCE OWNED BY",
    "SEQUENCE SET",
    "TABLE",
    "TABLE DATA",
];

/// The definitions of a backup in small letters, if any of them takes numbers from sequences.
pub(super) struct Moving(Vec<u8>);

impl Moving {
    pub fn of_archive(items: &[Item]) -> Moving {
        Moving::of(items.iter().map(|item| (item.entry.desc.clone(), item.definition())))
    }

    fn of_script(script: &Contents) -> Moving {
        let statements = |one: &Definition| one.statements.clone().unwrap_or_default();
        let made = script.definitions.iter();
        Moving::of(made.flat_map(|one| statements(one).into_iter().map(|sql| (one.header.kind(), sql))))
    }

    fn of<T: AsRef<[u8]>>(definitions: impl Iterator<Item = (String, T)>) -> Moving {
        let mut texts = Vec::new();
        for (kind, definition) in definitions {
            if !INERT.contains(&kind.as_str()) {
                texts.extend(definition.as_ref().to_ascii_lowercase());
                texts.push(b'\n');
            }
        }
        let moves = ["nextval", "setval"].iter().any(|call| contains(&texts, call));
        Moving(if moves { texts } else { Vec::new() })
    }

    /// Whether a definition names this sequence. If none does, the restore cannot have moved it.
    pub fn may_move(&self, sequence: &str) -> bool {
        contains(&self.0, &sequence.to_ascii_lowercase())
    }

    pub fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }
}

fn contains(texts: &[u8], word: &str) -> bool {
    memchr::memmem::find(texts, word.as_bytes()).is_some()
}

/// Moves sequences back that passed the position in the script. A sequence before its position was not set, and stays.
pub(super) async fn move_back(session: &Session, script: &Contents) -> Result<()> {
    let moving = Moving::of_script(script);
    let positions = script.definitions.iter();
    let positions = positions.filter(|one| one.header.kind() == "SEQUENCE SET" && moving.may_move(&one.header.name()));
    for statement in positions.flat_map(|one| one.statements.iter().flatten()) {
        if let Some((name, value, is_called)) = position(statement) {
            session.move_sequence_back(&name, value, is_called).await?;
        }
    }
    Ok(())
}

/// Reads the statement that pg_dump writes for a position.
fn position(statement: &[u8]) -> Option<(String, i64, bool)> {
    let text = std::str::from_utf8(statement).ok()?.trim();
    let text = text.strip_prefix("SELECT pg_catalog.setval('")?.strip_suffix(");")?;
    let (rest, is_called) = text.rsplit_once(", ")?;
    let (name, value) = rest.rsplit_once("', ")?;
    Some((name.replace("''", "'"), value.parse().ok()?, is_called.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_and_calls_are_seen() {
        let read = |text: &str| position(text.as_bytes());
        assert_eq!(
            read("SELECT pg_catalog.setval('s.\"it''s, 1\"', -5, true);"),
            Some(("s.\"it's, 1\"".to_owned(), -5, true))
        );
        assert_eq!(read("SELECT pg_catalog.setval(f(), 5, true);"), None);
    }

    #[test]
    fn a_sequence_moves_if_something_that_is_evaluated_speaks_of_it() {
        let moving = |kind: &str, text: &str| Moving::of([(kind.to_owned(), text.to_owned())].into_iter());
        let function = moving("FUNCTION", "perform NextVal('s.\"Q\"')");
        assert!(function.may_move("Q") && !function.may_move("another"));
        assert!(moving("FUNCTION", "SELECT 'Q'").is_nothing());
        assert!(moving("DEFAULT", "ALTER TABLE t ALTER a SET DEFAULT nextval('q')").is_nothing());
    }
}
