//! Names in the statements of an archive, in its encoding.

use crate::format::archive::Loading;

/// pg_dump's statement for these columns.
pub(super) fn statement(path: &[Vec<u8>; 2], columns: &[Vec<u8>]) -> Vec<u8> {
    let columns: Vec<Vec<u8>> = columns.iter().map(|column| quoted(column)).collect();
    let columns = columns.join(&b", "[..]);
    Loading {
        table: b"",
        columns: &columns,
    }
    .for_table(path)
}

fn quoted(name: &[u8]) -> Vec<u8> {
    let doubled = name.iter().flat_map(|byte| match byte {
        b'"' => vec![b'"'; 2],
        byte => vec![*byte],
    });
    [b"\"", &*doubled.collect::<Vec<u8>>(), b"\""].concat()
}

/// In the encoding of the archive.
pub(super) fn qualified(schema: &[u8], name: &[u8]) -> Vec<u8> {
    [&*quoted(schema), b".", &*quoted(name)].concat()
}

/// In the encoding of the archive. It does not depend on how the server reads a backslash.
pub(super) fn literal(text: &[u8]) -> Vec<u8> {
    let prefix: &[u8] = if text.contains(&b'\\') { b"E'" } else { b"'" };
    let doubled = text.iter().flat_map(|byte| match byte {
        b'\'' | b'\\' => vec![*byte; 2],
        byte => vec![*byte],
    });
    [prefix, &*doubled.collect::<Vec<u8>>(), b"'"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_written_as_a_literal() {
        assert_eq!(literal(b"public.\"it's\""), b"'public.\"it''s\"'");
        assert_eq!(literal(b"\"a\\b\""), b"E'\"a\\\\b\"'");
    }
}
