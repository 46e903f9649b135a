//! What a constraint that is an index needs besides its table: functions in expressions, operators and operator
//! classes. pg_dump records these needs for the index, which has no entry of its own here. Everything that is not
//! PostgreSQL's own is in the definition with its schema, except the default operator class of a column's type, which
//! is not in the definition.

use std::collections::HashMap;

use memchr::memmem;

use super::RELATIONS;
use crate::format::archive::{Item, leading_names};

/// Stock extensions, with their operators and operator classes for PostgreSQL's own types. (Columns of other types
/// already need their extension.)
const KNOWN: &[(&str, &[&str])] = &[
    ("amcheck", &[]),
    ("btree_gin", &[]),
    ("btree_gist", &["<->"]),
    ("citext", &[]),
    ("dblink", &[]),
    ("file_fdw", &[]),
    ("fuzzystrmatch", &[]),
    ("intarray", &["&&", "@>", "<@", "gist__int_ops", "gist__intbig_ops"]),
    ("pg_buffercache", &[]),
    ("pg_stat_statements", &[]),
    ("pg_trgm", &["%", "<->", "gist_trgm_ops"]),
    ("pgcrypto", &[]),
    ("pgstattuple", &[]),
    ("plpgsql", &[]),
    ("postgres_fdw", &[]),
    ("tablefunc", &[]),
    ("unaccent", &[]),
    ("uuid-ossp", &[]),
];

/// A schema and a name in it.
type Path = [Vec<u8>; 2];

/// The dump ids of what the constraint needs.
pub fn needs(item: &Item, by_id: &HashMap<i64, &Item>) -> Vec<i64> {
    let Some(index) = Index::of(item) else {
        return Vec::new();
    };
    let types = types(item, &index, by_id);
    let (named, unknown) = index.named(by_id);
    let needed = by_id.values().filter(|other| match other.entry.desc.as_str() {
        "EXTENSION" => index.may_need(other, &types, &unknown),
        "OPERATOR CLASS" => index.takes(other, &types),
        _ => false,
    });
    let mut needed: Vec<i64> = needed.map(|other| other.entry.dump_id).chain(named).collect();
    needed.sort_unstable();
    needed.dedup();
    needed
}

/// A constraint that is an index.
struct Index<'a> {
    /// `btree`, `gist`, …
    method: Vec<u8>,
    /// The text after its name.
    text: &'a [u8],
    excludes: bool,
}

impl<'a> Index<'a> {
    fn of(item: &'a Item) -> Option<Self> {
        if item.entry.desc != "CONSTRAINT" {
            return None;
        }
        let rest = item.definition().strip_prefix(b"ALTER TABLE ")?;
        let (_, rest) = leading_names(rest.strip_prefix(b"ONLY ").unwrap_or(rest))?;
        let (_, rest) = leading_names(rest.strip_prefix(b"\n    ADD CONSTRAINT ")?)?;
        let text = rest.strip_prefix(b" ")?;
        if let Some(rest) = text.strip_prefix(b"EXCLUDE USING ") {
            let (method, text) = leading_names(rest)?;
            let method = method.into_iter().next()?;
            let excludes = true;
            return Some(Self { method, text, excludes });
        }
        let is_key = text.starts_with(b"PRIMARY KEY ") || text.starts_with(b"UNIQUE ");
        let method = match memmem::find(text, b" WITHOUT OVERLAPS)") {
            Some(_) => b"gist".to_vec(),
            None => b"btree".to_vec(),
        };
        let excludes = false;
        is_key.then_some(Self { method, text, excludes })
    }

    /// The entries whose objects the definition names; and names that belong to no entry, and so to an extension. A
    /// key names only columns.
    fn named(&self, by_id: &HashMap<i64, &Item>) -> (Vec<i64>, Vec<Path>) {
        let (mut found, mut unknown) = (Vec::new(), Vec::new());
        if !self.excludes {
            return (found, unknown);
        }
        for path in with_schema(self.text) {
            let before = found.len();
            let named = by_id.values().filter(|other| is_named(other, &path));
            found.extend(named.map(|other| other.entry.dump_id));
            if found.len() == before {
                unknown.push(path);
            }
        }
        (found, unknown)
    }

    /// Whether an extension may provide what the constraint needs: the default class of a type of PostgreSQL's own,
    /// or a name in the definition with its schema.
    fn may_need(&self, extension: &Item, types: &[&[u8]], unknown: &[Path]) -> bool {
        let has = |word: &[u8]| types.iter().any(|text| memmem::find(text, word).is_some());
        let by_default = match extension.entry.tag.as_str() {
            "btree_gist" => true,
            "intarray" => has(b" integer[]") || has(b"ARRAY["),
            _ => false,
        };
        let schema = schema_of(extension);
        let brings = |path: &Path| schema.as_ref() == Some(&path[0]) && may_have(&extension.entry.tag, &path[1]);
        (by_default && self.method == b"gist") || unknown.iter().any(brings)
    }

