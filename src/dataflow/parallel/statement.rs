//! The statements that read a table: its COPY as pg_dump writes it, and the same for a range of its pages. All are in
//! the database's own encoding, in which every ASCII byte stands for itself.

use crate::format::archive::Loading;

/// Some pages of a table: from one page to another, or to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    pub from: u32,
    pub to: Option<u32>,
}

/// How to read one table, derived from the COPY statement in the table of contents that loads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The name with its schema, quoted.
    table: Vec<u8>,
    /// Quoted, separated by commas; empty for a table without columns to copy.
    columns: Vec<u8>,
    /// An extension's condition for rows: `WHERE …`.
    condition: Option<Vec<u8>>,
}

impl Statement {
    /// Parses `COPY schema.table (a, b) FROM stdin;`; `None` for any other statement. The name of the table comes
    /// from the server, because a partition may be loaded through its root.
    pub fn parse(copy: &[u8], table: &[u8], condition: Option<&[u8]>) -> Option<Self> {
        let loading = Loading::parse(copy)?;
        Some(Self {
            table: Some(table).filter(|table| !table.is_empty())?.to_vec(),
            columns: loading.columns.to_vec(),
            condition: condition.map(<[u8]>::to_vec),
        })
    }

    /// Whether it reads every row of the table, by columns: only then may the table be read in ranges of pages.
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

    /// The rows of some pages, in the order in which they are stored. The last range has no upper bound: pages that
    /// are added during the backup have no rows in the snapshot.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_pg_dumps() {
        let text = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            String::from_utf8(out).unwrap()
        };
        let copy = b"COPY public.t (a, b) FROM stdin;\n";
        let plain = Statement::parse(copy, b"public.t", None).unwrap();
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
        let chosen = Statement::parse(copy, b"public.t", Some(b"WHERE a > 7")).unwrap();
        assert_eq!(
            text(&|out| chosen.whole(out)),
            "COPY (SELECT a, b FROM public.t WHERE a > 7) TO STDOUT"
        );
        assert!(plain.is_plain() && !chosen.is_plain());
        let none = Statement::parse(b"COPY public.t  FROM stdin;\n", b"public.t", None).unwrap();
        assert_eq!(text(&|out| none.whole(out)), "COPY public.t TO STDOUT");
        assert!(!none.is_plain());
        // A partition that is loaded through its root is read by itself.
        let through = Statement::parse(b"COPY public.root (a) FROM stdin;\n", b"public.leaf", None).unwrap();
        assert_eq!(text(&|out| through.whole(out)), "COPY public.leaf (a) TO STDOUT");
    }
}
