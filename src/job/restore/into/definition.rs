//! Splits what pg_dump writes about a table, an index or a constraint, so that it can be made under another name.
//!
//! Only the head of a definition names the object. It is read word by word and must name exactly the entry's own
//! object; then it is dropped, and another head is written. What follows, up to the statement's end, is taken over
//! unchanged, and nothing after that end is ever run. A definition that does not look as pg_dump writes it is
//! refused.

use crate::format::archive::leading_names;

/// Why a table's definition is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Odd {
    /// Some of its columns are in the definitions of tables that it inherits from.
    Heir,
    /// Its columns are those of a type.
    Typed,
    /// pg_dump does not write this.
    Unknown,
}

/// `CREATE TABLE … (…) WITH (…)` without its head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Table<'a> {
    pub is_unlogged: bool,
    pub is_partitioned: bool,
    /// With their brackets.
    pub columns: &'a [u8],
    /// `WITH (…)`, or nothing.
    pub options: &'a [u8],
    /// Statements follow, for example how columns are stored.
    pub has_more: bool,
}

impl<'a> Table<'a> {
    /// `path` is schema and name, in the archive's encoding.
    pub fn parse(definition: &'a [u8], path: &[Vec<u8>; 2]) -> Result<Self, Odd> {
        let rest = definition.strip_prefix(b"CREATE ").ok_or(Odd::Unknown)?;
        let (is_unlogged, rest) = match rest.strip_prefix(b"UNLOGGED ") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let rest = rest.strip_prefix(b"TABLE ").ok_or(Odd::Unknown)?;
        let rest = after_names(rest, path).ok_or(Odd::Unknown)?;
        if rest.starts_with(b" OF ") {
            return Err(Odd::Typed);
        }
        let rest = rest.strip_prefix(b" ").ok_or(Odd::Unknown)?;
        let statement = Statement::first(rest).ok_or(Odd::Unknown)?;
        let mut groups = Groups { statement, at: 0 };
        let columns = groups.brackets().ok_or(Odd::Unknown)?;
        let (mut is_partitioned, mut options) = (false, &b""[..]);
        if groups.word(b"INHERITS") {
            return Err(Odd::Heir);
        }
        if groups.word(b"PARTITION") {
            let key = groups.word(b"BY") && groups.any_word() && groups.brackets().is_some();
            is_partitioned = key.then_some(true).ok_or(Odd::Unknown)?;
        }
        let before = groups.at;
        if groups.word(b"WITH") {
            groups.brackets().ok_or(Odd::Unknown)?;
            options = groups.since(before);
        }
        if !groups.is_done() {
            return Err(Odd::Unknown);
        }
        Ok(Self {
            is_unlogged,
            is_partitioned,
            columns,
            options,
            has_more: has_more(&rest[groups.statement.end + 1..]),
        })
    }
}

/// `CREATE INDEX … ON …` without its head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Index<'a> {
    pub is_unique: bool,
    /// From `USING` to the end.
    pub rest: &'a [u8],
}

impl<'a> Index<'a> {
    pub fn parse(definition: &'a [u8], table: &[Vec<u8>; 2], name: &[u8]) -> Option<Self> {
        let rest = definition.strip_prefix(b"CREATE ")?;
        let (is_unique, rest) = match rest.strip_prefix(b"UNIQUE ") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let rest = after_names(rest.strip_prefix(b"INDEX ")?, &[name.to_vec()])?;
        let rest = rest.strip_prefix(b" ON ")?;
        let rest = rest.strip_prefix(b"ONLY ").unwrap_or(rest);
        let rest = after_names(rest, table)?.strip_prefix(b" ")?;
        let statement = Statement::first(rest)?;
        rest.starts_with(b"USING ").then_some(Self {
            is_unique,
            rest: &rest[..statement.end],
        })
    }
}

