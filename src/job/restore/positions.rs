//! Sets sequences, with a statement of ours.

use super::rows::{BackupRows, execute, refused};
use crate::error::{Code, Error, Result};
use crate::format::archive::{Item, Loading};
use crate::postgres::Wire;
use crate::postgres::quoting::literal;

/// Sets the tables' sequences. A transaction does not undo that, so it is done after the commit.
pub(super) async fn positions(backup: BackupRows<'_>, wire: &mut Wire, encoding: &str) -> Result<()> {
    let chosen = backup.plan.loads.iter().flat_map(|load| &load.list);
    let chosen: Vec<i64> = chosen.copied().collect();
    let set = |item: &&Item| item.entry.desc == "SEQUENCE SET" && chosen.contains(&item.entry.dump_id);
    execute(wire, &format!("SET client_encoding = {}", literal(encoding))).await?;
    for item in backup.items.iter().filter(set) {
        let forward = forward(item.definition()).ok_or_else(|| {
            let what = format!("{}: its statement is not one that pg_dump writes", item.entry);
            Error::new(Code::Integrity, what)
        })?;
        wire.execute(&forward)
            .await
            .map_err(|refusal| refused("a sequence could not be set", refusal))?;
    }
    Ok(())
}

/// `SELECT pg_catalog.setval('s.q', 5, true);` written anew from its parts, for a sequence that has not advanced
/// further since the backup: numbers that are in use must not be given out again. Both statements are one
/// transaction. The first locks the sequence and refuses any other kind of object of this name, because the second is
/// planned over it.
fn forward(statement: &[u8]) -> Option<Vec<u8>> {
    let rest = statement.trim_ascii().strip_prefix(b"SELECT pg_catalog.setval(")?;
    let rest = rest.strip_suffix(b");")?;
    let (rest, called) = match rest.strip_suffix(b", true") {
        Some(rest) => (rest, "true"),
        None => (rest.strip_suffix(b", false")?, "false"),
    };
    let at = rest.iter().rposition(|byte| *byte == b',')?;
    let value: i64 = std::str::from_utf8(&rest[at + 1..]).ok()?.trim().parse().ok()?;
    let literal = rest[..at].strip_prefix(b"'")?.strip_suffix(b"'")?;
    // Within the literal, single quotes in the name are doubled.
    let mut name = Vec::with_capacity(literal.len());
    let mut bytes = literal.iter().peekable();
    while let Some(&byte) = bytes.next() {
        if byte == b'\'' && bytes.next() != Some(&b'\'') {
            return None;
        }
        name.push(byte);
    }
    if !Loading::is_name(&name) {
        return None;
    }
    let tail = format!("', {value}, {called}) FROM pg_catalog.pg_sequence p CROSS JOIN ",);
    let (by, end) = (
        b" q WHERE p.seqrelid OPERATOR(pg_catalog.=) '",
        format!(
            "'::pg_catalog.regclass AND (q.last_value OPERATOR(pg_catalog.=) {value} AND NOT q.is_called \
         OR CASE WHEN p.seqincrement OPERATOR(pg_catalog.>) 0 THEN q.last_value OPERATOR(pg_catalog.<) {value} \
         ELSE q.last_value OPERATOR(pg_catalog.>) {value} END)"
        ),
    );
    Some(
        [
            b"SELECT pg_catalog.pg_sequence_last_value('",
            literal,
            b"'::pg_catalog.regclass); SELECT pg_catalog.setval('",
            literal,
            tail.as_bytes(),
            &name,
            by,
            literal,
            end.as_bytes(),
        ]
        .concat(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_set_by_a_statement_of_ours() {
        let made = |text: &str| forward(text.as_bytes()).map(|made| String::from_utf8(made).unwrap());
        let plain = made("SELECT pg_catalog.setval('public.people_id_seq', 500, true);\n").unwrap();
        assert!(
            plain
                .starts_with("SELECT pg_catalog.pg_sequence_last_value('public.people_id_seq'::pg_catalog.regclass); "),
            "{plain}"
        );
        assert!(plain.contains("; SELECT pg_catalog.setval('public.people_id_seq', 500, true) FROM pg_catalog.pg_sequence p CROSS JOIN public.people_id_seq q"), "{plain}");
        let odd = made("SELECT pg_catalog.setval('public.\"it''s\"', -5, false);").unwrap();
        assert!(
            odd.contains("('public.\"it''s\"', -5, false)") && odd.contains(" CROSS JOIN public.\"it's\" q "),
            "{odd}"
        );
        for hostile in [
            "SELECT pg_catalog.setval('public.a', 1, true); DROP TABLE x;",
            "SELECT pg_catalog.setval('public.a', 1, true); --, true);",
            "SELECT pg_catalog.setval('public.a'); DROP TABLE x; SELECT ('', 1, true);",
            "SELECT pg_catalog.setval('public.a', (SELECT 1), true);",
            "SELECT pg_catalog.setval('public.a; b', 1, true);",
            "SELECT pg_catalog.setval('', 1, true);",
        ] {
            assert_eq!(made(hostile), None, "{hostile}");
        }
    }
}
