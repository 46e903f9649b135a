//! The table and the columns of a COPY statement in a plain dump.

use super::TablePath;

#[derive(Debug)]
pub(super) struct CopyStatement {
    pub target: TablePath,
    pub columns: Vec<Vec<u8>>,
}

impl CopyStatement {
    /// `COPY schema.table (column, …) FROM stdin;`, with no brackets for a table without columns.
    pub fn read(sql: &[u8]) -> Option<Self> {
        let mut rest = sql.strip_prefix(b"COPY ")?;
        let schema = identifier(&mut rest)?;
        rest = rest.strip_prefix(b".")?;
        let name = identifier(&mut rest)?;
        rest = rest.strip_prefix(b" ")?;
        let mut columns = Vec::new();
        if let Some(list) = rest.strip_prefix(b"(") {
            rest = list;
            loop {
                columns.push(identifier(&mut rest)?);
                match rest.strip_prefix(b", ") {
                    Some(more) => rest = more,
                    None => break,
                }
            }
            rest = rest.strip_prefix(b")")?;
        }
        (rest == b" FROM stdin;").then_some(Self {
            target: TablePath { schema, name },
            columns,
        })
    }
}

/// Removes a name, as pg_dump quotes it, from the start of `rest`, and returns it.
pub(super) fn identifier(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let Some(mut quoted) = rest.strip_prefix(b"\"") else {
        let bare = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$');
        let length = rest.iter().take_while(|byte| bare(byte)).count();
        let (name, after) = rest.split_at(length);
        *rest = after;
        return (!name.is_empty()).then(|| name.to_vec());
    };
    let mut name = Vec::new();
    loop {
        let end = memchr::memchr(b'"', quoted)?;
        name.extend_from_slice(&quoted[..end]);
        quoted = &quoted[end + 1..];
        match quoted.strip_prefix(b"\"") {
            Some(more) => {
                name.push(b'"');
                quoted = more;
            }
            None => break,
        }
    }
    *rest = quoted;
    Some(name)
}

/// Whether this is pg_dump's comment that the next COPY names the root, not the table to which the rows belong.
pub(super) fn through_root(comment: &[u8]) -> bool {
    comment.starts_with(b"-- load via partition root ")
}
