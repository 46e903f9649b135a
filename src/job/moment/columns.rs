//! The columns that tables have by the definitions in force: rows may have been read when columns had other names.

use std::collections::BTreeSet;

use super::bases::{Choice, Rows, TableBase};
use super::report::NotExact;
use super::spelling::statement;
use crate::error::Result;
use crate::format::archive::{Item, Loading};
use crate::repository::seen_catalog::SeenCatalog;
use crate::repository::stored_archive::Origin;

const UTF8: &str = "UTF8";

/// What an increment's catalog says of them.
pub(super) struct Columns {
    catalog: SeenCatalog,
    /// Of the archives; the catalog is in UTF-8.
    encoding: String,
}

/// How the rows of a table are loaded.
pub(super) enum Named {
    /// By the statement that they were read with.
    AsRead,
    /// By this one.
    Anew(Vec<u8>),
    /// Not at all.
    Nohow,
}

impl Columns {
    pub fn new(catalog: SeenCatalog, encoding: &str) -> Self {
        Self {
            catalog,
            encoding: encoding.to_owned(),
        }
    }

    /// The names of the columns that rows have, if they can be written in the archive's encoding.
    fn names(&self, oid: u32) -> Option<Vec<Vec<u8>>> {
        let name = |name: &str| (name.is_ascii() || self.encoding == UTF8).then(|| name.as_bytes().to_vec());
        self.catalog.table(oid)?.names_in_definitions().map(name).collect()
    }

    /// How rows with the columns of this block are loaded into the table that the definitions have.
    pub fn named(&self, item: &Item, table: &TableBase, origin: &Origin) -> Result<Named> {
        let exact = table.not_exact.is_none();
        if exact && !table.renamed {
            return Ok(Named::AsRead);
        }
        let Some(names) = self.names(item.entry.oid) else {
            return Ok(if exact { Named::Nohow } else { Named::AsRead });
        };
        let read = match origin {
            Origin::Block(archive, index) => {
                let statements = archive.head.copy_statements()?;
                let loading = statements.get(*index).and_then(|statement| Loading::parse(statement));
                loading.map(|loading| loading.column_names())
            }
            Origin::Nothing => None,
        };
        let path = item.entry.path();
        Ok(match read {
            Some(read) if exact && read.len() == names.len() => Named::Anew(statement(&path, &names)),
            None if exact => Named::Anew(statement(&path, &names)),
            // The definitions are of before or after the change of the columns.
            Some(read) if !exact && is_part(&read, &names) => Named::AsRead,
            _ => Named::Nohow,
        })
    }
}

fn is_part(read: &[Vec<u8>], names: &[Vec<u8>]) -> bool {
    let names: BTreeSet<&Vec<u8>> = names.iter().collect();
    read.iter().all(|name| names.contains(name))
}

/// Takes the rows of a baseline for tables in the gap before it, if the definitions in force are those of its increment:
/// the rows from before the gap may have other columns. The same for tables that have no rows from before.
pub(super) fn with_later_rows(choice: &mut Choice, definitions_of: Option<usize>) {
    for table in choice.tables.values_mut().filter(|table| table.not_exact.is_some()) {
        let Some(later) = table
            .later
            .filter(|later| definitions_of.is_some_and(|of| of >= *later))
        else {
            continue;
        };
        table.rows = Rows::Baseline(later);
        table.follows = false;
    }
}

/// Leaves the rows of a table out, and says so.
pub(super) fn without_rows(table: &mut TableBase, item: &Item) {
    let before = table.not_exact.take();
    let why = match &before {
        Some(before) => format!(
            "{}; its definition has other columns than the rows from before",
            before.why
        ),
        None => "the new names of its columns cannot be written in the encoding of the database".to_owned(),
    };
    table.follows = false;
    table.not_exact = Some(NotExact {
        what: item.entry.name(),
        why: format!("{why}, so it is restored without rows"),
        before: before.as_ref().and_then(|before| before.before),
        after: before.as_ref().and_then(|before| before.after),
    });
}
