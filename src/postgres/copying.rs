//! How COPY and pg_dump name single tables, in the database's encoding.

use std::collections::BTreeMap;

use super::Session;
use crate::error::Result;

impl Session {
    /// pg_dump's patterns for exactly these tables, as pg_dump reads its arguments. A table that is gone has none. Call
    /// it after the snapshot was exported, so that the names are those of the snapshot.
    pub async fn dump_patterns(&self, oids: &[u32]) -> Result<Vec<Vec<u8>>> {
        let failed = |error| self.error("cannot read the names of the tables", &error);
        let quoted = |name: &str| format!("'\"' || pg_catalog.replace({name}::pg_catalog.text, '\"', '\"\"') || '\"'");
        let question = format!(
            "SELECT pg_catalog.convert_to({} || '.' || {}, pg_catalog.getdatabaseencoding())
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.oid = ANY ($1) ORDER BY c.oid",
            quoted("n.nspname"),
            quoted("c.relname")
        );
        let rows = self.client.query(&question, &[&oids]).await.map_err(failed)?;
        rows.iter().map(|row| row.try_get(0).map_err(failed)).collect()
    }

    /// The statements that copy the same columns as pg_dump's, by OID. A table that is gone has none.
    pub(crate) async fn copy_statements(&self, oids: &[u32]) -> Result<BTreeMap<u32, Vec<u8>>> {
        let failed = |error| self.error("cannot read the columns of the tables", &error);
        let question = "SELECT c.oid, pg_catalog.convert_to(
                'COPY ' || pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
                  || coalesce((SELECT ' (' || pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum) || ')'
                       FROM pg_catalog.pg_attribute a
                       WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''), '')
                  || ' TO stdout', pg_catalog.getdatabaseencoding())
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.oid = ANY ($1)";
        let rows = self.client.query(question, &[&oids]).await.map_err(failed)?;
        let read = |row: &tokio_postgres::Row| Ok((row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?));
        rows.iter().map(read).collect()
    }
}
