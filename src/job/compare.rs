//! What two full backups of a database have in different tables, as their manifests say it. No data is read.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::format::Format;
use crate::repository::backup_id::BackupId;
use crate::repository::manifest::{Manifest, TableRecord};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    pub id: BackupId,
    /// The backup that it is compared with.
    pub with: BackupId,
    pub same: usize,
    pub differs: usize,
    pub new: usize,
    pub gone: usize,
    /// By schema and name.
    pub tables: Vec<TableComparison>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableComparison {
    pub schema: String,
    pub name: String,
    pub difference: Difference,
    /// `None`: the backup does not have the table.
    pub now: Option<Size>,
    pub before: Option<Size>,
}

/// The digest of a table covers its rows in the order in which they were read: the same rows in another order differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    Same,
    Differs,
    New,
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Size {
    pub rows: u64,
    pub bytes: u64,
}

impl From<&TableRecord> for Size {
    fn from(table: &TableRecord) -> Self {
        Self {
            rows: table.rows,
            bytes: table.bytes,
        }
    }
}

/// # Errors
/// `CONFIG` for an increment, and for a script whose tables were not counted.
pub fn compare(now: &Manifest, before: &Manifest) -> Result<Comparison> {
    check(now)?;
    check(before)?;
    let mut both: BTreeMap<(&str, &str), [Option<&TableRecord>; 2]> = BTreeMap::new();
    for (side, manifest) in [now, before].into_iter().enumerate() {
        for table in &manifest.tables {
            both.entry((&table.schema, &table.name)).or_default()[side] = Some(table);
        }
    }
    let tables: Vec<TableComparison> = both
        .into_iter()
        .map(|((schema, name), [now, before])| TableComparison {
            schema: schema.to_owned(),
            name: name.to_owned(),
            difference: difference(now, before),
            now: now.map(Size::from),
            before: before.map(Size::from),
        })
        .collect();
    let count = |wanted| tables.iter().filter(|table| table.difference == wanted).count();
    Ok(Comparison {
        id: now.id.clone(),
        with: before.id.clone(),
        same: count(Difference::Same),
        differs: count(Difference::Differs),
        new: count(Difference::New),
        gone: count(Difference::Gone),
        tables,
    })
}

fn difference(now: Option<&TableRecord>, before: Option<&TableRecord>) -> Difference {
    match (now, before) {
        (Some(now), Some(before)) if now.sha256 == before.sha256 && now.rows == before.rows => Difference::Same,
        (Some(_), None) => Difference::New,
        (None, Some(_)) => Difference::Gone,
        _ => Difference::Differs,
    }
}

fn check(manifest: &Manifest) -> Result<()> {
    let why = match manifest.format {
        _ if manifest.increment.is_some() => "is an increment: it holds changes, and no tables",
        Format::Plain if manifest.script.is_none() => "was made before scripts were counted: its tables are not known",
        _ => return Ok(()),
    };
    Err(Error::config(format!("{} {why}", manifest.id)).hint("compare two full backups; `pgstow list` shows them"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::manifest::tests::sample;
    use crate::repository::retention::Tier;

    #[test]
    fn tables_are_the_same_differ_come_and_go() {
        let before = sample(&"shop/20260131T040500Z-full".parse().unwrap(), Tier::Daily);
        let mut now = before.clone();
        assert!(!before.tables.is_empty());
        let same = compare(&now, &before).unwrap();
        assert_eq!(
            (same.same, same.differs, same.new, same.gone),
            (before.tables.len(), 0, 0, 0)
        );
        now.tables[0].sha256 = "0".repeat(64);
        let mut added = now.tables[0].clone();
        added.name = "added".to_owned();
        now.tables.push(added);
        let differs = compare(&now, &before).unwrap();
        assert_eq!((differs.differs, differs.new, differs.gone), (1, 1, 0));
        let back = compare(&before, &now).unwrap();
        assert_eq!((back.differs, back.new, back.gone), (1, 0, 1));
        let gone = back.tables.iter().find(|table| table.name == "added").unwrap();
        assert_eq!(
            (gone.difference, gone.now.is_some(), gone.before.is_some()),
            (Difference::Gone, false, true)
        );
    }
}
