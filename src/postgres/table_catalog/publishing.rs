//! Decides which publication a table belongs to. A table of which UPDATE or DELETE is published must identify its rows:
//! otherwise the server refuses the application's statements.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{CatalogTable, ExtensionTable, PrimaryKey, ReplicaIdentity, TableCatalog, TableKind};
use crate::postgres::quoting::qualified;

/// The two publications of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PublicationKind {
    /// Publishes every operation.
    All,
    /// Publishes INSERT and TRUNCATE.
    Inserts,
}

/// What is to be published of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publishing {
    /// The publication that lists the table itself. `None`: a partitioned table above it is listed, or nothing of it
    /// can be published.
    pub listed: Option<PublicationKind>,
    /// How its changes arrive, by its own entry or by that of a partitioned table above it. `None`: not at all.
    pub covered: Option<PublicationKind>,
    /// Why not all of its changes arrive.
    pub obstacle: Option<Obstacle>,
}

/// Why not all changes of a table can be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    Unlogged,
    /// Its rows are the extension's.
    OfExtension,
    /// A configuration table of an extension.
    Configuration,
    NoKey,
    DeferrableKey,
    IdentityNothing,
    /// The index that `REPLICA IDENTITY USING INDEX` named was dropped, or is invalid.
    IndexGone,
    /// The key has a generated column, which the stream does not have.
    ComputedKey,
    /// `REPLICA IDENTITY FULL` with a generated column, which servers since 18 refuse for published tables.
    ComputedColumns,
    /// A partitioned table; these partitions have an obstacle of their own.
    Partitions(BTreeSet<u32>),
}

/// The first server that refuses to publish updates of a table whose identity has a generated column.
const REFUSES_COMPUTED: u32 = 18;

impl TableCatalog {
    /// How the changes of each table arrive if both publications list what they should.
    pub fn published_after_start(&self) -> BTreeMap<u32, PublicationKind> {
        let all = self.publishing().into_iter();
        all.filter_map(|(oid, one)| Some((oid, one.covered?))).collect()
    }

    /// For every table, by OID.
    pub fn publishing(&self) -> BTreeMap<u32, Publishing> {
        let own: BTreeMap<u32, Option<Obstacle>> = self
            .tables
            .iter()
            .map(|table| (table.oid, self.own_obstacle(table)))
            .collect();
        let mut blocked: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for table in &self.tables {
            // An unlogged partition is not published, whatever is above it.
            let blocks = own[&table.oid].as_ref().is_some_and(|own| !own.blocks_everything());
            for above in self.ancestors(table).filter(|_| blocks) {
                blocked.entry(above.oid).or_default().insert(table.oid);
            }
        }
        let obstacle = |oid: u32| {
            let below = || blocked.get(&oid).cloned().map(Obstacle::Partitions);
            own.get(&oid).cloned().flatten().or_else(below)
        };
        let covers = |oid: u32| covering(obstacle(oid).as_ref());
        let one = |table: &CatalogTable| {
            let obstacle = obstacle(table.oid);
            let covered = covering(obstacle.as_ref());
            // All that is below a table in the first publication can be in it too.
            let is_below = |above: &CatalogTable| covers(above.oid).is_some_and(|above| Some(above) <= covered);
            let listed = covered.filter(|_| !self.ancestors(table).any(is_below));
            let publishing = Publishing {
                listed,
                covered,
                obstacle,
            };
            (table.oid, publishing)
        };
        self.tables.iter().map(one).collect()
    }

    /// The partitioned tables above a partition, the nearest first.
    pub(crate) fn ancestors<'a>(&'a self, table: &'a CatalogTable) -> impl Iterator<Item = &'a CatalogTable> {
        let above = |table: &&'a CatalogTable| self.table(table.parent?);
        // The bound is for a catalog from a file, whose parents may go round in a circle.
        std::iter::successors(above(&table), above).take(self.tables.len())
    }

