//! The members of a table, from pg_dump's definition of it.

use std::collections::HashSet;

use crate::format::archive::leading_names;
use crate::job::restore::into::definition::Statement;
use crate::postgres::quoting::unquoted;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TableMembers {
    pub columns: HashSet<String>,
    /// Constraints that are defined beside the columns.
    pub constraints: HashSet<String>,
    /// The columns that are `NOT NULL`.
    pub not_null: HashSet<String>,
    /// Schema and name of each table from which it has columns and checks too.
    pub parents: Vec<(String, String)>,
}

impl TableMembers {
    /// `None` if it does not look as pg_dump writes it, and for a table that is made from a type.
    pub fn parse(definition: &str) -> Option<Self> {
        let rest = definition.strip_prefix("CREATE ")?;
        let rest = rest.strip_prefix("UNLOGGED ").unwrap_or(rest);
        let rest = rest.strip_prefix("FOREIGN ").unwrap_or(rest).strip_prefix("TABLE ")?;
        let (_, rest) = leading_names(rest.as_bytes())?;
        let statement = Statement::first(rest)?;
        let mut tokens = statement.tokens.iter();
        if tokens.next()?.text != b"(" {
            return None;
        }
        let mut members = Self::default();
        let mut element: Vec<&[u8]> = Vec::new();
        for token in tokens.by_ref() {
            match (token.depth, token.text) {
                (1, b")") => break,
                (1, b",") => {
                    members.take(&element);
                    element.clear();
                }
                (1, text) => element.push(text),
                _ => {}
            }
        }
        members.take(&element);
        let mut after = tokens.map(|token| token.text);
        if after.next() == Some(&b"INHERITS"[..]) {
            let list: Vec<&[u8]> = after.skip(1).take_while(|text| *text != b")").collect();
            for parent in list.split(|text| *text == b",") {
                if let [schema, b".", name] = parent {
                    members.parents.push((named(schema), named(name)));
                }
            }
        }
        Some(members)
    }

    /// Takes a column or a constraint, from its words outside of brackets.
    fn take(&mut self, element: &[&[u8]]) {
        match element {
            [b"CONSTRAINT", _, b"NOT", b"NULL", column, ..] | [b"NOT", b"NULL", column, ..] => {
                self.not_null.insert(named(column));
            }
            [b"CONSTRAINT", name, ..] => {
                self.constraints.insert(named(name));
            }
            [column, rest @ ..] => {
                let column = named(column);
                if rest.windows(2).any(|pair| pair == [&b"NOT"[..], b"NULL"]) {
                    self.not_null.insert(column.clone());
                }
                self.columns.insert(column);
            }
            [] => {}
        }
    }
}

fn named(text: &[u8]) -> String {
    unquoted(&String::from_utf8_lossy(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> HashSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_stands_in_a_table_is_found_whatever_it_is_called() {
        let members = TableMembers::parse(
            "CREATE UNLOGGED TABLE \"A b\".\"T (x\" (\n    id integer NOT NULL,\n    \"W, \"\"w\" numeric(10,2) DEFAULT 'NOT NULL,'::text,\n    \
             v text COLLATE \"C\" DEFAULT (1 IS NOT NULL) CONSTRAINT mine NOT NULL,\n    \
             CONSTRAINT \"C h\" CHECK ((id > 3)),\n    CONSTRAINT own NOT NULL f,\n    NOT NULL g\n)\n\
             INHERITS (public.par, \"A b\".\"o, p\")\nWITH (fillfactor='50');\n\nALTER TABLE ONLY public.x ALTER COLUMN y SET STATISTICS 5;\n",
        );
        let members = members.unwrap();
        assert_eq!(members.columns, set(&["id", "W, \"w", "v"]));
        assert_eq!(members.not_null, set(&["id", "v", "f", "g"]));
        assert_eq!(members.constraints, set(&["C h"]));
        let parents = [("public", "par"), ("A b", "o, p")].map(|(schema, name)| (schema.to_owned(), name.to_owned()));
        assert_eq!(members.parents, parents);
        let empty = TableMembers::parse("CREATE TABLE public.e (\n);\n");
        assert_eq!(empty, Some(TableMembers::default()));
        for other in [
            "CREATE TABLE public.t OF public.k (\n    a WITH OPTIONS NOT NULL\n);",
            "CREATE VIEW public.v AS\n SELECT 1;",
            "CREATE TABLE public.t (a integer",
        ] {
            assert_eq!(TableMembers::parse(other), None, "{other}");
        }
    }
}
