//! Objects that the backup left out, by its own manifest: a drill does not find them, and that is no damage.

use std::collections::BTreeMap;

use super::extensions::qualified_name;
use super::outline::{name, tokens};
use crate::format::archive::Item;
use crate::postgres::Omission;

/// The start of a reason that another drill could not remove.
pub(super) const LEFT_OUT: &str = "the backup left it out: ";

/// Kinds of tables that lack some or all rows.
const TABLES: [&str; 3] = ["rows", "unlogged_table", OF_EXTENSIONS];
const OF_EXTENSIONS: &str = "extension_table";
const SEQUENCES: [&str; 3] = ["sequence", "unlogged_sequence", "extension_sequence"];
const LARGE_OBJECTS: [&str; 2] = ["large_object", "large_objects"];

/// From the manifest.
#[derive(Debug, Clone, Default)]
pub(super) struct Missing {
    tables: BTreeMap<(String, String), String>,
    sequences: BTreeMap<(String, String), String>,
    large_objects: Option<String>,
    /// Why tables lack rows that other tables or a check may need.
    looked_for: Option<String>,
    /// The reason, if more of them are missing than the manifest names.
    more_tables: Option<String>,
    more_sequences: Option<String>,
}

impl Missing {
    pub fn of(left_out: &[Omission]) -> Missing {
        let mut missing = Missing::default();
        for one in left_out {
            let kind = one.kind.as_str();
            let why = format!("{LEFT_OUT}{}", one.why);
            if LARGE_OBJECTS.contains(&kind) {
                missing.large_objects = Some(why);
                continue;
            }
            if TABLES.contains(&kind) && kind != OF_EXTENSIONS {
                missing.looked_for.get_or_insert_with(|| why.clone());
            }
            let (named, more) = match kind {
                _ if TABLES.contains(&kind) => (&mut missing.tables, &mut missing.more_tables),
                _ if SEQUENCES.contains(&kind) => (&mut missing.sequences, &mut missing.more_sequences),
                _ => continue,
            };
            match qualified_name(&one.name) {
                Some(name) => drop(named.insert(name, why)),
                None if kind != OF_EXTENSIONS => *more = Some(why),
                None => {}
            }
        }
        missing
    }

    /// Why a table lacks rows.
    pub fn rows(&self, schema: &str, name: &str) -> Option<&str> {
        self.tables
            .get(&(schema.to_owned(), name.to_owned()))
            .map(String::as_str)
    }

    /// Why an entry about a large object finds no object.
    pub fn of_large_objects(&self, item: &Item) -> Option<&str> {
        let said = item.entry.tag.starts_with("LARGE OBJECT") || item.entry.desc.starts_with("BLOB");
        self.large_objects().filter(|_| said)
    }

    pub fn large_objects(&self) -> Option<&str> {
        self.large_objects.as_deref()
    }

    /// Why this is in the second dump but not in the backup.
    pub fn of_tag(&self, desc: &str, schema: &str, tag: &str) -> Option<&str> {
        match desc {
            "TABLE DATA" => self.rows(schema, tag).or(self.more_tables.as_deref()),
            "SEQUENCE SET" => {
                let named = self.sequences.get(&(schema.to_owned(), tag.to_owned()));
                named.or(self.more_sequences.as_ref()).map(String::as_str)
            }
            "ACL" | "COMMENT" | "SECURITY LABEL" if tag.starts_with("LARGE OBJECT") => self.large_objects(),
            _ if desc.starts_with("BLOB") => self.large_objects(),
            _ => None,
        }
    }

    /// Why rows that a check may look for are missing: a check that fails for that is not known to be wrong.
    pub fn looked_for(&self) -> Option<&str> {
        self.looked_for.as_deref()
    }

    /// The archive's entries of tables that lack rows, with the reason.
    pub fn entries(&self, items: &[Item]) -> Vec<(i64, String)> {
        let rows = items.iter().filter(|item| item.entry.desc == "TABLE DATA");
        let found = rows.filter_map(|item| {
            let schema = item.entry.namespace.as_deref().unwrap_or_default();
            Some((item.entry.dump_id, self.rows(schema, &item.entry.tag)?.to_owned()))
        });
        found.collect()
    }

    /// Why a foreign key finds no rows in the table that it refers to.
    pub fn key(&self, item: &Item) -> Option<&str> {
        if item.entry.desc != "FK CONSTRAINT" {
            return None;
        }
        let words = tokens(&item.details.definition);
        let at = words.iter().position(|token| *token == (0, "REFERENCES"))?;
        match words[at + 1..] {
            [(_, schema), (_, "."), (_, table), ..] => self.rows(&name(schema), &name(table)),
            _ => None,
        }
        .or(self.more_tables.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_is_known_by_its_name_or_by_there_being_more() {
        let one = |kind: &str, name: &str| Omission {
            kind: kind.into(),
            name: name.into(),
            why: "so".into(),
        };
        let missing = Missing::of(&[
            one("rows", "s.\"T t\""),
            one("sequence", "s.q"),
            one("unlogged_sequence", "3 more"),
            one("foreign_table", "s.f"),
        ]);
        assert!(missing.rows("s", "T t").is_some() && missing.rows("s", "f").is_none());
        assert!(missing.of_tag("SEQUENCE SET", "s", "any").is_some());
        assert!(missing.of_tag("TABLE DATA", "s", "any").is_none());
        assert!(missing.large_objects().is_none());
        assert!(
            Missing::of(&[one("large_object", "7")])
                .of_tag("ACL", "", "LARGE OBJECT 7")
                .is_some()
        );
    }
}
