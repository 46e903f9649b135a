//! The statement that loads a table, as pg_dump writes it: `COPY schema.table (a, b) FROM stdin;`. It is in the
//! database's encoding; in each such encoding an ASCII byte is that ASCII character.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loading<'a> {
    /// With its schema, in quotes if necessary. The rows of a partition may be loaded through its root.
    pub table: &'a [u8],
    /// In quotes if necessary, separated by commas; empty for a table without columns to copy.
    pub columns: &'a [u8],
}

impl<'a> Loading<'a> {
    /// `None` if `copy` is anything else.
    pub fn parse(copy: &'a [u8]) -> Option<Self> {
        let rest = copy.strip_prefix(b"COPY ")?.strip_suffix(b" FROM stdin;\n")?;
        let (table, rest) = rest.split_at(identifiers(rest, b'.')?);
        let columns = match rest.trim_ascii() {
            [] => &[][..],
            list => {
                // pgstow writes both into its own statements, so they may hold nothing but names.
                let columns = list.strip_prefix(b"(")?.strip_suffix(b")")?;
                (self::list(columns)? == columns.len()).then_some(columns)?
            }
        };
        Some(Self { table, columns })
    }

    /// Whether a text is only a name, with or without a schema.
    pub fn is_name(text: &[u8]) -> bool {
        identifiers(text, b'.') == Some(text.len())
    }

    /// The table's schema and name, without their quotes.
    pub fn path(&self) -> Vec<Vec<u8>> {
        names(self.table, b'.')
    }

    /// Without their quotes.
    pub fn column_names(&self) -> Vec<Vec<u8>> {
        names(self.columns, b',')
    }

    /// The statement that loads this table with the same columns.
    pub fn for_table(&self, [schema, name]: &[Vec<u8>; 2]) -> Vec<u8> {
        let quoted = |name: &[u8]| {
            let doubled = name.iter().flat_map(|byte| match byte {
                b'"' => vec![b'"'; 2],
                byte => vec![*byte],
            });
            [b"\"", &*doubled.collect::<Vec<u8>>(), b"\""].concat()
        };
        let table = [&*quoted(schema), b".", &*quoted(name)].concat();
        let columns = match self.columns {
            [] => Vec::new(),
            columns => [b"(", columns, b")"].concat(),
        };
        [b"COPY ", &*table, b" ", &columns, b" FROM stdin;\n"].concat()
    }

    /// The statement made of only these parts.
    pub fn statement(&self) -> Vec<u8> {
        let columns = match self.columns {
            [] => Vec::new(),
            columns => [b"(", columns, b")"].concat(),
        };
        [b"COPY ", self.table, b" ", &columns, b" FROM stdin"].concat()
    }
}

/// The name at the start of a text, in parts and without quotes; and the rest of the text.
pub fn leading_names(text: &[u8]) -> Option<(Vec<Vec<u8>>, &[u8])> {
    let (path, rest) = text.split_at(identifiers(text, b'.')?);
    Some((names(path, b'.'), rest))
}

fn names(mut text: &[u8], separator: u8) -> Vec<Vec<u8>> {
    let mut names = Vec::new();
    while let Some(length) = identifier(text) {
        let (name, rest) = text.split_at(length);
        names.push(unquoted(name));
        let Some(rest) = rest.strip_prefix(&[separator]) else {
            break;
        };
        text = rest.trim_ascii_start();
    }
    names
}

fn unquoted(name: &[u8]) -> Vec<u8> {
    let Some(inner) = name.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return name.to_vec();
    };
    let mut plain = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        plain.push(*byte);
        if *byte == b'"' {
            bytes.next();
        }
    }
    plain
}

/// The length of names with this separator.
fn identifiers(text: &[u8], separator: u8) -> Option<usize> {
    let mut at = identifier(text)?;
    while text.get(at) == Some(&separator) {
        at += 1 + identifier(&text[at + 1..])?;
    }
    Some(at)
}

