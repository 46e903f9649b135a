//! What else objects of the target lose when they are replaced: comments on objects that are not tables, states of
//! triggers, options of publications, owners.

use tokio_postgres::Row;

use super::Session;
use super::tables::{CHOSEN, Names};
use crate::error::Result;

/// A property of an object of the target that the archive may restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Feature {
    /// The object's entry, as an archive's table of contents names it.
    pub kind: String,
    pub schema: String,
    pub tag: String,
    /// Kind and tag of the separate entry that restores it.
    pub entry: Option<(String, String)>,
    /// The words in the object's definition if that restores it.
    pub words: Option<String>,
    /// For an owner, the role.
    pub owner: Option<String>,
    /// For messages.
    pub what: String,
    pub statement: String,
}

impl Session {
    /// Of these tables and of the objects on them.
    pub(crate) async fn features_of_tables(&self, tables: &Names) -> Result<Vec<Feature>> {
        let rows = self.about(tables, &of_tables()).await?;
        self.read(rows.iter().map(feature).collect())
    }

    /// Inheritance children outside of these tables, each with its parent among them and the columns that it has only
    /// from parents.
    pub(crate) async fn inherited_columns(&self, tables: &Names) -> Result<Vec<(String, String, String)>> {
        let question = format!(
            "WITH chosen AS ({CHOSEN})
             SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.format('%I.%I', pn.nspname, p.relname),
                    pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum)
               FROM pg_catalog.pg_inherits i
               JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid
               JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
               JOIN pg_catalog.pg_class p ON p.oid OPERATOR(pg_catalog.=) i.inhparent
               JOIN pg_catalog.pg_namespace pn ON pn.oid OPERATOR(pg_catalog.=) p.relnamespace
               JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) c.oid
                AND a.attinhcount OPERATOR(pg_catalog.=) 1 AND NOT a.attislocal AND NOT a.attisdropped
               JOIN pg_catalog.pg_attribute o ON o.attrelid OPERATOR(pg_catalog.=) p.oid
                AND o.attname OPERATOR(pg_catalog.=) a.attname AND NOT o.attisdropped
              WHERE NOT c.relispartition AND c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'f']::pg_catalog.\"char\"[])
                AND p.oid IN (SELECT oid FROM chosen) AND c.oid NOT IN (SELECT oid FROM chosen)
              GROUP BY 1, 2 ORDER BY 1, 2"
        );
        let rows = self.about(tables, &question).await?;
        let one = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        self.read(rows.iter().map(one).collect())
    }

    /// Of objects that are not tables: event triggers, publications, extensions, domains, and these large objects.
    pub(crate) async fn features_of_others(&self, large_objects: &[u32]) -> Result<Vec<Feature>> {
        let failed = |error| self.error("cannot look at comments and owners", &error);
        let rows = self.client.query(OF_OTHERS, &[&large_objects]).await.map_err(failed)?;
        let read: std::result::Result<Vec<Feature>, tokio_postgres::Error> = rows.iter().map(feature).collect();
        read.map_err(failed)
    }
}

fn feature(row: &Row) -> std::result::Result<Feature, tokio_postgres::Error> {
    let entry: Option<String> = row.try_get(3)?;
    Ok(Feature {
        kind: row.try_get(0)?,
        schema: row.try_get(1)?,
        tag: row.try_get(2)?,
        entry: entry.zip(row.try_get(4)?),
        words: row.try_get(5)?,
        owner: row.try_get(6)?,
        what: row.try_get(7)?,
        statement: row.try_get(8)?,
    })
}

