//! To whom the objects of a database belong, and what follows from it for this role.

use std::collections::BTreeSet;

use super::tables::{CHOSEN, Names};
use super::{Named, Session};
use crate::error::Result;

impl Session {
    /// Those of these roles that are superusers of this server.
    pub(crate) async fn superusers(&self, roles: &[&str]) -> Result<BTreeSet<String>> {
        let failed = |error| self.error("cannot look at the roles", &error);
        let question = "SELECT r.rolname::pg_catalog.text FROM pg_catalog.pg_roles r
             WHERE r.rolsuper AND r.rolname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($1)";
        let rows = self.client.query(question, &[&roles]).await.map_err(failed)?;
        let read = rows.iter().map(|row| row.try_get(0));
        read.collect::<std::result::Result<_, _>>().map_err(failed)
    }

    /// The owner of a schema, unless it is a superuser. What belongs to `pg_database_owner` is the database's owner's.
    pub(crate) async fn owner_of_schema(&self, name: &str) -> Result<Option<String>> {
        let failed = |error| self.error("cannot look at the owner of the schema", &error);
        let question = "SELECT o.rolname::pg_catalog.text FROM pg_catalog.pg_namespace n
             JOIN pg_catalog.pg_database d ON d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
             JOIN pg_catalog.pg_roles h ON h.oid OPERATOR(pg_catalog.=) n.nspowner
             JOIN pg_catalog.pg_roles o ON o.oid OPERATOR(pg_catalog.=)
               CASE h.rolname WHEN 'pg_database_owner' THEN d.datdba ELSE h.oid END
             WHERE n.nspname OPERATOR(pg_catalog.=) $1 AND NOT o.rolsuper";
        let row = self.client.query_opt(question, &[&name]).await.map_err(failed)?;
        row.map(|row| row.try_get(0)).transpose().map_err(failed)
    }

    /// The places of those of these objects that this role may not drop, with their owners: an object may be dropped by
    /// its own owner and, if it lies in a schema, by the schema's.
    pub(crate) async fn irremovable(&self, asked: &[Named<'_>]) -> Result<Vec<(usize, String)>> {
        let failed = |error| self.error("cannot look at the owners of the objects", &error);
        let column = |of: fn(&Named<'_>) -> String| asked.iter().map(of).collect::<Vec<_>>();
        let kinds = column(|named| named.kind.to_owned());
        let schemas = column(|named| named.schema.to_owned());
        let names = column(|named| named.name.to_owned());
        let rows = self
            .client
            .query(IRREMOVABLE, &[&kinds, &schemas, &names])
            .await
            .map_err(failed)?;
        let one = |row: &tokio_postgres::Row| {
            let at: i64 = row.try_get(0)?;
            Ok((usize::try_from(at - 1).unwrap_or_default(), row.try_get(1)?))
        };
        rows.iter()
            .map(one)
            .collect::<std::result::Result<_, _>>()
            .map_err(failed)
    }

    /// Partitions and child tables of these tables, and tables above them, which are none of these tables and belong to
    /// roles as which this role may not act: each with its owner.
    pub(crate) async fn relatives_of_others(&self, tables: &Names) -> Result<Vec<(String, String)>> {
        let question = format!(
            "WITH chosen AS ({CHOSEN}), beside AS (
               SELECT CASE WHEN i.inhparent IN (SELECT oid FROM chosen) THEN i.inhrelid ELSE i.inhparent END AS oid
                 FROM pg_catalog.pg_inherits i
                WHERE (i.inhparent IN (SELECT oid FROM chosen)) <> (i.inhrelid IN (SELECT oid FROM chosen)))
             SELECT DISTINCT pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.pg_get_userbyid(c.relowner)::pg_catalog.text
               FROM beside JOIN pg_catalog.pg_class c ON c.oid = beside.oid
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE c.relkind IN ('r', 'p', 'f') AND NOT pg_catalog.pg_has_role(c.relowner, 'USAGE') ORDER BY 1"
        );
        let rows = self.about(tables, &question).await?;
        self.read(rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect())
    }
}

/// How the rows of a table are put back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refilling {
    /// The table is emptied first.
    pub emptied: bool,
    /// Its rows are read again.
    pub read: bool,
}

/// A table into which the role may not load rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClosedTable {
    pub schema: String,
    pub name: String,
    pub owner: String,
    /// The privileges, as GRANT names them.
    pub lacking: String,
}

