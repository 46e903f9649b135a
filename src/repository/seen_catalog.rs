//! `catalog.json`: the tables of the source as an increment saw them, and how far the stream accounts for them.
//!
//! The next increment compares the source with it. So a table whose change could not be settled (a baseline that had to
//! wait, say) stays in it as it was before, or is left out: then the next increment sees the same difference again.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::format::Lsn;
use crate::format::script::Sum;
use crate::postgres::{CatalogTable, Memberships, PublicationKind, Published, TableCatalog};
use crate::repository::backup_id::{BackupId, CATALOG};
use crate::repository::manifest::ReplayProof;
use crate::store::limits;

/// The schema that this program writes, and the newest that it reads.
const SCHEMA: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenCatalog {
    schema: u32,
    /// The server's major version.
    pub major: u32,
    /// Everything that was committed before the catalog was read is before this position.
    pub at: Lsn,
    pub definitions: SeenDefinitions,
    /// The fingerprint of the large objects when an increment read them last, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub large_objects: Option<String>,
    /// In the order of the OIDs.
    pub tables: Vec<SeenTable>,
}

/// The definitions that are in force, and the backup that has them: the newest with a `.schema`, or a full, whose
/// catalog has this same fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenDefinitions {
    /// Of all definitions, as `Session::definitions_fingerprint` computes it.
    pub fingerprint: String,
    /// The definitions were like this from this position on, up to the end of the increment that has this file: a moment
    /// between the two has them already.
    pub from: Lsn,
}

/// A table, and how the stream has its changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenTable {
    pub table: CatalogTable,
    /// The same table in the definitions that the increment stored, if it was changed in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defined: Option<Box<CatalogTable>>,
    /// The publication by which its changes arrive. `None`: they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<PublicationKind>,
    /// By what it was published, as `Publications::memberships` says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub membership: Option<String>,
    /// Why the stream does not lead to its rows, although it is published: it needs a baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacking: Option<String>,
    /// Of such a table: what may be replayed up to this baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<ReplayProof>,
    /// Of a table whose updates do not arrive: its rows when they were last read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<SeenRows>,
    /// Of such a table: the server's count of rows updated and deleted. It can show that there were such changes, but
    /// not that there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<u64>,
}

/// The COPY text of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRows {
    pub bytes: u64,
    /// Hex digits.
    pub sha256: String,
    /// The rows that the increment's changes have inserted, and that are not in this text yet. `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<Sum>,
}

impl SeenTable {
    /// As the definitions of the same increment have it.
    pub fn in_definitions(&self) -> &CatalogTable {
        self.defined.as_deref().unwrap_or(&self.table)
    }
}

impl SeenCatalog {
    pub fn new(major: u32, at: Lsn, definitions: SeenDefinitions, tables: Vec<SeenTable>) -> Self {
        Self {
            schema: SCHEMA,
            major,
            at,
            definitions,
            large_objects: None,
            tables,
        }
    }

    #[must_use]
    pub fn with_large_objects(self, large_objects: Option<String>) -> Self {
        Self { large_objects, ..self }
    }

    /// Of a stream that begins: `published` says how each table's changes arrive, and `memberships` by what.
    pub fn first(
        catalog: TableCatalog,
        at: Lsn,
        fingerprint: String,
        (published, memberships): (&Published, &Memberships),
    ) -> Self {
        let seen = |table: CatalogTable| SeenTable {
            published: published.get(&table.oid).copied(),
            membership: memberships.get(&table.oid).cloned(),
            table,
            defined: None,
            lacking: None,
            proof: None,
            rows: None,
            counted: None,
        };
        let definitions = SeenDefinitions { fingerprint, from: at };
        Self::new(
            catalog.major,
            at,
            definitions,
            catalog.tables.into_iter().map(seen).collect(),
        )
    }

    pub fn table(&self, oid: u32) -> Option<&SeenTable> {
        let at = self.tables.binary_search_by_key(&oid, |seen| seen.table.oid).ok()?;
        self.tables.get(at)
    }