/// Kind, schema, tag; kind and tag of the entry; words; owner; what; statement.
fn of_tables() -> String {
    format!(
        "WITH chosen AS ({CHOSEN}), named AS (
           SELECT c.oid, n.nspname::pg_catalog.text AS schema, c.relname::pg_catalog.text AS name, c.relkind, c.relpersistence,
                  pg_catalog.format('%I.%I', n.nspname, c.relname) AS whole,
                  CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE'
                    WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind
             FROM chosen JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) chosen.oid
             JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace),
         part AS (
           SELECT t.kind, t.schema, t.name, t.whole, 'INDEX ' || c.relname AS tag,
                  'INDEX ' || pg_catalog.format('%I.%I', n.nspname, c.relname) AS path,
                  pg_catalog.obj_description(c.oid, 'pg_class') AS comment
             FROM named t JOIN pg_catalog.pg_index i ON i.indrelid OPERATOR(pg_catalog.=) t.oid
             JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
             JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
           UNION ALL
           SELECT t.kind, t.schema, t.name, t.whole, 'CONSTRAINT ' || k.conname || ' ON ' || t.name,
                  'CONSTRAINT ' || pg_catalog.quote_ident(k.conname) || ' ON ' || t.whole,
                  pg_catalog.obj_description(k.oid, 'pg_constraint')
             FROM named t JOIN pg_catalog.pg_constraint k ON k.conrelid OPERATOR(pg_catalog.=) t.oid
            WHERE k.contype OPERATOR(pg_catalog.<>) 'f' OR k.conparentid OPERATOR(pg_catalog.=) 0
           UNION ALL
           SELECT t.kind, t.schema, t.name, t.whole, 'TRIGGER ' || g.tgname || ' ON ' || t.name,
                  'TRIGGER ' || pg_catalog.quote_ident(g.tgname) || ' ON ' || t.whole,
                  pg_catalog.obj_description(g.oid, 'pg_trigger')
             FROM named t JOIN pg_catalog.pg_trigger g ON g.tgrelid OPERATOR(pg_catalog.=) t.oid
           UNION ALL
           SELECT t.kind, t.schema, t.name, t.whole, 'RULE ' || r.rulename || ' ON ' || t.name,
                  'RULE ' || pg_catalog.quote_ident(r.rulename) || ' ON ' || t.whole,
                  pg_catalog.obj_description(r.oid, 'pg_rewrite')
             FROM named t JOIN pg_catalog.pg_rewrite r ON r.ev_class OPERATOR(pg_catalog.=) t.oid
           UNION ALL
           SELECT t.kind, t.schema, t.name, t.whole, 'POLICY ' || o.polname || ' ON ' || t.name,
                  'POLICY ' || pg_catalog.quote_ident(o.polname) || ' ON ' || t.whole,
                  pg_catalog.obj_description(o.oid, 'pg_policy')
             FROM named t JOIN pg_catalog.pg_policy o ON o.polrelid OPERATOR(pg_catalog.=) t.oid
           UNION ALL
           SELECT t.kind, t.schema, t.name, t.whole, 'STATISTICS ' || s.stxname,
                  'STATISTICS ' || pg_catalog.format('%I.%I', n.nspname, s.stxname),
                  pg_catalog.obj_description(s.oid, 'pg_statistic_ext')
             FROM named t JOIN pg_catalog.pg_statistic_ext s ON s.stxrelid OPERATOR(pg_catalog.=) t.oid
             JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) s.stxnamespace)
         SELECT p.kind, p.schema, p.name, 'COMMENT', p.tag, NULL::pg_catalog.text, NULL::pg_catalog.text,
                'the comment on ' || p.path, 'COMMENT ON ' || p.path || ' IS ' || pg_catalog.quote_literal(p.comment)
           FROM part p WHERE p.comment IS NOT NULL
         UNION ALL
         SELECT 'TRIGGER', t.schema, t.name || ' ' || g.tgname, NULL, NULL, x.state || ' TRIGGER ' || pg_catalog.quote_ident(g.tgname),
                NULL, 'the state of the trigger ' || g.tgname || ' on ' || t.whole,
                'ALTER TABLE ' || t.whole || ' ' || x.state || ' TRIGGER ' || pg_catalog.quote_ident(g.tgname)
           FROM named t JOIN pg_catalog.pg_trigger g ON g.tgrelid OPERATOR(pg_catalog.=) t.oid
           JOIN (VALUES ('D', 'DISABLE'), ('A', 'ENABLE ALWAYS'), ('R', 'ENABLE REPLICA')) AS x (letter, state)
             ON x.letter OPERATOR(pg_catalog.=) g.tgenabled::pg_catalog.text
          WHERE NOT g.tgisinternal
         UNION ALL
         SELECT DISTINCT t.kind, t.schema, t.name, NULL, NULL, NULL, NULL,
                'that the triggers of the foreign key ' || k.conname || ' on ' || t.whole || ' are disabled',
                'ALTER TABLE ' || t.whole || ' DISABLE TRIGGER ALL'
           FROM named t JOIN pg_catalog.pg_trigger g ON g.tgrelid OPERATOR(pg_catalog.=) t.oid
           JOIN pg_catalog.pg_constraint k ON k.oid OPERATOR(pg_catalog.=) g.tgconstraint
          WHERE g.tgisinternal AND k.contype OPERATOR(pg_catalog.=) 'f' AND g.tgenabled OPERATOR(pg_catalog.=) 'D'
         UNION ALL
         SELECT t.kind, t.schema, t.name, NULL, NULL, 'UNLOGGED ' || t.kind || ' ', NULL, 'that ' || t.whole || ' is unlogged',
                'ALTER ' || t.kind || ' ' || t.whole || ' SET UNLOGGED'
           FROM named t WHERE t.relpersistence OPERATOR(pg_catalog.=) 'u'
         UNION ALL
         SELECT t.kind, t.schema, t.name, 'DEFAULT', t.name || ' ' || a.attname,
                pg_catalog.quote_ident(a.attname) || CASE
                    -- A typed table's columns have the types of that type.
                    WHEN EXISTS (SELECT FROM pg_catalog.pg_class c
                                  WHERE c.oid OPERATOR(pg_catalog.=) t.oid AND c.reloftype OPERATOR(pg_catalog.<>) 0) THEN ''
                    ELSE ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod) END
                  || ' DEFAULT ',
                NULL, 'the default of ' || t.whole || '.' || pg_catalog.quote_ident(a.attname),
                'ALTER ' || t.kind || ' ' || t.whole || ' ALTER COLUMN ' || pg_catalog.quote_ident(a.attname) || ' SET DEFAULT '
                  || pg_catalog.pg_get_expr(d.adbin, d.adrelid)
           FROM named t JOIN pg_catalog.pg_attrdef d ON d.adrelid OPERATOR(pg_catalog.=) t.oid
           JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) t.oid AND a.attnum OPERATOR(pg_catalog.=) d.adnum
          WHERE a.attgenerated OPERATOR(pg_catalog.=) '' AND a.attislocal
         ORDER BY 8"
    )
}

