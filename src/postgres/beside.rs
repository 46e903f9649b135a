//! What a target already has where copies of tables will be made.

use std::collections::BTreeSet;

use super::Session;
use crate::error::Result;

/// The first major version in which a publication can contain a schema.
const PUBLISHED_SCHEMAS: u32 = 15;

/// What copies need to know about a schema.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Room {
    pub exists: bool,
    /// Whether this role may make tables there.
    pub may_create: bool,
    /// Names of relations and types, which a new relation cannot have.
    pub taken: BTreeSet<String>,
    /// A publication that would contain a new table of this schema at once.
    pub publication: Option<String>,
}

/// The object that has a name already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExistingObject {
    /// For messages.
    pub kind: String,
    pub is_table: bool,
    /// It is a partition, or has inheritance children or parents.
    pub is_bound: bool,
    pub is_ours: bool,
    pub has_row_security: bool,
    /// Its comment says that pgstow made it as a copy.
    pub is_copy: bool,
    /// Names that become free when it is dropped.
    pub indexes: Vec<String>,
}

/// The beginning of a copy's comment.
pub(crate) const COPY_OF: &str = "pgstow: copy of ";

impl Session {
    pub(crate) async fn room(&self, schema: &str) -> Result<Room> {
        let of_schema = match self.server.major {
            PUBLISHED_SCHEMAS.. => {
                "EXISTS (SELECT FROM pg_catalog.pg_publication_namespace s JOIN pg_catalog.pg_namespace n ON n.oid = s.pnnspid
                          WHERE s.pnpubid = p.oid AND n.nspname = $1)"
            }
            _ => "false",
        };
        let question = format!(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname = $1),
                    coalesce((SELECT pg_catalog.has_schema_privilege(n.oid, 'CREATE')
                                     AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
                                FROM pg_catalog.pg_namespace n WHERE n.nspname = $1), false),
                    ARRAY(SELECT c.relname::pg_catalog.text FROM pg_catalog.pg_class c
                            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1
                          UNION SELECT t.typname::pg_catalog.text FROM pg_catalog.pg_type t
                            JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE n.nspname = $1),
                    (SELECT p.pubname::pg_catalog.text FROM pg_catalog.pg_publication p
                      WHERE p.puballtables OR {of_schema} ORDER BY p.pubname LIMIT 1)"
        );
        let row = self.client.query_one(&question, &[&schema]).await;
        let read = |row: tokio_postgres::Row| {
            Ok(Room {
                exists: row.try_get(0)?,
                may_create: row.try_get(1)?,
                taken: row.try_get::<_, Vec<String>>(2)?.into_iter().collect(),
                publication: row.try_get(3)?,
            })
        };
        row.and_then(read)
            .map_err(|error| self.error("cannot read the schema's contents", &error))
    }

    pub(crate) async fn standing(&self, schema: &str, name: &str) -> Result<Option<ExistingObject>> {
        let question = format!(
            "SELECT CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view'
                      WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' WHEN 'S' THEN 'sequence'
                      WHEN 'c' THEN 'type' ELSE 'index' END, c.relkind = 'r',
                    EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid OR i.inhparent = c.oid),
                    pg_catalog.pg_has_role(c.relowner, 'USAGE'), c.relrowsecurity,
                    pg_catalog.starts_with(coalesce(pg_catalog.obj_description(c.oid, 'pg_class'), ''), '{COPY_OF}'),
                    ARRAY(SELECT i.relname::pg_catalog.text FROM pg_catalog.pg_index x
                            JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = c.oid ORDER BY i.relname)
               FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname = $1 AND c.relname = $2"
        );
        let row = self.client.query_opt(&question, &[&schema, &name]).await;
        let read = |row: tokio_postgres::Row| {
            Ok(ExistingObject {
                kind: row.try_get(0)?,
                is_table: row.try_get(1)?,
                is_bound: row.try_get(2)?,
                is_ours: row.try_get(3)?,
                has_row_security: row.try_get(4)?,
                is_copy: row.try_get(5)?,
                indexes: row.try_get(6)?,
            })
        };
        row.and_then(|row| row.map(read).transpose())
            .map_err(|error| self.error("cannot look for the table", &error))
    }
}