impl Session {
    /// Those of these tables on which the role lacks a right that it needs. A right on single columns counts.
    pub(crate) async fn closed_for(&self, tables: &Names, refilling: Refilling) -> Result<Vec<ClosedTable>> {
        let Refilling { emptied, read } = refilling;
        let question = format!(
            "WITH chosen AS ({CHOSEN}), asked AS (
               SELECT n.nspname::pg_catalog.text AS schema, c.relname::pg_catalog.text AS name,
                      pg_catalog.pg_get_userbyid(c.relowner)::pg_catalog.text AS owner,
                      pg_catalog.concat_ws(', ',
                        CASE WHEN {read} AND NOT pg_catalog.has_any_column_privilege(c.oid, 'SELECT') THEN 'SELECT' END,
                        CASE WHEN NOT pg_catalog.has_any_column_privilege(c.oid, 'INSERT') THEN 'INSERT' END,
                        CASE WHEN {emptied} AND NOT pg_catalog.has_table_privilege(c.oid, 'TRUNCATE') THEN 'TRUNCATE' END)
                        AS lacking
                 FROM chosen JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) chosen.oid
                 JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace)
             SELECT schema, name, owner, lacking FROM asked WHERE lacking OPERATOR(pg_catalog.<>) '' ORDER BY 1, 2"
        );
        let closed = |row: &tokio_postgres::Row| {
            Ok(ClosedTable {
                schema: row.try_get(0)?,
                name: row.try_get(1)?,
                owner: row.try_get(2)?,
                lacking: row.try_get(3)?,
            })
        };
        let rows = self.about(tables, &question).await?;
        self.read(rows.iter().map(closed).collect())
    }
}

const IRREMOVABLE: &str = "WITH asked AS (
       SELECT kind, schema, name, at FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]),
         pg_catalog.unnest($2::pg_catalog.text[]), pg_catalog.unnest($3::pg_catalog.text[]))
         WITH ORDINALITY AS asked (kind, schema, name, at)),
     found AS (
       SELECT asked.at, c.relowner AS owner, n.nspowner AS holder
         FROM asked JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) asked.schema
         JOIN pg_catalog.pg_class c ON c.relnamespace OPERATOR(pg_catalog.=) n.oid AND c.relname OPERATOR(pg_catalog.=) asked.name
        WHERE asked.kind OPERATOR(pg_catalog.=) ANY ('{TABLE,VIEW,MATERIALIZED VIEW,FOREIGN TABLE,SEQUENCE}')
       UNION ALL
       SELECT asked.at, p.proowner, n.nspowner
         FROM asked JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) asked.schema
         JOIN pg_catalog.pg_proc p ON p.pronamespace OPERATOR(pg_catalog.=) n.oid
        WHERE asked.kind OPERATOR(pg_catalog.=) ANY ('{FUNCTION,PROCEDURE,AGGREGATE}')
          AND (p.proname || '(' || pg_catalog.array_to_string(ARRAY(
                 SELECT pg_catalog.format_type(u.t, NULL) FROM pg_catalog.unnest(p.proargtypes) WITH ORDINALITY AS u (t, at)
                 ORDER BY u.at), ', ') || ')') OPERATOR(pg_catalog.=) asked.name
       UNION ALL
       SELECT asked.at, t.typowner, n.nspowner
         FROM asked JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) asked.schema
         JOIN pg_catalog.pg_type t ON t.typnamespace OPERATOR(pg_catalog.=) n.oid AND t.typname OPERATOR(pg_catalog.=) asked.name
        WHERE asked.kind OPERATOR(pg_catalog.=) ANY ('{TYPE,DOMAIN}')
       UNION ALL
       SELECT asked.at, n.nspowner, NULL FROM asked
         JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) asked.name
        WHERE asked.kind OPERATOR(pg_catalog.=) 'SCHEMA'
       UNION ALL
       SELECT asked.at, p.pubowner, NULL FROM asked
         JOIN pg_catalog.pg_publication p ON p.pubname OPERATOR(pg_catalog.=) asked.name
        WHERE asked.kind OPERATOR(pg_catalog.=) 'PUBLICATION'
       UNION ALL
       SELECT asked.at, s.srvowner, NULL FROM asked
         JOIN pg_catalog.pg_foreign_server s ON s.srvname OPERATOR(pg_catalog.=) asked.name
        WHERE asked.kind OPERATOR(pg_catalog.=) 'SERVER'
       UNION ALL
       SELECT asked.at, w.fdwowner, NULL FROM asked
         JOIN pg_catalog.pg_foreign_data_wrapper w ON w.fdwname OPERATOR(pg_catalog.=) asked.name
        WHERE asked.kind OPERATOR(pg_catalog.=) 'FOREIGN DATA WRAPPER'
       UNION ALL
       SELECT asked.at, e.evtowner, NULL FROM asked
         JOIN pg_catalog.pg_event_trigger e ON e.evtname OPERATOR(pg_catalog.=) asked.name
        WHERE asked.kind OPERATOR(pg_catalog.=) 'EVENT TRIGGER')
     SELECT at, pg_catalog.pg_get_userbyid(owner)::pg_catalog.text FROM found
      WHERE NOT pg_catalog.pg_has_role(owner, 'USAGE') AND (holder IS NULL OR NOT pg_catalog.pg_has_role(holder, 'USAGE'))
      ORDER BY at";
