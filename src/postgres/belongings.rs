//! What belongs to tables, schemas and publications of the target, and goes with them when they are replaced.

use tokio_postgres::Row;

use super::Session;
use super::surroundings::Around;
use super::tables::{CHOSEN, Names};
use crate::error::Result;

/// Something that belongs to one of them, named as an archive's table of contents would name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Belonging {
    pub kind: String,
    pub schema: String,
    pub tag: String,
    /// For a grant, its grantee; for default privileges, the role whose new objects they apply to.
    pub role: Option<String>,
    /// For messages.
    pub what: String,
    /// The statement that makes it again, if one can be given.
    pub statement: Option<String>,
}

impl Session {
    /// The indexes, constraints with an index, statistics, triggers, rules, grants, comments and security labels of
    /// these tables, and whether their policies are enforced. It leaves out what partitions inherit from their roots.
    pub(crate) async fn belongings(&self, tables: &Names) -> Result<Vec<Belonging>> {
        let own = if self.server.major < 13 {
            ""
        } else {
            "AND g.tgparentid = 0"
        };
        let question = format!(
            "WITH chosen AS ({CHOSEN}), named AS (
               SELECT c.oid, n.nspname::pg_catalog.text AS schema, c.relname::pg_catalog.text AS name, c.relowner, c.relacl,
                      c.relkind, c.relrowsecurity, pg_catalog.format('%I.%I', n.nspname, c.relname) AS whole,
                      CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE'
                        WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS word
                 FROM chosen JOIN pg_catalog.pg_class c ON c.oid = chosen.oid
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace),
             granted AS (
               SELECT t.schema, CASE t.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || t.name AS tag, t.relowner,
                      t.whole, t.whole AS relation, t.relkind, '' AS part, x.grantee, x.privilege_type
                 FROM named t, pg_catalog.aclexplode(t.relacl) x
               UNION ALL
               SELECT t.schema, 'COLUMN ' || t.name || '.' || a.attname, t.relowner,
                      t.whole || '.' || pg_catalog.quote_ident(a.attname), t.whole, t.relkind,
                      ' (' || pg_catalog.quote_ident(a.attname) || ')', x.grantee, x.privilege_type
                 FROM named t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid, pg_catalog.aclexplode(a.attacl) x),
             held AS (
               SELECT g.schema, g.tag, g.whole, g.relation, g.relkind, g.grantee,
                      CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(g.grantee)::pg_catalog.text END AS role,
                      pg_catalog.string_agg(DISTINCT g.privilege_type || g.part, ', ') AS privileges
                 FROM granted g WHERE g.grantee <> g.relowner GROUP BY 1, 2, 3, 4, 5, 6)
             SELECT 'INDEX', n.nspname::pg_catalog.text, c.relname::pg_catalog.text, NULL::pg_catalog.text,
                    'the index ' || pg_catalog.format('%I.%I', n.nspname, c.relname) || ' of ' || t.whole,
                    pg_catalog.pg_get_indexdef(c.oid)
               FROM named t JOIN pg_catalog.pg_index i ON i.indrelid = t.oid JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE NOT c.relispartition AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k
                      WHERE k.conindid = c.oid AND k.conrelid = t.oid AND k.contype IN ('p', 'u', 'x'))
             UNION ALL
             SELECT 'CONSTRAINT', t.schema, t.name || ' ' || k.conname, NULL, 'the constraint ' || k.conname || ' of ' || t.whole,
                    'ALTER TABLE ' || t.whole || ' ADD CONSTRAINT ' || pg_catalog.quote_ident(k.conname) || ' '
                      || pg_catalog.pg_get_constraintdef(k.oid)
               FROM named t JOIN pg_catalog.pg_constraint k ON k.conrelid = t.oid
              WHERE k.conparentid = 0
                AND (k.contype IN ('p', 'u', 'x') OR (k.contype = 'n' AND k.conislocal AND NOT k.convalidated))
             UNION ALL
             SELECT 'STATISTICS', n.nspname, s.stxname, NULL, 'the statistics ' || s.stxname || ' of ' || t.whole,
                    pg_catalog.pg_get_statisticsobjdef(s.oid)
               FROM named t JOIN pg_catalog.pg_statistic_ext s ON s.stxrelid = t.oid
               JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
             UNION ALL
             SELECT 'TRIGGER', t.schema, t.name || ' ' || g.tgname, NULL, 'the trigger ' || g.tgname || ' on ' || t.whole,
                    pg_catalog.pg_get_triggerdef(g.oid)
               FROM named t JOIN pg_catalog.pg_trigger g ON g.tgrelid = t.oid WHERE NOT g.tgisinternal {own}
             UNION ALL
             SELECT 'RULE', t.schema, t.name || ' ' || r.rulename, NULL, 'the rule ' || r.rulename || ' on ' || t.whole, NULL
               FROM named t JOIN pg_catalog.pg_rewrite r ON r.ev_class = t.oid WHERE r.rulename <> '_RETURN'
             UNION ALL
             SELECT 'ROW SECURITY', t.schema, t.name, NULL, 'the row security of ' || t.whole,
                    'ALTER TABLE ' || t.whole || ' ENABLE ROW LEVEL SECURITY'
               FROM named t WHERE t.relrowsecurity
             UNION ALL
             SELECT 'COMMENT', t.schema, t.word || ' ' || t.name, NULL, 'the comment on ' || t.whole,
                    'COMMENT ON ' || t.word || ' ' || t.whole || ' IS ' || pg_catalog.quote_literal(d.description)
               FROM named t JOIN pg_catalog.pg_description d ON d.objoid = t.oid AND d.objsubid = 0
                AND d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass
             UNION ALL
             SELECT 'COMMENT', t.schema, 'COLUMN ' || t.name || '.' || a.attname, NULL,
                    'the comment on ' || t.whole || '.' || pg_catalog.quote_ident(a.attname),
                    'COMMENT ON COLUMN ' || t.whole || '.' || pg_catalog.quote_ident(a.attname) || ' IS '
                      || pg_catalog.quote_literal(d.description)
               FROM named t JOIN pg_catalog.pg_description d ON d.objoid = t.oid
                AND d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass
               JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.objsubid
              WHERE a.attnum > 0 AND NOT a.attisdropped
             UNION ALL
             SELECT DISTINCT 'SECURITY LABEL', t.schema, t.word || ' ' || t.name, NULL, 'the security labels of ' || t.whole, NULL
               FROM named t JOIN pg_catalog.pg_seclabel l ON l.objoid = t.oid
                AND l.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass
             UNION ALL
             SELECT 'ACL', h.schema, h.tag, h.role, 'grants on ' || h.whole || ' to ' || h.role,
                    'GRANT ' || h.privileges || ' ON ' || CASE h.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE '' END || h.relation
                      || ' TO ' || CASE h.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(h.role) END
               FROM held h
             ORDER BY 5"
        );
        let rows = self.about(tables, &question).await?;
        self.read(rows.iter().map(belonging).collect())
    }

    /// What goes with the schemas and publications of these names and does not belong to these tables: what can be
    /// made again, and default privileges.
    pub(crate) async fn around_others(
        &self,
        schemas: &[String],
        publications: &[String],
        tables: &Names,
    ) -> Result<(Vec<Around>, Vec<Belonging>)> {
        let failed = |error| self.error("cannot look at schemas and publications", &error);
        let whole = if self.server.major < 15 {
            "SELECT NULL::pg_catalog.text, NULL::pg_catalog.text, NULL::pg_catalog.text WHERE $1::pg_catalog.text[] IS NULL"
        } else {
            "SELECT 'the schema ' || n.nspname || ' in the publication ' || p.pubname,
                    pg_catalog.format('ALTER PUBLICATION %I ADD TABLES IN SCHEMA %I', p.pubname, n.nspname),
                    CASE WHEN NOT u.rolsuper THEN 'its owner' END
               FROM pg_catalog.pg_publication_namespace m JOIN pg_catalog.pg_publication p ON p.oid = m.pnpubid
               JOIN pg_catalog.pg_namespace n ON n.oid = m.pnnspid
               JOIN pg_catalog.pg_roles u ON u.rolname = current_user
              WHERE n.nspname::pg_catalog.text = ANY ($1) OR p.pubname::pg_catalog.text = ANY ($2)"
        };
        let parts = if self.server.major < 15 {
            ""
        } else {
            "|| coalesce(' (' || (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum)
                                    FROM pg_catalog.pg_attribute a
                                   WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs)) || ')', '')
             || coalesce(' WHERE (' || pg_catalog.pg_get_expr(r.prqual, r.prrelid) || ')', '')"
        };
        let (of_schemas, of_names): (Vec<&str>, Vec<&str>) = tables
            .iter()
            .map(|(schema, name)| (schema.as_str(), name.as_str()))
            .unzip();
        let question = format!(
            "WITH chosen AS (SELECT c.oid FROM ROWS FROM (pg_catalog.unnest($3::pg_catalog.text[]),
                 pg_catalog.unnest($4::pg_catalog.text[])) AS asked (schema, name)
               JOIN pg_catalog.pg_namespace n ON n.nspname = asked.schema
               JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = asked.name)
             {whole}
             UNION ALL
             SELECT 'membership of ' || pg_catalog.format('%I.%I', n.nspname, c.relname) || ' in the publication ' || p.pubname,
                    pg_catalog.format('ALTER PUBLICATION %I ADD TABLE ONLY %I.%I', p.pubname, n.nspname, c.relname) {parts},
                    CASE WHEN NOT pg_catalog.pg_has_role(c.relowner, 'USAGE') THEN pg_catalog.pg_get_userbyid(c.relowner)::pg_catalog.text END
               FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
               JOIN pg_catalog.pg_class c ON c.oid = r.prrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE p.pubname::pg_catalog.text = ANY ($2) AND r.prrelid NOT IN (SELECT oid FROM chosen)
             ORDER BY 1"
        );
        let rows = self
            .client
            .query(&question, &[&schemas, &publications, &of_schemas, &of_names])
            .await;
        let around = |row: &Row| {
            Ok(Around {
                what: row.try_get(0)?,
                loosen: None,
                tie: row.try_get(1)?,
                policy: None,
                joined: None,
                tied_by: row.try_get(2)?,
            })
        };
        let around = rows
            .map_err(failed)?
            .iter()
            .map(around)
            .collect::<std::result::Result<_, _>>();
        let question = "SELECT 'DEFAULT ACL', n.nspname::pg_catalog.text, 'DEFAULT PRIVILEGES FOR ' || kind.name, o.rolname::pg_catalog.text,
                'default privileges of ' || o.rolname || ' for ' || pg_catalog.lower(kind.name) || ' in the schema ' || n.nspname,
                NULL::pg_catalog.text
              FROM pg_catalog.pg_default_acl d JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace
              JOIN pg_catalog.pg_roles o ON o.oid = d.defaclrole
              JOIN (VALUES ('r', 'TABLES'), ('S', 'SEQUENCES'), ('f', 'FUNCTIONS'), ('T', 'TYPES')) AS kind (letter, name)
                ON kind.letter = d.defaclobjtype::pg_catalog.text
             WHERE n.nspname::pg_catalog.text = ANY ($1) ORDER BY 5";
        let rows = self.client.query(question, &[&schemas]).await.map_err(failed)?;
        let defaults = rows.iter().map(belonging).collect::<std::result::Result<_, _>>();
        Ok((around.map_err(failed)?, defaults.map_err(failed)?))
    }
}

fn belonging(row: &Row) -> std::result::Result<Belonging, tokio_postgres::Error> {
    Ok(Belonging {
        kind: row.try_get(0)?,
        schema: row.try_get(1)?,
        tag: row.try_get(2)?,
        role: row.try_get(3)?,
        what: row.try_get(4)?,
        statement: row.try_get(5)?,
    })
}
