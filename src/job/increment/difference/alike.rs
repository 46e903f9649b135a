//! Comparisons of two descriptions of one table, as two increments saw it.

use crate::postgres::{CatalogColumn, CatalogTable};

/// Whether a table is no more as it was, in any way that matters for its rows: definitions from before do not know the
/// new label of an enum either.
pub(in crate::job::increment) fn is_changed(before: &CatalogTable, table: &CatalogTable, truncated: bool) -> bool {
    !is_same_rows(before, table)
        || before.types != table.types
        || before.labels != table.labels
        || before.filenode != table.filenode && !truncated
        || before.is_unlogged != table.is_unlogged
        || before.identity != table.identity
        || key(before) != key(table)
}

/// Whether ALTER TABLE may have given its rows other values. It is also `true` after other changes of columns, of their
/// defaults for example.
pub(in crate::job::increment) fn is_altered(before: &CatalogTable, table: &CatalogTable) -> bool {
    before.traces.columns_changed_by != table.traces.columns_changed_by
}

/// Whether a row that was there before has the same text now.
pub(super) fn has_same_values(before: &CatalogTable, table: &CatalogTable) -> bool {
    !is_altered(before, table) && is_same_rows(before, table) && table.has_values_of(before)
}

/// Whether the table and its columns have the same names. Columns that differ in more than their names are no renamed
/// ones.
pub(in crate::job::increment) fn is_named_as(before: &CatalogTable, table: &CatalogTable) -> bool {
    let mut columns = before.columns.iter().filter_map(|column| {
        let same = |other: &&CatalogColumn| other.number == column.number;
        Some((column, table.columns.iter().find(same)?))
    });
    (&before.schema, &before.name) == (&table.schema, &table.name)
        && columns.all(|(column, now)| column.name == now.name)
}

/// Whether COPY gives the same columns with values of the same types. A column's name does not matter: rows are texts in
/// the order of the columns.
pub(super) fn is_same_rows(before: &CatalogTable, table: &CatalogTable) -> bool {
    let columns = |table: &CatalogTable| -> Vec<_> {
        let columns = table.columns.iter();
        columns
            .map(|column| (column.number, column.type_oid, column.modifier, column.generated))
            .collect()
    };
    columns(before) == columns(table)
}

/// Whether one transaction made the table and attached it last, so that it cannot have had rows from before. `false`: it
/// is not known.
pub(super) fn was_made_as_partition(table: &CatalogTable) -> bool {
    table.traces.attached_by.is_some() && table.traces.attached_by == table.traces.made_by
}

/// Whether values that were written before have another text now. New labels do not matter.
pub(super) fn labels_changed(before: &CatalogTable, table: &CatalogTable) -> bool {
    before.labels.iter().any(|label| !table.labels.contains(label))
}

/// The numbers of the columns that identify a row.
pub(super) fn key(table: &CatalogTable) -> Vec<Option<i16>> {
    let number = |name: &String| {
        let column = table.columns.iter().find(|column| column.name == *name);
        column.map(|column| column.number)
    };
    table.key.iter().map(number).collect()
}
