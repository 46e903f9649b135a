//! Every table of a database, with what a stream of its changes depends on: identity, columns, types, parents.

mod publishing;
mod query;

use serde::{Deserialize, Serialize};

pub use publishing::{Obstacle, PublicationKind, Publishing};

/// The first server whose publications and slots pgstow uses.
pub const OLDEST_STREAMED: u32 = 13;

/// The ordinary and partitioned tables of a database at one moment, in the order of their OIDs. Not in it: PostgreSQL's
/// own tables and temporary tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableCatalog {
    /// The server's major version: what can be published depends on it.
    pub major: u32,
    pub tables: Vec<CatalogTable>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogTable {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub kind: TableKind,
    pub is_unlogged: bool,
    /// The partitioned table of which it is a partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<u32>,
    pub identity: ReplicaIdentity,
    /// The index that identifies rows, as `pg_get_replica_identity_index` finds it: with `Default` the primary key, if
    /// it is not deferrable; with `Index` the chosen one, if it still exists. Of a partitioned table always the
    /// primary key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_index: Option<u32>,
    /// The columns of this index, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
    /// Its primary key, which each new partition of a partitioned table gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_key: Option<PrimaryKey>,
    /// In the order of their numbers, without dropped ones.
    pub columns: Vec<CatalogColumn>,
    /// Describes the composite types, domains, arrays and ranges of the columns, with the types within them: as long as
    /// it stays, their values have the same text, if `labels` stay too. `None`: all types are built in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub types: Option<String>,
    /// All labels of the enums among these types, by the OIDs of the labels. A renamed label keeps its OID.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<EnumLabel>,
    /// The file of its rows, which a rewrite or TRUNCATE replaces. 0: it has none.
    pub filenode: u32,
    /// With out-of-line values, without indexes. An estimate if the table has an identity, or if another session has
    /// locked a table.
    pub bytes: u64,
    pub owner: String,
    /// Whether this role may add it to a publication.
    pub is_ours: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension: Option<ExtensionTable>,
    #[serde(default)]
    pub traces: Traces,
}

/// What the catalogs show of statements after which a table looks as before. `None`: an older pgstow read the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traces {
    /// The transaction that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<u32>,
    /// The transaction that attached it to its partitioned table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached_by: Option<u32>,
    /// The transaction that changed its row of `pg_class` last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<u32>,
    /// The table of its out-of-line values; 0: none. ALTER TABLE makes another one when it rewrites the rows, and
    /// TRUNCATE does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toast: Option<u32>,
    /// A hash of the transactions that changed the rows of its columns last, dropped columns among them. ALTER TABLE
    /// changes at least one of them when it gives rows other values, and TRUNCATE none. VACUUM FULL and CLUSTER change
    /// those of columns that were added with a default and without a rewrite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns_changed_by: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    Ordinary,
    Partitioned,
}

/// How the server's log identifies the rows of a table that are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplicaIdentity {
    Default,
    Index,
    Full,
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrimaryKey {
    Immediate,
    /// It identifies no rows for the log.
    Deferrable,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogColumn {
    pub number: i16,
    pub name: String,
    /// As `format_type` prints it, with the schema of a type that is not built in.
    #[serde(rename = "type")]
    pub type_name: String,
    pub type_oid: u32,
    /// Such as the length of a varchar; -1: none.
    pub modifier: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<Generated>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityColumn>,
}

/// Computed from other columns: neither COPY nor the stream has the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Generated {
    Stored,
    Virtual,
}

/// `GENERATED … AS IDENTITY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdentityColumn {
    Always,
    Default,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnumLabel {
    pub oid: u32,
    pub label: String,
}

/// What a table is to an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExtensionTable {
    /// CREATE EXTENSION makes it; no backup has its rows.
    Member,
    /// The same, but a backup has the rows that were added to it.
    Configuration,
}

impl TableCatalog {
    pub fn table(&self, oid: u32) -> Option<&CatalogTable> {
        let at = self.tables.binary_search_by_key(&oid, |table| table.oid).ok()?;
        self.tables.get(at)
    }

    /// Those tables whose rows and definitions a backup has.
    pub fn saved(&self) -> impl Iterator<Item = &CatalogTable> {
        let is_saved = |table: &&CatalogTable| table.extension != Some(ExtensionTable::Member);
        self.tables.iter().filter(is_saved)
    }
}

impl CatalogTable {
    /// The names of the columns that COPY and the stream have.
    pub fn sent_columns(&self) -> impl Iterator<Item = &CatalogColumn> {
        self.columns.iter().filter(|column| column.generated.is_none())
    }

    /// Whether the types within its columns can have all values that they had in this earlier table. A new label of an
    /// enum changes no earlier value.
    pub fn has_values_of(&self, earlier: &CatalogTable) -> bool {
        let labels_stay = || {
            earlier.labels.iter().all(|before| {
                let at = self.labels.binary_search_by_key(&before.oid, |label| label.oid);
                at.is_ok_and(|at| self.labels[at].label == before.label)
            })
        };
        self.types == earlier.types && labels_stay()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An ordinary table `public.t<oid>`, without columns, with a primary key on `id`.
    pub(crate) fn sample(oid: u32) -> CatalogTable {
        CatalogTable {
            oid,
            schema: "public".into(),
            name: format!("t{oid}"),
            kind: TableKind::Ordinary,
            is_unlogged: false,
            parent: None,
            identity: ReplicaIdentity::Default,
            identity_index: Some(oid + 1000),
            key: vec!["id".into()],
            primary_key: Some(PrimaryKey::Immediate),
            columns: Vec::new(),
            types: None,
            labels: Vec::new(),
            filenode: oid,
            bytes: 8192,
            owner: "shop".into(),
            is_ours: true,
            extension: None,
            traces: Traces::default(),
        }
    }
}
