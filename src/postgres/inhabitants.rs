//! The objects in schemas of the target.

use tokio_postgres::Row;

use super::Session;
use crate::error::Result;

/// An object that keeps its schema from being dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inhabitant {
    /// The schema that contains it.
    pub lodging: String,
    /// `relation`, `routine`, `type`, `extension` or `other`.
    pub class: String,
    /// Named as in an archive's table of contents. If another object or an extension owns it, these name the owner.
    pub schema: String,
    pub name: String,
    /// For messages.
    pub what: String,
}

impl Session {
    pub(crate) async fn inhabitants(&self, schemas: &[&str]) -> Result<Vec<Inhabitant>> {
        let failed = |error| self.error("cannot look into the schemas", &error);
        // The sequence of an identity column belongs to its table, and a range's functions and multirange belong to
        // the range. Partitions, and sequences that a table owns, can be separated from their table.
        let question = "WITH lodged AS (
               SELECT n.nspname::pg_catalog.text AS lodging, d.classid, d.objid
                 FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_depend d ON d.refobjid OPERATOR(pg_catalog.=) n.oid
                WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
                  AND d.deptype OPERATOR(pg_catalog.=) 'n' AND n.nspname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($1)),
             owned AS (
               SELECT l.lodging, coalesce(e.refclassid, o.refclassid, l.classid) AS classid,
                      coalesce(e.refobjid, o.refobjid, l.objid) AS objid
                 FROM lodged l
                 LEFT JOIN pg_catalog.pg_depend e ON e.classid OPERATOR(pg_catalog.=) l.classid
                  AND e.objid OPERATOR(pg_catalog.=) l.objid AND e.deptype OPERATOR(pg_catalog.=) 'e'
                 LEFT JOIN LATERAL (
                   SELECT x.refclassid, x.refobjid FROM pg_catalog.pg_depend x
                    WHERE x.classid OPERATOR(pg_catalog.=) l.classid AND x.objid OPERATOR(pg_catalog.=) l.objid
                      AND (x.deptype OPERATOR(pg_catalog.=) 'i'
                           OR (x.deptype OPERATOR(pg_catalog.=) 'a'
                               AND l.classid OPERATOR(pg_catalog.<>) 'pg_catalog.pg_class'::pg_catalog.regclass))
                    LIMIT 1) AS o ON true)
             SELECT DISTINCT w.lodging,
                    CASE WHEN c.oid IS NOT NULL THEN 'relation' WHEN p.oid IS NOT NULL THEN 'routine'
                         WHEN t.oid IS NOT NULL THEN 'type' WHEN x.oid IS NOT NULL THEN 'extension' ELSE 'other' END,
                    CASE WHEN x.oid IS NOT NULL THEN '' ELSE coalesce(i.schema_name, w.lodging) END,
                    coalesce(c.relname::pg_catalog.text,
                      p.proname || '(' || CASE WHEN p.prokind OPERATOR(pg_catalog.=) 'a' AND p.pronargs OPERATOR(pg_catalog.=) 0
                        THEN '*' ELSE pg_catalog.array_to_string(ARRAY(
                          SELECT pg_catalog.format_type(u.t, NULL) FROM pg_catalog.unnest(p.proargtypes) WITH ORDINALITY AS u (t, at)
                           ORDER BY u.at), ', ') END || ')',
                      t.typname::pg_catalog.text, x.extname::pg_catalog.text, r.oprname::pg_catalog.text,
                      k.opcname::pg_catalog.text, f.opfname::pg_catalog.text, l.collname::pg_catalog.text,
                      v.conname::pg_catalog.text, g.cfgname::pg_catalog.text, y.dictname::pg_catalog.text,
                      s.stxname::pg_catalog.text, i.object_name, ''),
                    pg_catalog.pg_describe_object(w.classid, w.objid, 0)
               FROM owned w
               JOIN LATERAL (SELECT a.schema AS schema_name, a.name AS object_name
                               FROM pg_catalog.pg_identify_object(w.classid, w.objid, 0) AS a) AS n ON true
               JOIN LATERAL (SELECT CASE WHEN n.schema_name IS NULL THEN NULL ELSE
                                      pg_catalog.replace(pg_catalog.btrim(n.schema_name, '\"'), '\"\"', '\"') END AS schema_name,
                                    n.object_name) AS i ON true
               LEFT JOIN pg_catalog.pg_class c ON w.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
                AND c.oid OPERATOR(pg_catalog.=) w.objid
               LEFT JOIN pg_catalog.pg_proc p ON w.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
                AND p.oid OPERATOR(pg_catalog.=) w.objid
               LEFT JOIN pg_catalog.pg_type t ON w.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
                AND t.oid OPERATOR(pg_catalog.=) w.objid
               LEFT JOIN pg_catalog.pg_extension x ON w.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
                AND x.oid OPERATOR(pg_catalog.=) w.objid
               LEFT JOIN pg_catalog.pg_operator r ON w.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_operator'::pg_catalog.regclass
                AND r.oid OPERATOR(pg_catalog.=) w.objid
               LEFT JOIN pg_catalog.pg_opclass k ON w.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_opclass'::pg_catalog.regclass
                AND k.oid OPERATOR(pg_catalog.=) w.objid
               LEFT JOIN pg_catalog.pg_opfamily f ON w.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_opfamily'::pg_catalog.regclass
                AND f.oid OPERATOR(pg_catalog.=) w.objid
               LEFT JOIN pg_catalog.pg_collation l ON w.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_collation'::pg_catalog.regclass
                AND l.oid OPERATOR(pg_catalog.=) w.objid
               LEFT JOIN pg_catalog.pg_conversion v ON w.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_conversion'::pg_catalog.regclass
                AND v.oid OPERATOR(pg_catalog.=) w.objid
               LEFT JOIN pg_catalog.pg_ts_config g ON w.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_ts_config'::pg_catalog.regclass
                AND g.oid OPERATOR(pg_catalog.=) w.objid
               LEFT JOIN pg_catalog.pg_ts_dict y ON w.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_ts_dict'::pg_catalog.regclass
                AND y.oid OPERATOR(pg_catalog.=) w.objid
               LEFT JOIN pg_catalog.pg_statistic_ext s
                 ON w.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass
                AND s.oid OPERATOR(pg_catalog.=) w.objid
              WHERE coalesce(t.typtype OPERATOR(pg_catalog.<>) 'm', true)
              ORDER BY 1, 5";
        let rows = self.client.query(question, &[&schemas]).await.map_err(failed)?;
        let one = |row: &Row| {
            Ok(Inhabitant {
                lodging: row.try_get(0)?,
                class: row.try_get(1)?,
                schema: row.try_get(2)?,
                name: row.try_get(3)?,
                what: row.try_get(4)?,
            })
        };
        let read: std::result::Result<Vec<Inhabitant>, tokio_postgres::Error> = rows.iter().map(one).collect();
        read.map_err(failed)
    }
}