    /// Whether the stream leads to the rows of all published tables. If not, an increment has something to do although
    /// nothing was changed.
    pub fn is_settled(&self) -> bool {
        self.tables.iter().all(|seen| seen.lacking.is_none())
    }

    /// The file's bytes. The same catalog always gives the same bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)
            .map_err(|error| Error::internal("cannot write the catalog as JSON").source(error))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads the file of a backup. Every entry has required fields, so what it takes in memory is in proportion to its
    /// length, which has a limit.
    pub fn parse(bytes: &[u8], id: &BackupId) -> Result<Self> {
        #[derive(Deserialize)]
        struct Schema {
            schema: u64,
        }
        let key = id.key(CATALOG);
        let refused = |why: String| Error::new(Code::Integrity, format!("cannot use {key}: {why}"));
        if bytes.len() as u64 > limits::CATALOG {
            return Err(limits::too_long(&key, bytes.len() as u64, limits::CATALOG));
        }
        let broken = |error: serde_json::Error| refused(format!("it is not a catalog: {error}"));
        // This check is first, because a newer schema may have any other shape.
        let schema: Schema = serde_json::from_slice(bytes).map_err(broken)?;
        if schema.schema != u64::from(SCHEMA) {
            let newer = format!("it has schema {}, and this pgstow reads {SCHEMA}", schema.schema);
            return Err(refused(newer).hint("use the version of pgstow that made it, or a newer one"));
        }
        let catalog: Self = serde_json::from_slice(bytes).map_err(broken)?;
        let is_sorted = catalog.tables.is_sorted_by(|one, next| one.table.oid < next.table.oid);
        if !is_sorted {
            return Err(refused("its tables are not in the order of their OIDs".into()));
        }
        Ok(catalog)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id() -> BackupId {
        "shop/20250131T040500Z-incr".parse().unwrap()
    }

    fn table(oid: u32) -> serde_json::Value {
        serde_json::json!({"table": {
            "oid": oid, "schema": "public", "name": format!("t{oid}"), "kind": "ordinary", "is_unlogged": false,
            "identity": "default", "identity_index": oid + 1, "key": ["id"], "filenode": oid, "bytes": 8192,
            "owner": "shop", "is_ours": true,
            "columns": [{"number": 1, "name": "id", "type": "integer", "type_oid": 23, "modifier": -1}]
        }, "published": "all"})
    }

    fn file(schema: u32, oids: &[u32]) -> Vec<u8> {
        let tables: Vec<_> = oids.iter().map(|oid| table(*oid)).collect();
        let definitions = serde_json::json!({"fingerprint": "ab", "from": "0/1"});
        let file = serde_json::json!({
            "schema": schema, "major": 18, "at": "0/2A", "definitions": definitions, "tables": tables
        });
        serde_json::to_vec(&file).unwrap()
    }

    #[test]
    fn a_catalog_comes_back_as_it_was() {
        let catalog = SeenCatalog::parse(&file(1, &[5, 9]), &id()).unwrap();
        assert_eq!(catalog.table(9).unwrap().published, Some(PublicationKind::All));
        assert!(catalog.table(6).is_none());
        let again = SeenCatalog::parse(&catalog.to_bytes().unwrap(), &id()).unwrap();
        assert_eq!(again, catalog);
    }

    #[test]
    fn what_is_no_catalog_of_this_version_is_refused() {
        for (bytes, why) in [
            (file(2, &[5]), "schema 2"),
            (file(1, &[9, 5]), "not in the order"),
            (file(1, &[5, 5]), "not in the order"),
            (b"{}".to_vec(), "not a catalog"),
            (b"".to_vec(), "not a catalog"),
        ] {
            let error = SeenCatalog::parse(&bytes, &id()).unwrap_err();
            assert_eq!(error.code(), Code::Integrity);
            assert!(error.message().contains(why), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_catalog_with_changed_bytes_is_read_or_refused(at in 0usize..600, byte in any::<u8>()) {
            let mut bytes = file(1, &[5, 9]);
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = SeenCatalog::parse(&bytes, &id());
        }
    }
}