/// The length of a list of columns.
fn list(text: &[u8]) -> Option<usize> {
    let mut at = identifier(text)?;
    while text[at..].starts_with(b", ") {
        at += 2 + identifier(&text[at + 2..])?;
    }
    Some(at)
}

/// The length of a name without quotes, or in quotes, where a quote is doubled.
fn identifier(text: &[u8]) -> Option<usize> {
    if text.first() != Some(&b'"') {
        let of_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte >= 0x80 || matches!(byte, b'_' | b'$');
        let length = text.iter().position(|byte| !of_name(byte)).unwrap_or(text.len());
        return (length > 0).then_some(length);
    }
    let mut at = 1;
    loop {
        at += memchr::memchr(b'"', text.get(at..)?)? + 1;
        if text.get(at) != Some(&b'"') {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::archive::TocEntry;

    fn texts(names: Vec<Vec<u8>>) -> Vec<String> {
        names.into_iter().map(|name| String::from_utf8(name).unwrap()).collect()
    }

    #[test]
    fn names_are_taken_as_they_are_written() {
        for (table, columns) in [
            ("public.orders", "id, total"),
            ("public.\"Orders (old)\"", "\"a,b\", \"c)\""),
            ("\"a.b\".\"say \"\"hi\"\" (\"", "\"FROM stdin;\""),
            ("\"ünïcode\".táble", "ö"),
        ] {
            let copy = format!("COPY {table} ({columns}) FROM stdin;\n");
            let loading = Loading::parse(copy.as_bytes()).unwrap();
            assert_eq!(loading.table, table.as_bytes());
            assert_eq!(loading.columns, columns.as_bytes());
        }
        let empty = Loading::parse(b"COPY public.empty  FROM stdin;\n").unwrap();
        assert_eq!((empty.table, empty.columns), (&b"public.empty"[..], &b""[..]));
        assert!(empty.column_names().is_empty());
        for odd in [
            "",
            "COPY t (a) TO stdout;\n",
            "COPY \"t (a) FROM stdin;\n",
            "COPY  (a) FROM stdin;\n",
            "COPY t (1) TO PROGRAM 'id' --) FROM stdin;\n",
            "COPY t (a) TO STDOUT; COMMIT; DROP TABLE x; -- (b) FROM stdin;\n",
            "COPY t (a;b) FROM stdin;\n",
            "COPY t;x (a) FROM stdin;\n",
            "COPY t (a, b,) FROM stdin;\n",
            "COPY t (a b) FROM stdin;\n",
            "COPY t () FROM stdin;\n",
        ] {
            assert_eq!(Loading::parse(odd.as_bytes()), None, "{odd:?}");
        }
    }

    #[test]
    fn names_are_known_without_their_quotes() {
        let copy = b"COPY \"a.b\".\"say \"\"hi\"\" (\" (id, \"a,b\", \"c) \"\"\", d) FROM stdin;\n";
        let loading = Loading::parse(copy).unwrap();
        assert_eq!(texts(loading.path()), ["a.b", "say \"hi\" ("]);
        assert_eq!(texts(loading.column_names()), ["id", "a,b", "c) \"", "d"]);
    }

    #[test]
    fn a_partition_that_is_loaded_through_its_root_is_known() {
        let loading = Loading::parse(b"COPY s.\"The root\" (a) FROM stdin;\n").unwrap();
        let entry = |schema: &str, tag: &str| TocEntry {
            namespace: Some(schema.into()),
            tag: tag.into(),
            ..TocEntry::default()
        };
        assert!(!loading.is_through_another(&entry("s", "The root")));
        assert!(loading.is_through_another(&entry("s", "leaf")));
        assert!(loading.is_through_another(&entry("t", "The root")));
        let path = [b"s".to_vec(), b"a \"leaf\"\xe9".to_vec()];
        let other = loading.for_table(&path);
        assert_eq!(other, b"COPY \"s\".\"a \"\"leaf\"\"\xe9\" (a) FROM stdin;\n");
        assert_eq!(Loading::parse(&other).unwrap().path(), path);
    }
}
