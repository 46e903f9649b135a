//! How users write the names of tables, and the errors for names that the backup does not have.

use super::Named;
use crate::error::{Code, Error};
use crate::postgres::quoting::{identifier, qualified};
use crate::repository::stored_archive::StoredArchive;

/// How many names an error offers.
const NEAREST: usize = 3;

/// How a user may write a table's name: plain, or quoted as in SQL.
pub(super) fn spelt((schema, name): &(String, String)) -> [String; 4] {
    [
        format!("{schema}.{name}"),
        qualified(schema, name),
        format!("{schema}.{}", identifier(name)),
        format!("{}.{name}", identifier(schema)),
    ]
}

pub(super) fn ambiguous(wanted: &str, found: &[Named]) -> Error {
    let names = found.iter().map(|((schema, name), _)| qualified(schema, name));
    let names: Vec<String> = names.collect();
    Error::config(format!(
        "--table {wanted} is ambiguous: it matches {}",
        names.join(", ")
    ))
    .hint("write the schema and the name in quotes, as shown here: --table '\"SCHEMA\".\"TABLE\"'")
}

/// Whether the archive has rows of this table without the table itself: then an extension makes the table.
pub(super) fn is_extensions(archive: &StoredArchive, wanted: &str) -> bool {
    let mut tables = archive.tables.iter().flatten();
    tables.any(|table| spelt(table).iter().any(|text| text == wanted))
}

pub(super) fn of_extension(wanted: &str) -> Error {
    let what = format!("the backup has only the rows of {wanted}: an extension makes the table itself");
    Error::new(Code::NotFound, what).hint(
        "it comes with a whole restore: restore the backup into another database (--create), and copy its rows from there",
    )
}

pub(super) fn unknown(wanted: &str, named: &[Named]) -> Error {
    let mut near: Vec<(usize, String)> = named
        .iter()
        .map(|((schema, name), _)| {
            let whole = format!("{schema}.{name}");
            let distance = strsim::damerau_levenshtein(wanted, &whole).min(strsim::damerau_levenshtein(wanted, name));
            (distance, whole)
        })
        .collect();
    near.sort();
    let names: Vec<String> = near.into_iter().take(NEAREST).map(|(_, name)| name).collect();
    let error = Error::new(Code::NotFound, format!("the backup has no table {wanted:?}"));
    match names.is_empty() {
        true => error.hint("the backup has no tables at all"),
        false => error.hint(format!(
            "name it as SCHEMA.TABLE; the nearest in the backup: {}",
            names.join(", ")
        )),
    }
}
