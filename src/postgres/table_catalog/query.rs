//! The one query that reads the catalog. It asks catalogs alone, and no function that locks a table, except for the
//! tables' sizes.

use std::collections::BTreeMap;

use super::super::Session;
use super::{CatalogTable, OLDEST_STREAMED, TableCatalog};
use crate::error::{Code, Error, Result};

impl Session {
    /// As the session sees it now, or as the exported snapshot does.
    ///
    /// `VERSION` for a server older than [`OLDEST_STREAMED`].
    pub async fn table_catalog(&self) -> Result<TableCatalog> {
        let failed = |error| self.error("cannot read the list of tables", &error);
        if self.server.major < OLDEST_STREAMED {
            let text = format!(
                "the server is PostgreSQL {}; increments need {OLDEST_STREAMED} or newer",
                self.server.version
            );
            return Err(Error::new(Code::Version, text).hint("upgrade the server, or make full backups only"));
        }
        let set = |limit: &'static str| self.client.batch_execute(limit);
        // A size takes a lock for a moment, and another session may be rewriting the table. Compiling this query would
        // take longer than the query.
        set("SET jit = off; SET lock_timeout = '200ms'").await.map_err(failed)?;
        let exact = self.attempt(&question(self.server.major, Sizes::Exact)).await;
        set("SET lock_timeout = 0").await.map_err(failed)?;
        let row = match exact {
            Ok(row) => row,
            Err(error) if error.is_closed() => return Err(failed(error)),
            Err(_) => {
                let estimated = question(self.server.major, Sizes::Estimated);
                self.attempt(&estimated).await.map_err(failed)?
            }
        };
        let documents: Vec<Vec<u8>> = row.map_or(Ok(Vec::new()), |row| row.try_get(0)).map_err(failed)?;
        let tables = documents.iter().map(|document| read(document)).collect::<Result<_>>()?;
        Ok(TableCatalog {
            major: self.server.major,
            tables,
        })
    }
}

impl Session {
    /// The sizes of these tables, with out-of-line values and without indexes. None of them is known if another session
    /// has locked one.
    pub async fn sizes_of(&self, oids: &[u32]) -> Result<BTreeMap<u32, u64>> {
        let failed = |error| self.error("cannot read the sizes of tables", &error);
        let set = |limit: &'static str| self.client.batch_execute(limit);
        set("SET lock_timeout = '200ms'").await.map_err(failed)?;
        let question = "SELECT one.oid, pg_catalog.pg_table_size(one.oid) FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS one (oid)";
        let measured = self.client.query(question, &[&oids]).await;
        set("SET lock_timeout = 0").await.map_err(failed)?;
        let rows = match measured {
            Ok(rows) => rows,
            Err(error) if error.is_closed() => return Err(failed(error)),
            Err(_) => return Ok(BTreeMap::new()),
        };
        let mut sizes = BTreeMap::new();
        for row in rows {
            let bytes: Option<i64> = row.try_get(1).map_err(failed)?;
            if let Some(bytes) = bytes.and_then(|bytes| u64::try_from(bytes).ok()) {
                sizes.insert(row.try_get(0).map_err(failed)?, bytes);
            }
        }
        Ok(sizes)
    }
}

/// In a database without an encoding (`SQL_ASCII`) a name may be no UTF-8. It is then shown with replacement
/// characters, and the server does not find it under this name.
fn read(document: &[u8]) -> Result<CatalogTable> {
    let text = String::from_utf8_lossy(document);
    serde_json::from_str(&text)
        .map_err(|error| Error::internal("the server's description of a table is not understood").source(error))
}

/// How the tables' sizes are found.
#[derive(Debug, Clone, Copy)]
enum Sizes {
    Exact,
    /// By the planner's statistics, without locks.
    Estimated,
}