/// What follows the name in `ALTER TABLE … ADD CONSTRAINT …`, only for a key or an exclusion constraint.
pub(super) fn constraint<'a>(definition: &'a [u8], table: &[Vec<u8>; 2], name: &[u8]) -> Option<&'a [u8]> {
    let rest = definition.strip_prefix(b"ALTER TABLE ")?;
    let rest = rest.strip_prefix(b"ONLY ").unwrap_or(rest);
    let rest = after_names(rest, table)?.strip_prefix(b"\n    ADD CONSTRAINT ")?;
    let rest = after_names(rest, &[name.to_vec()])?.strip_prefix(b" ")?;
    let statement = Statement::first(rest)?;
    let starts = [
        &b"PRIMARY KEY ("[..],
        b"UNIQUE (",
        b"UNIQUE NULLS NOT DISTINCT (",
        b"EXCLUDE USING ",
    ];
    // What follows a comma is another change of the table.
    let has_another = statement
        .tokens
        .iter()
        .any(|token| token.depth == 0 && token.text == b",");
    let known = starts.iter().any(|start| rest.starts_with(start)) && !has_another;
    known.then_some(&rest[..statement.end])
}

/// What follows a name, if each part of it is as wanted.
fn after_names<'a>(text: &'a [u8], wanted: &[Vec<u8>]) -> Option<&'a [u8]> {
    let (names, rest) = leading_names(text)?;
    (names == wanted).then_some(rest)
}

/// A word, a sign, or a quoted text, with its depth in brackets. A bracket itself is inside of what it opens.
#[derive(Debug, Clone, Copy)]
pub(in crate::job::restore) struct Token<'a> {
    pub(in crate::job::restore) depth: usize,
    at: usize,
    pub(in crate::job::restore) text: &'a [u8],
}

impl Token<'_> {
    fn end(&self) -> usize {
        self.at + self.text.len()
    }
}

/// A statement as the server's own lexical rules cut it, with `standard_conforming_strings`.
#[derive(Debug)]
pub(in crate::job::restore) struct Statement<'a> {
    text: &'a [u8],
    pub(in crate::job::restore) tokens: Vec<Token<'a>>,
    /// The position of its semicolon.
    end: usize,
}

impl<'a> Statement<'a> {
    /// The statement up to the first semicolon outside of brackets and quotes. `None` if there is none, or if it
    /// contains something that pg_dump does not write there: a comment, a dollar-quoted text, a text that continues
    /// after a line's end.
    pub(in crate::job::restore) fn first(text: &'a [u8]) -> Option<Self> {
        let (mut tokens, mut depth, mut at) = (Vec::new(), 0_usize, 0);
        let mut after_text = false;
        while let Some(&byte) = text.get(at) {
            let rest = &text[at..];
            if byte.is_ascii_whitespace() {
                at += 1;
                continue;
            }
            let in_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte >= 0x80 || matches!(byte, b'_' | b'$');
            let length = match byte {
                0 | b'$' => return None,
                b'\'' if after_text => return None,
                b'\'' => quoted(rest, false)?,
                b'E' | b'e' if rest.get(1) == Some(&b'\'') => 1 + quoted(&rest[1..], true)?,
                b'"' => quoted(rest, false)?,
                b'-' if rest.starts_with(b"--") => return None,
                b'/' if rest.starts_with(b"/*") => return None,
                _ if byte.is_ascii_digit() => rest
                    .iter()
                    .position(|byte| !(byte.is_ascii_digit() || *byte == b'.'))
                    .unwrap_or(rest.len()),
                _ if in_word(&byte) => rest.iter().position(|byte| !in_word(byte)).unwrap_or(rest.len()),
                _ => 1,
            };
            let token = &rest[..length];
            after_text = token.ends_with(b"'");
            if token == b";" {
                return (depth == 0).then_some(Self { text, tokens, end: at });
            }
            depth += usize::from(token == b"(");
            tokens.push(Token { depth, at, text: token });
            if token == b")" {
                depth = depth.checked_sub(1)?;
            }
            at += length;
        }
        None
    }
}

/// The length of a quoted text, with its quotes; a quote within it is doubled.
fn quoted(text: &[u8], escapes: bool) -> Option<usize> {
    let quote = *text.first()?;
    let mut at = 1;
    loop {
        let byte = *text.get(at)?;
        at += 1;
        if escapes && byte == b'\\' {
            at += 1;
        } else if byte == quote {
            if text.get(at) != Some(&quote) {
                return Some(at);
            }
            at += 1;
        }
    }
}

/// Reads a statement's words and brackets one after the other.
struct Groups<'a> {
    statement: Statement<'a>,
    at: usize,
}

impl<'a> Groups<'a> {
    fn word(&mut self, wanted: &[u8]) -> bool {
        let found = self
            .statement
            .tokens
            .get(self.at)
            .is_some_and(|token| token.text == wanted);
        self.at += usize::from(found);
        found
    }

