//! How well a stream covers each table.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::postgres::{CatalogTable, Obstacle, PublicationKind, Published, TableCatalog, TableKind};
use crate::printable;
use crate::units::count;

/// How many tables of one kind are listed for people.
const SHOWN: usize = 10;

/// The tables of a database, by how the stream covers them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoveredTables {
    /// The number of tables that can be restored to any moment.
    pub exact: u64,
    /// Exact as long as rows are only inserted, or the table is emptied.
    pub inserts: Vec<TableState>,
    /// As in the full backups only.
    pub full_only: Vec<TableState>,
    /// They can be published, but are not yet.
    pub waiting: Vec<TableState>,
    /// Listed, although updates of them fail: the application is affected.
    pub breaking: Vec<TableState>,
}

/// A table that is not exact throughout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableState {
    pub schema: String,
    pub name: String,
    pub oid: u32,
    pub why: String,
    /// The statement that mends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl CoveredTables {
    pub fn of(catalog: &TableCatalog, published: &Published) -> Self {
        let mut tables = Self::default();
        let publishing = catalog.publishing();
        for table in catalog.saved() {
            let Some(wanted) = publishing.get(&table.oid) else {
                continue;
            };
            if table.kind == TableKind::Partitioned {
                // The rows are in the partitions.
                continue;
            }
            let now = published.get(&table.oid).copied();
            let obstacle = wanted.obstacle.as_ref();
            let described = |why: Option<String>| TableState {
                schema: table.schema.clone(),
                name: table.name.clone(),
                oid: table.oid,
                why: why.or_else(|| obstacle.map(Obstacle::why)).unwrap_or_default(),
                remedy: obstacle.and_then(|one| one.remedy(table, catalog.major)),
            };
            if now == Some(PublicationKind::All) && wanted.covered != Some(PublicationKind::All) {
                tables.breaking.push(described(None));
            } else if lacks(now) > lacks(wanted.covered) {
                tables.waiting.push(described(Some(waits(table))));
            } else {
                match wanted.covered {
                    Some(PublicationKind::All) => tables.exact += 1,
                    Some(PublicationKind::Inserts) => tables.inserts.push(described(None)),
                    None => tables.full_only.push(described(None)),
                }
            }
        }
        tables
    }

    /// In one line.
    pub fn summary(&self) -> String {
        let mut text = format!("{} exact", count(self.exact, "table"));
        for (tables, what) in [
            (&self.inserts, "exact while rows are only inserted"),
            (&self.full_only, "as in full backups only"),
            (&self.waiting, "not yet published"),
        ] {
            if !tables.is_empty() {
                text.push_str(&format!(", {} {what}", tables.len()));
            }
        }
        text
    }
}

/// How much of a table's changes does not arrive, for comparison.
fn lacks(published: Option<PublicationKind>) -> u8 {
    match published {
        Some(PublicationKind::All) => 0,
        Some(PublicationKind::Inserts) => 1,
        None => 2,
    }
}

fn waits(table: &CatalogTable) -> String {
    if table.is_ours {
        "it is not yet in the publication: the next increment adds it".into()
    } else {
        format!(
            "it is not in the publication, and its owner {} has to add it (`pgstow incremental start --print-sql`)",
            table.owner
        )
    }
}

impl fmt::Display for CoveredTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  tables       {}", self.summary())?;
        for (tables, what) in [
            (&self.breaking, "UPDATES FAIL"),
            (&self.waiting, "waiting"),
            (&self.inserts, "inserts only"),
            (&self.full_only, "full only"),
        ] {
            for table in tables.iter().take(SHOWN) {
                let name = printable::line(&format!("{}.{}", table.schema, table.name));
                write!(f, "  {what:<11}  {name}: {}", printable::line(&table.why))?;
                match &table.remedy {
                    Some(remedy) => writeln!(f, ": {}", printable::line(remedy))?,
                    None => writeln!(f)?,
                }
            }
            if tables.len() > SHOWN {
                writeln!(f, "  {what:<11}  and {} more", tables.len() - SHOWN)?;
            }
        }
        Ok(())
    }
}