/// Gives one row with a list of JSON documents in UTF-8, one for each table.
fn question(major: u32, sizes: Sizes) -> String {
    let pages = "(c.relpages + coalesce(h.relpages, 0))::pg_catalog.int8
                 * pg_catalog.current_setting('block_size')::pg_catalog.int8";
    let bytes = match sizes {
        // It is NULL for a table that was dropped meanwhile.
        // Asking for it costs more than all else, so only those tables are measured whose size decides something.
        Sizes::Exact => format!(
            "CASE WHEN i.indexrelid IS NULL AND c.relreplident <> 'f'
                  THEN coalesce(pg_catalog.pg_table_size(c.oid), {pages}) ELSE {pages} END"
        ),
        Sizes::Estimated => pages.to_owned(),
    };
    let multirange = if major >= 14 { "OR r.rngmultitypid = t.oid" } else { "" };
    let own = "16384";
    format!(
        "WITH RECURSIVE parts AS (
           SELECT DISTINCT a.atttypid AS root, a.atttypid AS oid FROM pg_catalog.pg_attribute a
           JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
           WHERE a.attnum > 0 AND NOT a.attisdropped AND a.atttypid >= {own}
           UNION
           SELECT p.root, inner_type.oid FROM parts p JOIN pg_catalog.pg_type t ON t.oid = p.oid
           CROSS JOIN LATERAL (
             SELECT t.typelem UNION ALL SELECT t.typbasetype
             UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid {multirange}
             UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
               WHERE t.typrelid <> 0 AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
           ) AS inner_type (oid) WHERE inner_type.oid >= {own}
         ), forms AS (
           SELECT p.root, pg_catalog.string_agg(pg_catalog.concat_ws(' ', t.oid, t.typelem, t.typbasetype, t.typtypmod,
               (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.attnum, a.atttypid, a.atttypmod), ' ' ORDER BY a.attnum)
                FROM pg_catalog.pg_attribute a
                WHERE t.typrelid <> 0 AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)), ',' ORDER BY t.oid) AS form
           FROM parts p JOIN pg_catalog.pg_type t ON t.oid = p.oid GROUP BY p.root
         ), used AS (
           SELECT a.attrelid, pg_catalog.md5(pg_catalog.string_agg(f.form, ';' ORDER BY a.attnum)) AS types
           FROM pg_catalog.pg_attribute a JOIN forms f ON f.root = a.atttypid
           WHERE a.attnum > 0 AND NOT a.attisdropped GROUP BY a.attrelid
         ), labels AS (
           SELECT named.attrelid,
             pg_catalog.json_agg(pg_catalog.json_build_object('oid', named.oid::pg_catalog.int8, 'label', named.enumlabel) ORDER BY named.oid) AS labels
           FROM (SELECT DISTINCT a.attrelid, e.oid, e.enumlabel FROM pg_catalog.pg_enum e JOIN parts p ON p.oid = e.enumtypid
                 JOIN pg_catalog.pg_attribute a ON a.atttypid = p.root AND a.attnum > 0 AND NOT a.attisdropped) AS named
           GROUP BY named.attrelid
         ), columns AS (
           SELECT a.attrelid, pg_catalog.json_agg(pg_catalog.json_build_object('number', a.attnum, 'name', a.attname,
               'type', pg_catalog.format_type(a.atttypid, a.atttypmod), 'type_oid', a.atttypid::pg_catalog.int8, 'modifier', a.atttypmod,
               'generated', CASE a.attgenerated WHEN 's' THEN 'stored' WHEN 'v' THEN 'virtual' END,
               'identity', CASE a.attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'default' END) ORDER BY a.attnum)
               FILTER (WHERE NOT a.attisdropped) AS columns,
             pg_catalog.hashtextextended(pg_catalog.string_agg(a.xmin::pg_catalog.text, ' ' ORDER BY a.attnum), 0) AS changed_by
           FROM pg_catalog.pg_attribute a
           JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND {OF_USERS}
           WHERE a.attnum > 0 GROUP BY a.attrelid
         )
         SELECT coalesce(pg_catalog.array_agg(pg_catalog.convert_to(described.one, described.encoding) ORDER BY described.oid), '{{}}')
         FROM (SELECT c.oid,
           CASE pg_catalog.getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END AS encoding,
           pg_catalog.json_build_object('oid', c.oid::pg_catalog.int8, 'schema', n.nspname, 'name', c.relname,
             'kind', CASE c.relkind WHEN 'p' THEN 'partitioned' ELSE 'ordinary' END,
             'is_unlogged', c.relpersistence = 'u',
             'parent', above.inhparent::pg_catalog.int8,
             'identity', CASE c.relreplident WHEN 'd' THEN 'default' WHEN 'i' THEN 'index' WHEN 'f' THEN 'full' ELSE 'nothing' END,
             'identity_index', i.indexrelid::pg_catalog.int8,
             'key', coalesce((SELECT pg_catalog.json_agg(a.attname ORDER BY k.place)
               FROM pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY AS k (attnum, place)
               JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
               WHERE k.place <= i.indnkeyatts), '[]'),
             'primary_key', (SELECT CASE WHEN k.indimmediate THEN 'immediate' ELSE 'deferrable' END FROM pg_catalog.pg_index k
               WHERE k.indrelid = c.oid AND k.indisprimary AND k.indisvalid LIMIT 1),
             'columns', coalesce(columns.columns, '[]'), 'types', used.types, 'labels', coalesce(labels.labels, '[]'),
             'filenode', c.relfilenode::pg_catalog.int8, 'bytes', CASE c.relkind WHEN 'p' THEN 0 ELSE {bytes} END,
             'owner', pg_catalog.pg_get_userbyid(c.relowner), 'is_ours', pg_catalog.pg_has_role(c.relowner, 'USAGE'),
             'extension', (SELECT CASE WHEN c.oid = ANY (e.extconfig) THEN 'configuration' ELSE 'member' END
               FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
               WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.objsubid = 0
                 AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e' LIMIT 1),
             'traces', pg_catalog.json_build_object('made_by', made.xmin::pg_catalog.text::pg_catalog.int8, 'attached_by', above.xmin::pg_catalog.text::pg_catalog.int8,
               'changed_by', c.xmin::pg_catalog.text::pg_catalog.int8, 'toast', c.reltoastrelid::pg_catalog.int8,
               'columns_changed_by', columns.changed_by)
           )::pg_catalog.text AS one
           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND {OF_USERS}
           LEFT JOIN pg_catalog.pg_class h ON h.oid = c.reltoastrelid
           LEFT JOIN pg_catalog.pg_inherits above ON above.inhrelid = c.oid AND c.relispartition
           LEFT JOIN pg_catalog.pg_type made ON made.oid = c.reltype
           LEFT JOIN columns ON columns.attrelid = c.oid
           LEFT JOIN used ON used.attrelid = c.oid
           LEFT JOIN labels ON labels.attrelid = c.oid
           LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indislive AND i.indisvalid AND i.indisunique
             AND i.indimmediate AND i.indpred IS NULL
             AND CASE WHEN c.relkind = 'p' OR c.relreplident = 'd' THEN i.indisprimary
                      WHEN c.relreplident = 'i' THEN i.indisreplident ELSE false END
           WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't') AS described"
    )
}

/// The schemas that are not PostgreSQL's own.
const OF_USERS: &str = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";
