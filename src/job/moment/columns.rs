//! The columns that tables have by the definitions in force: rows may have been read when columns had other names.

use std::collections::BTreeSet;

use super::bases::{Choice, Rows, TableBase};
use super::report::NotExact;
use super::spelling::statement;
use crate::error::Result;
use crate::format::archive::{Item, Loading};
use crate::repository::manifest::{ColumnRecord, Manifest};
use crate::repository::seen_catalog::SeenCatalog;
use crate::repository::stored_archive::Origin;

const UTF8: &str = "UTF8";
/// The first OID that is not PostgreSQL's own.
const OWN: u32 = 16384;

/// What an increment's catalog says of them, and the manifests of the rows.
pub(super) struct Columns<'a> {
    /// In UTF-8, unlike the archives.
    pub catalog: SeenCatalog,
    pub full: &'a Manifest,
    pub increments: &'a [Manifest],
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

impl Columns<'_> {
    /// The names of the columns that rows have, if they can be written in the archive's encoding.
    pub fn names(&self, oid: u32) -> Option<Vec<Vec<u8>>> {
        let is_utf8 = self.full.server.encoding == UTF8;
        let name = |name: &str| (name.is_ascii() || is_utf8).then(|| name.as_bytes().to_vec());
        let columns = self.catalog.table(oid)?.in_definitions().sent_columns();
        columns.map(|column| name(&column.name)).collect()
    }

    /// Whether the definitions have types for these rows that can have their values, as far as that is known.
    fn fit(&self, oid: u32, rows: Rows) -> bool {
        let Some(seen) = self.catalog.table(oid) else {
            return true;
        };
        let defined = seen.in_definitions();
        // Labels of an enum, or the attributes of a type, may have changed since the rows were read.
        let has_others = seen.lacking.is_some() || !defined.has_values_of(&seen.table);
        if defined.types.is_some() && has_others {
            return false;
        }
        let is_other = |column: &&ColumnRecord| {
            let now = defined.sent_columns().find(|now| now.name == column.name);
            now.is_some_and(|now| now.type_oid < OWN && !holds(&now.type_name, &column.type_name))
        };
        !self.as_read(oid, rows).iter().any(|column| is_other(&column))
    }

    /// The columns of the table when these rows of it were read.
    fn as_read(&self, oid: u32, rows: Rows) -> &[ColumnRecord] {
        let manifest = match rows {
            Rows::Full => Some(self.full),
            Rows::Baseline(number) => self.increments.get(number),
            Rows::Nothing => None,
        };
        let tables = manifest.map_or(&[][..], |manifest| &manifest.tables);
        let found = tables.iter().find(|table| table.oid == Some(oid));
        found.map_or(&[], |table| &table.columns)
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
            Some(read) if !exact && is_part(&read, &names) && self.fit(item.entry.oid, table.rows) => Named::AsRead,
            _ => Named::Nohow,
        })
    }
}

/// Whether every value of the other type is one of this type too: both are built in, as `format_type` prints them.
fn holds(this: &str, other: &str) -> bool {
    let rank = |name: &str| {
        ["smallint", "integer", "bigint", "numeric"]
            .iter()
            .position(|one| *one == name)
    };
    let wider = rank(this).zip(rank(other)).is_some_and(|(this, other)| other <= this);
    this == other || this == "text" || wider
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
            "{}; its definition has other columns or types than the rows from before",
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