    fn own_obstacle(&self, table: &CatalogTable) -> Option<Obstacle> {
        match table.extension {
            Some(ExtensionTable::Member) => return Some(Obstacle::OfExtension),
            Some(ExtensionTable::Configuration) => return Some(Obstacle::Configuration),
            None if table.is_unlogged => return Some(Obstacle::Unlogged),
            None => {}
        }
        let without_key = || match table.primary_key {
            Some(PrimaryKey::Deferrable) => Obstacle::DeferrableKey,
            _ => Obstacle::NoKey,
        };
        if table.kind == TableKind::Partitioned {
            // Its own identity counts for nothing, and is not passed on to new partitions. Its primary key is.
            if table.primary_key != Some(PrimaryKey::Immediate) {
                return Some(without_key());
            }
        } else {
            match (table.identity, table.identity_index) {
                (ReplicaIdentity::Full, _) => {
                    let refused = self.major >= REFUSES_COMPUTED && table.generated().next().is_some();
                    return refused.then_some(Obstacle::ComputedColumns);
                }
                (ReplicaIdentity::Nothing, _) => return Some(Obstacle::IdentityNothing),
                (ReplicaIdentity::Index, None) => return Some(Obstacle::IndexGone),
                (ReplicaIdentity::Default, None) => return Some(without_key()),
                (ReplicaIdentity::Default | ReplicaIdentity::Index, Some(_)) => {}
            }
        }
        let is_computed = table.generated().any(|name| table.key.iter().any(|key| key == name));
        is_computed.then_some(Obstacle::ComputedKey)
    }
}

fn covering(obstacle: Option<&Obstacle>) -> Option<PublicationKind> {
    match obstacle {
        None => Some(PublicationKind::All),
        Some(obstacle) if obstacle.blocks_everything() => None,
        Some(_) => Some(PublicationKind::Inserts),
    }
}

impl CatalogTable {
    /// The names of the columns that are computed from others.
    fn generated(&self) -> impl Iterator<Item = &str> {
        let columns = self.columns.iter().filter(|column| column.generated.is_some());
        columns.map(|column| column.name.as_str())
    }
}

impl Obstacle {
    /// Whether not even INSERT can be published.
    fn blocks_everything(&self) -> bool {
        matches!(self, Self::Unlogged | Self::OfExtension | Self::Configuration)
    }

    /// In words, after the table's name and a colon.
    pub fn why(&self) -> String {
        match self {
            Self::Unlogged => "it is unlogged, so the server's log does not have its changes".into(),
            Self::OfExtension => "it belongs to an extension".into(),
            Self::Configuration => "it is a configuration table of an extension".into(),
            Self::NoKey => "it has no primary key, so the server's log does not identify its rows".into(),
            Self::DeferrableKey => {
                "its primary key is deferrable, so the server's log does not identify its rows by it".into()
            }
            Self::IdentityNothing => "its replica identity is NOTHING".into(),
            Self::IndexGone => "the index of its replica identity is gone".into(),
            Self::ComputedKey => "its key has a generated column, which the stream does not have".into(),
            Self::ComputedColumns => {
                "its replica identity is FULL and it has a generated column, which the stream does not have".into()
            }
            Self::Partitions(below) => match below.len() {
                1 => "one of its partitions does not identify its rows".into(),
                several => format!("{several} of its partitions do not identify their rows"),
            },
        }
    }

    /// The statement after which all changes of this table can be published, if one is known.
    pub fn remedy(&self, table: &CatalogTable, major: u32) -> Option<String> {
        let name = qualified(&table.schema, &table.name);
        let alter = format!("ALTER TABLE {name}");
        let identity = |identity: &str| Some(format!("{alter} REPLICA IDENTITY {identity}"));
        let full_is_refused = major >= REFUSES_COMPUTED && table.generated().next().is_some();
        let full = || if full_is_refused { None } else { identity("FULL") };
        match self {
            Self::Unlogged => Some(format!("{alter} SET LOGGED")),
            Self::NoKey | Self::DeferrableKey if table.kind == TableKind::Partitioned => {
                Some(format!("{alter} ADD PRIMARY KEY (…)"))
            }
            Self::IdentityNothing | Self::IndexGone | Self::ComputedColumns
                if table.primary_key == Some(PrimaryKey::Immediate) =>
            {
                identity("DEFAULT")
            }
            Self::ComputedKey if table.kind == TableKind::Partitioned => None,
            Self::NoKey | Self::DeferrableKey | Self::IdentityNothing | Self::IndexGone | Self::ComputedKey => full(),
            Self::OfExtension | Self::Configuration | Self::ComputedColumns | Self::Partitions(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
