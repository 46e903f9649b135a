//! The statements that read a table: its COPY as pg_dump writes it, and the same for a stretch of
//! its pages. All in the database's own encoding, in which every ASCII byte stands for itself.

use super::plan::Stretch;

/// How one table is read, by what the table of contents says of how it is written back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// With its schema, quoted where need be.
    table: Vec<u8>,
    /// Quoted, separated by commas; empty for a table that has none to copy.
    columns: Vec<u8>,
    /// An extension's choice of rows: `WHERE …`.
    condition: Option<Vec<u8>>,
}

impl Statement {
    /// Reads `COPY schema.table (a, b) FROM stdin;`. `None` if it is anything else.
    pub fn parse(copy: &[u8], condition: Option<&[u8]>) -> Option<Self> {
        let rest = copy.strip_prefix(b"COPY ")?.strip_suffix(b" FROM stdin;\n")?;
        let (table, rest) = rest.split_at(identifiers(rest)?);
        let columns = match rest.trim_ascii() {
            [] => &[],
            list => list.strip_prefix(b"(")?.strip_suffix(b")")?,
        };
        Some(Self {
            table: table.to_vec(),
            columns: columns.to_vec(),
            condition: condition.map(<[u8]>::to_vec),
        })
    }

    /// Whether every row of the table is wanted, by columns: only then may it be read in
    /// stretches.
    pub fn is_plain(&self) -> bool {
        self.condition.is_none() && !self.columns.is_empty()
    }

    pub fn whole(&self, out: &mut Vec<u8>) {
        match &self.condition {
            Some(condition) => {
                let columns: &[u8] = if self.columns.is_empty() { b"*" } else { &self.columns };
                put(
                    out,
                    &[
                        b"COPY (SELECT ",
                        columns,
                        b" FROM ",
                        &self.table,
                        b" ",
                        condition,
                        b") TO STDOUT",
                    ],
                );
            }
            None if self.columns.is_empty() => put(out, &[b"COPY ", &self.table, b" TO STDOUT"]),
            None => put(out, &[b"COPY ", &self.table, b" (", &self.columns, b") TO STDOUT"]),
        }
    }

    /// The rows of some pages, in the order in which they lie there. Without an upper bound for
    /// the last: whoever extends the table meanwhile writes nothing that the snapshot sees.
    pub fn stretch(&self, stretch: Stretch, out: &mut Vec<u8>) {
        put(
            out,
            &[
                b"COPY (SELECT ",
                &self.columns,
                b" FROM ONLY ",
                &self.table,
                b" WHERE ctid >= '(",
            ],
        );
        put(out, &[stretch.from.to_string().as_bytes(), b",0)'"]);
        if let Some(to) = stretch.to {
            put(out, &[b" AND ctid < '(", to.to_string().as_bytes(), b",0)'"]);
        }
        put(out, &[b") TO STDOUT"]);
    }
}

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    out.extend(parts.iter().flat_map(|part| part.iter()));
}

/// The length of `name.name`, each as it is or in quotes, in which a quote is doubled.
fn identifiers(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        if text.get(at) == Some(&b'"') {
            at += 1;
            loop {
                at += memchr::memchr(b'"', text.get(at..)?)? + 1;
                if text.get(at) != Some(&b'"') {
                    break;
                }
                at += 1;
            }
        } else {
            let end = text[at..].iter().position(|byte| matches!(byte, b'.' | b' ' | b'('));
            let length = end.unwrap_or(text.len() - at);
            if length == 0 {
                return None;
            }
            at += length;
        }
        if text.get(at) != Some(&b'.') {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(copy: &str) -> Option<(String, String)> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Statement::parse(copy.as_bytes(), None).map(|statement| (text(statement.table), text(statement.columns)))
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
            assert_eq!(parsed(&copy), Some((table.into(), columns.into())), "{copy}");
        }
        assert_eq!(
            parsed("COPY public.empty  FROM stdin;\n"),
            Some(("public.empty".into(), String::new()))
        );
        for odd in [
            "",
            "COPY t (a) TO stdout;\n",
            "COPY \"t (a) FROM stdin;\n",
            "COPY  (a) FROM stdin;\n",
        ] {
            assert_eq!(parsed(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn statements_are_pg_dumps() {
        let text = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            String::from_utf8(out).unwrap()
        };
        let copy = b"COPY public.t (a, b) FROM stdin;\n";
        let plain = Statement::parse(copy, None).unwrap();
        assert_eq!(text(&|out| plain.whole(out)), "COPY public.t (a, b) TO STDOUT");
        let stretch = |from, to| text(&|out| plain.stretch(Stretch { from, to }, out));
        assert_eq!(
            stretch(0, Some(64)),
            "COPY (SELECT a, b FROM ONLY public.t WHERE ctid >= '(0,0)' AND ctid < '(64,0)') TO STDOUT"
        );
        assert_eq!(
            stretch(64, None),
            "COPY (SELECT a, b FROM ONLY public.t WHERE ctid >= '(64,0)') TO STDOUT"
        );
        let chosen = Statement::parse(copy, Some(b"WHERE a > 7")).unwrap();
        assert_eq!(
            text(&|out| chosen.whole(out)),
            "COPY (SELECT a, b FROM public.t WHERE a > 7) TO STDOUT"
        );
        assert!(plain.is_plain() && !chosen.is_plain());
        let none = Statement::parse(b"COPY public.t  FROM stdin;\n", None).unwrap();
        assert_eq!(text(&|out| none.whole(out)), "COPY public.t TO STDOUT");
        assert!(!none.is_plain());
    }
}