    fn any_word(&mut self) -> bool {
        let token = self.statement.tokens.get(self.at);
        let found = token.is_some_and(|token| token.text.iter().all(u8::is_ascii_alphabetic));
        self.at += usize::from(found);
        found
    }

    /// From a bracket to its closing one.
    fn brackets(&mut self) -> Option<&'a [u8]> {
        let tokens = &self.statement.tokens;
        let first = tokens.get(self.at).filter(|token| token.text == b"(")?;
        let closes = |token: &Token<'_>| token.depth == first.depth && token.text == b")";
        let length = tokens[self.at..].iter().position(closes)?;
        let last = tokens[self.at + length];
        let text = &self.statement.text[first.at..last.end()];
        self.at += length + 1;
        Some(text)
    }

    fn since(&self, from: usize) -> &'a [u8] {
        match self.statement.tokens[from..self.at] {
            [first, .., last] => &self.statement.text[first.at..last.end()],
            _ => b"",
        }
    }

    fn is_done(&self) -> bool {
        self.at == self.statement.tokens.len()
    }
}

/// Whether something follows besides the statement that forces row-level security on the owner too: the copy's report
/// says who may read its rows.
fn has_more(text: &[u8]) -> bool {
    let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.any(|line| !line.is_empty() && !line.ends_with(b" FORCE ROW LEVEL SECURITY;"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(schema: &str, name: &str) -> [Vec<u8>; 2] {
        [schema, name].map(|name| name.as_bytes().to_vec())
    }

    fn table(definition: &str) -> Result<(bool, bool, String, String, bool), Odd> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let table = Table::parse(definition.as_bytes(), &path("a.b", "It's \"t\""))?;
        Ok((
            table.is_unlogged,
            table.is_partitioned,
            text(table.columns),
            text(table.options),
            table.has_more,
        ))
    }

    const NAME: &str = "\"a.b\".\"It's \"\"t\"\"\"";

    #[test]
    fn a_table_is_taken_without_its_head() {
        let plain = "(\n    id integer NOT NULL,\n    \"x;)(\" text DEFAULT 'a;)''('::text,\n    y text DEFAULT E'\\'\\\\;)',\n    CONSTRAINT c CHECK ((id > 0))\n)";
        let whole = |head: &str, tail: &str| format!("CREATE {head}TABLE {NAME} {plain}{tail};\n");
        let columns = || plain.to_owned();
        let none = String::new;
        assert_eq!(table(&whole("", "")), Ok((false, false, columns(), none(), false)));
        assert_eq!(
            table(&whole("UNLOGGED ", "\nWITH (fillfactor='70')")),
            Ok((true, false, columns(), "WITH (fillfactor='70')".into(), false))
        );
        assert_eq!(
            table(&whole("", "\nPARTITION BY RANGE (lower(y), id)")),
            Ok((false, true, columns(), none(), false))
        );
        let more = format!(
            "{}ALTER TABLE ONLY {NAME} ALTER COLUMN y SET STORAGE EXTERNAL;\n",
            whole("", "")
        );
        assert_eq!(table(&more), Ok((false, false, columns(), none(), true)));
        let forced = format!(
            "\n{}\nALTER TABLE ONLY {NAME} FORCE ROW LEVEL SECURITY;\n",
            whole("", "")
        );
        assert_eq!(table(forced.trim_start()), Ok((false, false, columns(), none(), false)));
        assert_eq!(
            table(&format!("CREATE TABLE {NAME} (\n);\n")),
            Ok((false, false, "(\n)".into(), none(), false))
        );
        assert_eq!(table(&whole("", "\nINHERITS (public.p)")), Err(Odd::Heir));
        assert_eq!(
            table(&format!("CREATE TABLE {NAME} OF public.k (\n    a\n);\n")),
            Err(Odd::Typed)
        );
    }

    #[test]
    fn a_table_that_pg_dump_would_not_write_is_not_taken() {
        for odd in [
            "CREATE TABLE a.t (id integer);",
            "CREATE TABLE \"a.b\".other (id integer);",
            "CREATE TABLE x.\"a.b\".\"It's \"\"t\"\"\" (id integer);",
            "CREATE TABLE IF NOT EXISTS \"a.b\".\"It's \"\"t\"\"\" (id integer);",
            "CREATE TEMP TABLE \"a.b\".\"It's \"\"t\"\"\" (id integer);",
            "DROP TABLE x; CREATE TABLE \"a.b\".\"It's \"\"t\"\"\" (id integer);",
        ] {
            assert_eq!(table(odd), Err(Odd::Unknown), "{odd}");
        }
        for odd in [
            "(id integer)",
            "(id) AS SELECT pg_catalog.pg_reload_conf();",
            "(id integer) PARTITION OF public.live DEFAULT;",
            "(id integer) TABLESPACE x;",
            "(id integer) ON COMMIT DROP;",
            "(id integer) PARTITION BY RANGE (id) AS SELECT 1;",
            "(id integer) WITH (fillfactor=70) AS SELECT 1;",
            "(id integer)) WITH (a=1);",
            "(id integer; DROP TABLE x);",
            "(id text DEFAULT $$;$$);",
            "(id text /* ; */);",
            "(id text -- )\n);",
            "(id text DEFAULT E'a'\n'\\'); DROP TABLE x; --');",
            "(id text DEFAULT 'open);",
            "(id text DEFAULT \"open);",
            "(id integer\0);",
            "AS SELECT 1;",
        ] {
            let taken = table(&format!("CREATE TABLE {NAME} {odd}"));
            assert_eq!(taken, Err(Odd::Unknown), "{odd}");
        }
    }

    #[test]
    fn an_index_is_taken_from_its_method_on() {
        let parse = |text: &str| {
            let index = Index::parse(text.as_bytes(), &path("s", "T t"), b"i;")?;
            Some((index.is_unique, String::from_utf8(index.rest.to_vec()).unwrap()))
        };
        assert_eq!(
            parse("CREATE INDEX \"i;\" ON s.\"T t\" USING btree (lower(a)) INCLUDE (b) WHERE (c <> ';'::text);\n"),
            Some((
                false,
                "USING btree (lower(a)) INCLUDE (b) WHERE (c <> ';'::text)".into()
            ))
        );
        assert_eq!(
            parse(
                "CREATE UNIQUE INDEX \"i;\" ON ONLY s.\"T t\" USING btree (a);\nALTER TABLE s.\"T t\" CLUSTER ON \"i;\";\n"
            ),
            Some((true, "USING btree (a)".into()))
        );
        for odd in [
            "CREATE INDEX i ON s.\"T t\" USING btree (a);",
            "CREATE INDEX \"i;\" ON s.t USING btree (a);",
            "CREATE INDEX \"i;\" ON s.\"T t\" (a);",
            "CREATE INDEX CONCURRENTLY \"i;\" ON s.\"T t\" USING btree (a);",
            "CREATE INDEX \"i;\" ON s.\"T t\" USING btree (a",
            "DROP TABLE x; CREATE INDEX \"i;\" ON s.\"T t\" USING btree (a);",
        ] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_key_is_taken_and_no_other_change_of_the_table() {
        let parse = |rest: &str| {
            let text = format!("ALTER TABLE ONLY s.t\n    ADD CONSTRAINT k {rest}");
            constraint(text.as_bytes(), &path("s", "t"), b"k").map(|rest| String::from_utf8(rest.to_vec()).unwrap())
        };
        for known in [
            "PRIMARY KEY (id, \"b,\")",
            "UNIQUE NULLS NOT DISTINCT (a) DEFERRABLE INITIALLY DEFERRED",
            "UNIQUE (a) INCLUDE (b)",
            "EXCLUDE USING gist (room WITH =, during WITH &&) WHERE ((a > 0))",
        ] {
            assert_eq!(parse(&format!("{known};\n")).as_deref(), Some(known));
        }
        assert_eq!(
            parse("PRIMARY KEY (id);\n\nALTER TABLE s.t CLUSTER ON k;\n").as_deref(),
            Some("PRIMARY KEY (id)")
        );
        for odd in [
            "FOREIGN KEY (a) REFERENCES s.u(id);",
            "CHECK ((f(a) > 0));",
            "PRIMARY KEY (id), INHERIT s.live;",
            "UNIQUE (a), OWNER TO other;",
            "PRIMARY KEY USING INDEX i;",
            "PRIMARY KEY (id)",
        ] {
            assert_eq!(parse(odd), None, "{odd}");
        }
        let other = b"ALTER TABLE ONLY s.u\n    ADD CONSTRAINT k PRIMARY KEY (id);";
        assert_eq!(constraint(other, &path("s", "t"), b"k"), None);
    }
}