    /// Whether one of the database's own operator classes is the default for a type that is used here.
    fn takes(&self, class: &Item, types: &[&[u8]]) -> bool {
        default_of(class).is_some_and(|(of, method)| {
            let word = [b" ", of].concat();
            method == self.method && types.iter().any(|text| memmem::find(text, &word).is_some())
        })
    }
}

/// The type for which a class is the default one, and its access method.
fn default_of(class: &Item) -> Option<(&[u8], Vec<u8>)> {
    let rest = class.definition().strip_prefix(b"CREATE OPERATOR CLASS ")?;
    let (_, rest) = leading_names(rest)?;
    let rest = rest.strip_prefix(b"\n    DEFAULT FOR TYPE ")?;
    let word = b" USING ";
    let at = memmem::find(rest, word)?;
    Some((&rest[..at], plain(&rest[at + word.len()..])?))
}

/// The texts that can name the types of the indexed columns: the constraint, its table, the tables above, and
/// domains.
fn types<'a>(item: &'a Item, index: &Index<'a>, by_id: &HashMap<i64, &'a Item>) -> Vec<&'a [u8]> {
    let mut seen = Vec::new();
    let mut texts = vec![index.text];
    let mut open = item.details.dependencies.clone();
    while let Some(id) = open.pop() {
        let Some(&other) = by_id.get(&id).filter(|_| !seen.contains(&id)) else {
            continue;
        };
        let kind = other.entry.desc.as_str();
        if RELATIONS.contains(&kind) || kind == "DOMAIN" {
            seen.push(id);
            texts.push(other.definition());
            open.extend(&other.details.dependencies);
        }
    }
    texts
}

fn is_named(item: &Item, [schema, name]: &Path) -> bool {
    let is_function = match item.entry.desc.as_str() {
        "FUNCTION" => true,
        "COLLATION" | "DOMAIN" | "OPERATOR" | "OPERATOR CLASS" | "TYPE" => false,
        _ => return false,
    };
    let [of, tag] = item.entry.path();
    let is_name = match tag.strip_prefix(name.as_slice()) {
        Some(rest) if is_function => rest.starts_with(b"("),
        Some(rest) => rest.is_empty(),
        None => false,
    };
    is_name && of == *schema
}

/// Whether an object of this name may belong to an extension.
fn may_have(extension: &str, name: &[u8]) -> bool {
    let is_of_index = name.iter().all(is_sign) || name.ends_with(b"_ops");
    let known = KNOWN.iter().find(|(known, _)| *known == extension);
    match known {
        Some((_, names)) if is_of_index => names.iter().any(|known| known.as_bytes() == name),
        _ => true,
    }
}

/// The schema that an extension is made in.
fn schema_of(extension: &Item) -> Option<Vec<u8>> {
    let definition = extension.definition();
    let word = b" WITH SCHEMA ";
    let at = memmem::rfind(definition, word)? + word.len();
    plain(&definition[at..])
}

/// Every name that has its schema in front.
fn with_schema(mut text: &[u8]) -> Vec<Path> {
    let mut found = Vec::new();
    while let Some(first) = text.first() {
        let length = match first {
            b'\'' => quoted(text, false),
            b'E' if text.get(1) == Some(&b'\'') => 1 + quoted(&text[1..], true),
            b'0'..=b'9' => leading(text, |byte| byte.is_ascii_digit() || *byte == b'.'),
            _ => word(text).max(1),
        };
        let (schema, rest) = text.split_at(length);
        text = rest;
        if let Some(rest) = rest.strip_prefix(b".") {
            let (name, rest) = rest.split_at(leading(rest, is_sign).max(word(rest)));
            text = rest;
            let name = plain(name).unwrap_or_else(|| name.to_vec());
            found.extend(plain(schema).map(|schema| [schema, name]));
        }
    }
    found
}

/// The name at the start of a text, without its quotes.
fn plain(text: &[u8]) -> Option<Vec<u8>> {
    let (names, _) = leading_names(&text[..word(text)])?;
    names.into_iter().next()
}

/// The length of a name, with its quotes.
fn word(text: &[u8]) -> usize {
    match text.first() {
        Some(b'"') => quoted(text, false),
        _ => leading(text, |byte| {
            byte.is_ascii_alphanumeric() || *byte >= 0x80 || matches!(byte, b'_' | b'$')
        }),
    }
}