const OF_OTHERS: &str = "WITH thing AS (
       SELECT 'EVENT TRIGGER'::pg_catalog.text AS kind, ''::pg_catalog.text AS schema, e.evtname::pg_catalog.text AS name,
              'EVENT TRIGGER ' || pg_catalog.quote_ident(e.evtname) AS path, e.evtowner AS owner,
              pg_catalog.obj_description(e.oid, 'pg_event_trigger') AS comment
         FROM pg_catalog.pg_event_trigger e
       UNION ALL
       SELECT 'PUBLICATION', '', p.pubname::pg_catalog.text, 'PUBLICATION ' || pg_catalog.quote_ident(p.pubname), p.pubowner,
              pg_catalog.obj_description(p.oid, 'pg_publication')
         FROM pg_catalog.pg_publication p
       UNION ALL
       SELECT 'EXTENSION', '', x.extname::pg_catalog.text, 'EXTENSION ' || pg_catalog.quote_ident(x.extname), 0,
              NULLIF(pg_catalog.obj_description(x.oid, 'pg_extension'), a.comment)
         FROM pg_catalog.pg_extension x
         LEFT JOIN pg_catalog.pg_available_extensions a ON a.name OPERATOR(pg_catalog.=) x.extname
       UNION ALL
       SELECT 'COLLATION', n.nspname::pg_catalog.text, c.collname::pg_catalog.text,
              'COLLATION ' || pg_catalog.format('%I.%I', n.nspname, c.collname), c.collowner,
              pg_catalog.obj_description(c.oid, 'pg_collation')
         FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.collnamespace
        WHERE c.oid OPERATOR(pg_catalog.>=) 16384
       UNION ALL
       SELECT 'TEXT SEARCH CONFIGURATION', n.nspname::pg_catalog.text, c.cfgname::pg_catalog.text,
              'TEXT SEARCH CONFIGURATION ' || pg_catalog.format('%I.%I', n.nspname, c.cfgname), c.cfgowner,
              pg_catalog.obj_description(c.oid, 'pg_ts_config')
         FROM pg_catalog.pg_ts_config c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.cfgnamespace
        WHERE c.oid OPERATOR(pg_catalog.>=) 16384
       UNION ALL
       SELECT 'TEXT SEARCH DICTIONARY', n.nspname::pg_catalog.text, c.dictname::pg_catalog.text,
              'TEXT SEARCH DICTIONARY ' || pg_catalog.format('%I.%I', n.nspname, c.dictname), c.dictowner,
              pg_catalog.obj_description(c.oid, 'pg_ts_dict')
         FROM pg_catalog.pg_ts_dict c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.dictnamespace
        WHERE c.oid OPERATOR(pg_catalog.>=) 16384
       UNION ALL
       SELECT 'LARGE OBJECT', '', m.oid::pg_catalog.text, 'LARGE OBJECT ' || m.oid, m.lomowner,
              pg_catalog.obj_description(m.oid, 'pg_largeobject')
         FROM pg_catalog.pg_largeobject_metadata m WHERE m.oid OPERATOR(pg_catalog.=) ANY ($1)),
     publication AS (
       SELECT p.pubname, x.words, x.setting
         FROM pg_catalog.pg_publication p
         CROSS JOIN LATERAL (SELECT pg_catalog.concat_ws(', ', CASE WHEN p.pubinsert THEN 'insert' END,
           CASE WHEN p.pubupdate THEN 'update' END, CASE WHEN p.pubdelete THEN 'delete' END,
           CASE WHEN p.pubtruncate THEN 'truncate' END) AS events) AS e
         CROSS JOIN LATERAL (VALUES ('publish = ''' || e.events || '''', 'publish = ''' || e.events || '''',
                                     e.events OPERATOR(pg_catalog.<>) 'insert, update, delete, truncate'),
           ('publish_via_partition_root = true', 'publish_via_partition_root = true',
            (pg_catalog.to_jsonb(p) OPERATOR(pg_catalog.->>) 'pubviaroot') OPERATOR(pg_catalog.=) 'true'),
           ('publish_generated_columns = stored', 'publish_generated_columns = stored',
            (pg_catalog.to_jsonb(p) OPERATOR(pg_catalog.->>) 'pubgencols') OPERATOR(pg_catalog.=) 's'))
           AS x (words, setting, is_own)
        WHERE x.is_own)
     SELECT t.kind, t.schema, t.name, 'COMMENT', t.kind || ' ' || t.name, NULL::pg_catalog.text, NULL::pg_catalog.text,
            'the comment on ' || t.path, 'COMMENT ON ' || t.path || ' IS ' || pg_catalog.quote_literal(t.comment)
       FROM thing t WHERE t.comment IS NOT NULL
     UNION ALL
     SELECT t.kind, t.schema, t.name, NULL, NULL, NULL, r.rolname::pg_catalog.text,
            r.rolname || ' as the owner of ' || t.path, 'ALTER ' || t.path || ' OWNER TO ' || pg_catalog.quote_ident(r.rolname)
       FROM thing t JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) t.owner
     UNION ALL
     SELECT 'EVENT TRIGGER', '', e.evtname::pg_catalog.text, NULL, NULL, ' ' || x.state || ';', NULL,
            'the state of the event trigger ' || e.evtname,
            'ALTER EVENT TRIGGER ' || pg_catalog.quote_ident(e.evtname) || ' ' || x.state
       FROM pg_catalog.pg_event_trigger e
       JOIN (VALUES ('D', 'DISABLE'), ('A', 'ENABLE ALWAYS'), ('R', 'ENABLE REPLICA')) AS x (letter, state)
         ON x.letter OPERATOR(pg_catalog.=) e.evtenabled::pg_catalog.text
     UNION ALL
     SELECT 'PUBLICATION', '', p.pubname::pg_catalog.text, NULL, NULL, p.words, NULL,
            'the options of the publication ' || p.pubname || ': ' || p.setting,
            'ALTER PUBLICATION ' || pg_catalog.quote_ident(p.pubname) || ' SET (' || p.setting || ')'
       FROM publication p
     UNION ALL
     SELECT 'PUBLICATION', '', p.pubname::pg_catalog.text, NULL, NULL, ' FOR ALL TABLES', NULL,
            'that the publication ' || p.pubname || ' is for all tables', ''
       FROM pg_catalog.pg_publication p WHERE p.puballtables
     UNION ALL
     SELECT 'DOMAIN', n.nspname::pg_catalog.text, t.typname::pg_catalog.text, 'CHECK CONSTRAINT', t.typname || ' ' || k.conname,
            'CONSTRAINT ' || pg_catalog.quote_ident(k.conname) || ' ', NULL,
            'the constraint ' || k.conname || ' of the domain ' || pg_catalog.format('%I.%I', n.nspname, t.typname),
            'ALTER DOMAIN ' || pg_catalog.format('%I.%I', n.nspname, t.typname) || ' ADD CONSTRAINT '
              || pg_catalog.quote_ident(k.conname) || ' ' || pg_catalog.pg_get_constraintdef(k.oid)
       FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) k.contypid
       JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace
      WHERE k.contype OPERATOR(pg_catalog.=) 'c'
     UNION ALL
     SELECT 'DOMAIN', n.nspname::pg_catalog.text, t.typname::pg_catalog.text, 'COMMENT',
            'CONSTRAINT ' || k.conname || ' ON DOMAIN ' || t.typname, NULL, NULL,
            'the comment on the constraint ' || k.conname || ' of the domain ' || pg_catalog.format('%I.%I', n.nspname, t.typname),
            'COMMENT ON CONSTRAINT ' || pg_catalog.quote_ident(k.conname) || ' ON DOMAIN '
              || pg_catalog.format('%I.%I', n.nspname, t.typname) || ' IS '
              || pg_catalog.quote_literal(pg_catalog.obj_description(k.oid, 'pg_constraint'))
       FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) k.contypid
       JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace
      WHERE pg_catalog.obj_description(k.oid, 'pg_constraint') IS NOT NULL
     UNION ALL
     SELECT 'DOMAIN', n.nspname::pg_catalog.text, t.typname::pg_catalog.text, NULL, NULL, x.words, NULL,
            x.what || pg_catalog.format('%I.%I', n.nspname, t.typname),
            'ALTER DOMAIN ' || pg_catalog.format('%I.%I', n.nspname, t.typname) || ' SET' || x.words || x.value
       FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace
       CROSS JOIN LATERAL (VALUES (' NOT NULL', 'NOT NULL of the domain ', '', t.typnotnull),
         (' DEFAULT ', 'the default of the domain ', coalesce(pg_catalog.pg_get_expr(t.typdefaultbin, 0), ''),
          t.typdefaultbin IS NOT NULL)) AS x (words, what, value, is_own)
      WHERE t.typtype OPERATOR(pg_catalog.=) 'd' AND x.is_own
     ORDER BY 8";
