//! What the server has counted about tables.

use std::collections::BTreeMap;

use super::Session;
use crate::error::Result;

/// About the large objects of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LargeObjectTally {
    pub any: bool,
    /// On the server's disk.
    pub bytes: u64,
}

impl Session {
    /// How many rows of these tables were updated or deleted, by OID, as far as the server has counted. A count may be
    /// late, and a crash resets it. So it can show that rows were changed, but not that none were.
    pub async fn rows_changed(&self, oids: &[u32]) -> Result<BTreeMap<u32, u64>> {
        let failed = |error| self.error("cannot read the counts of changed rows", &error);
        let question = "SELECT one.oid, pg_catalog.pg_stat_get_tuples_updated(one.oid)
                               + pg_catalog.pg_stat_get_tuples_deleted(one.oid)
                        FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS one (oid)";
        let rows = self.client.query(question, &[&oids]).await.map_err(failed)?;
        let mut counts = BTreeMap::new();
        for row in rows {
            let (oid, count): (u32, Option<i64>) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
            counts.insert(oid, count.and_then(|count| count.try_into().ok()).unwrap_or_default());
        }
        Ok(counts)
    }

    /// Those of these tables that the role may not read, or not all rows of.
    pub async fn closed_tables(&self, oids: &[u32]) -> Result<Vec<u32>> {
        let failed = |error| self.error("cannot read the role's privileges", &error);
        let question = "SELECT c.oid FROM pg_catalog.pg_class AS c
                        WHERE c.oid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.oid[])
                          AND (NOT pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE')
                               OR NOT pg_catalog.has_table_privilege(c.oid, 'SELECT')
                               OR pg_catalog.row_security_active(c.oid))
                        ORDER BY c.oid";
        let rows = self.client.query(question, &[&oids]).await.map_err(failed)?;
        rows.iter().map(|row| row.try_get(0).map_err(failed)).collect()
    }

    /// Of all large objects: it changes if one is made, written, removed, or given to another role. It is made of the
    /// transactions that wrote their pages, so a page that is written again with the same bytes counts as changed. `None`:
    /// the role may not read them.
    pub async fn large_objects_fingerprint(&self) -> Result<Option<String>> {
        let failed = |error| self.error("cannot look at the large objects", &error);
        let allowed =
            "SELECT pg_catalog.has_table_privilege('pg_catalog.pg_largeobject'::pg_catalog.regclass, 'SELECT')";
        let row = self.client.query_one(allowed, &[]).await.map_err(failed)?;
        if !row.try_get::<_, bool>(0).map_err(failed)? {
            return Ok(None);
        }
        let sum = |of: &str, from: &str| {
            format!(
                "(SELECT pg_catalog.concat(pg_catalog.count(*), ' ', coalesce(pg_catalog.sum(pg_catalog.hashtextextended(
                     pg_catalog.concat_ws(' ', {of}) COLLATE pg_catalog.\"C\", 0)), 0)) FROM pg_catalog.{from} x)"
            )
        };
        let question = format!(
            "SELECT pg_catalog.concat_ws('/', {}, {})",
            sum("x.loid, x.pageno, x.xmin", "pg_largeobject"),
            sum("x.oid, x.xmin", "pg_largeobject_metadata")
        );
        let row = self.client.query_one(&question, &[]).await.map_err(failed)?;
        row.try_get(0).map(Some).map_err(failed)
    }

    pub async fn large_object_tally(&self) -> Result<LargeObjectTally> {
        let failed = |error| self.error("cannot read the size of the large objects", &error);
        let question = "SELECT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata),
                               pg_catalog.pg_table_size('pg_catalog.pg_largeobject'::pg_catalog.regclass)";
        let row = self.client.query_one(question, &[]).await.map_err(failed)?;
        let bytes: i64 = row.try_get(1).map_err(failed)?;
        Ok(LargeObjectTally {
            any: row.try_get(0).map_err(failed)?,
            bytes: bytes.try_into().unwrap_or_default(),
        })
    }
}