/// The length of a quoted text, with its quotes; a quote within it is doubled.
fn quoted(text: &[u8], escapes: bool) -> usize {
    let quote = text.first();
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        at += 1;
        if escapes && *byte == b'\\' {
            at += 1;
        } else if Some(byte) == quote {
            if text.get(at) != quote {
                break;
            }
            at += 1;
        }
    }
    at.min(text.len())
}

fn leading(text: &[u8], belongs: impl Fn(&u8) -> bool) -> usize {
    text.iter().position(|byte| !belongs(byte)).unwrap_or(text.len())
}

/// Whether the byte can be part of an operator.
fn is_sign(byte: &u8) -> bool {
    b"+-*/<>=~!@#%^&|`?".contains(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: i64, desc: &str, path: (&str, &str), definition: &str, needs: &[i64]) -> Item {
        Item::sample(id, desc, path.1)
            .in_schema(path.0)
            .defined(definition)
            .needing(needs)
    }

    fn extension(id: i64, name: &str, schema: &str) -> Item {
        let definition = format!("CREATE EXTENSION IF NOT EXISTS {name} WITH SCHEMA {schema};\n");
        item(id, "EXTENSION", ("", name), &definition, &[])
    }

    fn needed(constraint: &str, columns: &str) -> Vec<i64> {
        let class = |name: &str, of: &str| format!("CREATE OPERATOR CLASS {name}\n    {of} FAMILY {name} AS\n    …;\n");
        let table = format!("CREATE TABLE s.t (\n    {columns}\n);\n");
        let odd = class("s.odd", "FOR TYPE integer USING btree");
        let of_json = class("s.js", "DEFAULT FOR TYPE json USING btree");
        let domains: &[i64] = if columns.contains("s.ints") { &[2] } else { &[] };
        let items = [
            item(1, "TABLE", ("s", "t"), &table, domains),
            item(2, "DOMAIN", ("s", "ints"), "CREATE DOMAIN s.ints AS integer[];\n", &[]),
            extension(3, "btree_gist", "ext"),
            extension(4, "intarray", "ext"),
            extension(5, "pg_trgm", "\"e.x\"\"t\""),
            extension(6, "pgcrypto", "ext"),
            extension(7, "mine", "ext"),
            item(8, "FUNCTION", ("Own s", "span(integer, integer)"), "", &[]),
            item(9, "FUNCTION", ("Own s", "spanned(integer)"), "", &[]),
            item(10, "OPERATOR", ("Own s", "&&"), "", &[]),
            item(11, "OPERATOR CLASS", ("s", "odd"), &odd, &[]),
            item(12, "OPERATOR CLASS", ("s", "js"), &of_json, &[]),
        ];
        let definition = format!("ALTER TABLE ONLY s.t\n    ADD CONSTRAINT \"c EXCLUDE USING gist (\" {constraint};\n");
        let constraint = item(20, "CONSTRAINT", ("s", "t c"), &definition, &[1]);
        let by_id: HashMap<i64, &Item> = items.iter().map(|item| (item.entry.dump_id, item)).collect();
        needs(&constraint, &by_id)
    }

    #[test]
    fn what_stands_in_a_constraint_and_what_does_not_is_found() {
        let temporal = "UNIQUE (a, r WITHOUT OVERLAPS)";
        let expected: [(&str, &[i64]); 11] = [
            ("PRIMARY KEY (a)", &[12]),
            (temporal, &[3]),
            ("EXCLUDE USING gist (a WITH =)", &[3]),
            ("EXCLUDE USING gist (ARRAY[a] WITH =)", &[3, 4]),
            (
                "EXCLUDE USING gist (a ext.gist__int_ops WITH OPERATOR(ext.@@@))",
                &[3, 4, 7],
            ),
            ("EXCLUDE USING gist (\"Own s\".span(a, 1.5) WITH &&)", &[3, 8]),
            (
                "EXCLUDE USING gist (r WITH OPERATOR(\"Own s\".&&)) WHERE (c <> '''ext.x')",
                &[3, 10],
            ),
            ("EXCLUDE USING gist (w \"e.x\"\"t\".gist_trgm_ops WITH =)", &[3, 5]),
            ("EXCLUDE USING btree (a s.odd WITH =)", &[11, 12]),
            ("EXCLUDE USING hash (ext.digest(E'\\'ext.', a) WITH =)", &[3, 4, 6, 7]),
            ("CHECK (ext.f(a))", &[]),
        ];
        for (constraint, found) in expected {
            assert_eq!(needed(constraint, "a integer,\n    j json"), found, "{constraint}");
        }
        // An array of integers, by the column's type or its domain's.
        assert_eq!(needed(temporal, "a integer[]"), [3, 4]);
        assert_eq!(needed(temporal, "a s.ints"), [3, 4]);
    }
}
