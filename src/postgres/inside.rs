//! The parts of the target's tables: columns, checks, NOT NULL, and the settings of tables and columns.

use tokio_postgres::Row;

use super::Session;
use super::tables::{CHOSEN, Names};
use crate::error::Result;

/// The parts of one table that it does not inherit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inside {
    pub schema: String,
    pub name: String,
    /// Quoted, with its schema.
    pub table: String,
    pub columns: Vec<String>,
    /// The columns' types, in their order.
    pub types: Vec<String>,
    /// The columns that may not be NULL, except those of the primary key and of a constraint that is not valid.
    pub not_null: Vec<String>,
    pub checks: Vec<String>,
    /// The checks' definitions, in their order.
    pub definitions: Vec<String>,
}

/// A setting that differs from the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub schema: String,
    /// The name of the table, or of an index that has the setting.
    pub name: String,
    /// The name of that index's constraint, as an archive tags it.
    pub constraint: Option<String>,
    /// The words in the archive's definition if the backup has the setting, starting with a character that is not
    /// part of a word.
    pub words: String,
    /// For messages.
    pub what: String,
    pub statement: String,
}

impl Mark {
    /// The words in the archive's definition if the backup has the same value: pg_dump writes the value of an option
    /// in quotes or, if it is a plain word, without them.
    pub fn phrases(&self) -> Vec<String> {
        let Some((_, value)) = self.statement.rsplit_once(&*self.words) else {
            return Vec::new();
        };
        if !self.words.ends_with('=') {
            return vec![format!("{}{value}", self.words)];
        }
        let quoted = value.strip_suffix(')').unwrap_or(value);
        let bare = quoted.trim_start_matches('\'').trim_end_matches('\'');
        vec![format!("{}{quoted}", self.words), format!("{}{bare}", self.words)]
    }
}

impl Session {
    pub(crate) async fn inside(&self, tables: &Names) -> Result<Vec<Inside>> {
        let question = format!(
            "WITH chosen AS ({CHOSEN}), named AS (
               SELECT c.oid, n.nspname::pg_catalog.text AS schema, c.relname::pg_catalog.text AS name,
                      pg_catalog.format('%I.%I', n.nspname, c.relname) AS whole
                 FROM chosen JOIN pg_catalog.pg_class c ON c.oid = chosen.oid
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                WHERE c.relkind IN ('r', 'p', 'f') AND c.reloftype = 0)
             SELECT t.schema, t.name, t.whole,
                    ARRAY(SELECT a.attname::pg_catalog.text FROM pg_catalog.pg_attribute a
                           WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attislocal ORDER BY a.attnum),
                    ARRAY(SELECT pg_catalog.format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_attribute a
                           WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attislocal ORDER BY a.attnum),
                    ARRAY(SELECT a.attname::pg_catalog.text FROM pg_catalog.pg_attribute a
                           WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attislocal AND a.attnotnull
                             AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = t.oid AND i.indisprimary
                                                AND a.attnum = ANY (i.indkey))
                             AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conrelid = t.oid AND k.contype = 'n'
                                                AND NOT k.convalidated AND a.attnum = ANY (k.conkey)) ORDER BY a.attnum),
                    ARRAY(SELECT k.conname::pg_catalog.text FROM pg_catalog.pg_constraint k
                           WHERE k.conrelid = t.oid AND k.contype = 'c' AND k.conislocal ORDER BY k.conname),
                    ARRAY(SELECT coalesce(pg_catalog.pg_get_constraintdef(k.oid), '') FROM pg_catalog.pg_constraint k
                           WHERE k.conrelid = t.oid AND k.contype = 'c' AND k.conislocal ORDER BY k.conname)
               FROM named t ORDER BY 3"
        );
        let inside = |row: &Row| {
            Ok(Inside {
                schema: row.try_get(0)?,
                name: row.try_get(1)?,
                table: row.try_get(2)?,
                columns: row.try_get(3)?,
                types: row.try_get(4)?,
                not_null: row.try_get(5)?,
                checks: row.try_get(6)?,
                definitions: row.try_get(7)?,
            })
        };
        let rows = self.about(tables, &question).await?;
        self.read(rows.iter().map(inside).collect())
    }

    pub(crate) async fn marks(&self, tables: &Names) -> Result<Vec<Mark>> {
        let compression = if self.server.major < 14 {
            "''"
        } else {
            "a.attcompression::pg_catalog.text"
        };
        let question = format!(
            "WITH chosen AS ({CHOSEN}), named AS (
               SELECT c.oid, c.relkind, c.relreplident, c.relforcerowsecurity, c.reloptions, c.reltoastrelid,
                      n.nspname::pg_catalog.text AS schema, c.relname::pg_catalog.text AS name,
                      pg_catalog.format('%I.%I', n.nspname, c.relname) AS whole
                 FROM chosen JOIN pg_catalog.pg_class c ON c.oid = chosen.oid
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace),
             columns AS (
               SELECT t.oid, t.schema, t.name, a.attnum, {compression} AS compression, 'ALTER COLUMN ' || pg_catalog.quote_ident(a.attname) AS words,
                      t.whole || '.' || pg_catalog.quote_ident(a.attname) AS path,
                      'ALTER TABLE ONLY ' || t.whole || ' ALTER COLUMN ' || pg_catalog.quote_ident(a.attname) AS change
                 FROM named t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid
                WHERE t.relkind IN ('r', 'p', 'm') AND a.attnum > 0 AND NOT a.attisdropped),
             options AS (
               SELECT t.schema, t.name, t.whole, t.relkind, '' AS prefix, pg_catalog.unnest(t.reloptions) AS option FROM named t
               UNION ALL
               SELECT t.schema, t.name, t.whole, t.relkind, 'toast.', pg_catalog.unnest(c.reloptions)
                 FROM named t JOIN pg_catalog.pg_class c ON c.oid = t.reltoastrelid),
             indexes AS (
               SELECT n.nspname::pg_catalog.text AS schema, c.relname::pg_catalog.text AS name,
                      t.name || ' ' || c.relname AS tag, t.whole, pg_catalog.quote_ident(c.relname) AS index,
                      i.indisclustered, i.indisreplident AND t.relreplident = 'i' AS identifies
                 FROM named t JOIN pg_catalog.pg_index i ON i.indrelid = t.oid
                 JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace)
             SELECT t.schema, t.name, NULL::pg_catalog.text, 'FORCE ROW LEVEL SECURITY',
                    'FORCE ROW LEVEL SECURITY of ' || t.whole, 'ALTER TABLE ' || t.whole || ' FORCE ROW LEVEL SECURITY'
               FROM named t WHERE t.relforcerowsecurity
             UNION ALL
             SELECT t.schema, t.name, NULL, x.words, 'the replica identity of ' || t.whole, 'ALTER TABLE ' || t.whole || ' ' || x.words
               FROM named t JOIN (VALUES ('f', 'REPLICA IDENTITY FULL'), ('n', 'REPLICA IDENTITY NOTHING')) AS x (letter, words)
                 ON x.letter = t.relreplident::pg_catalog.text
              WHERE t.relkind IN ('r', 'p')
             UNION ALL
             SELECT i.schema, i.name, i.tag, 'REPLICA IDENTITY USING INDEX', 'the replica identity of ' || i.whole,
                    'ALTER TABLE ' || i.whole || ' REPLICA IDENTITY USING INDEX ' || i.index
               FROM indexes i WHERE i.identifies
             UNION ALL
             SELECT i.schema, i.name, i.tag, 'CLUSTER ON', 'the order of ' || i.whole || ' for CLUSTER',
                    'ALTER TABLE ' || i.whole || ' CLUSTER ON ' || i.index
               FROM indexes i WHERE i.indisclustered
             UNION ALL
             SELECT o.schema, o.name, NULL, o.prefix || x.name || '=', 'the option ' || o.prefix || x.name || ' of ' || o.whole,
                    'ALTER ' || CASE o.relkind WHEN 'v' THEN 'VIEW ' WHEN 'm' THEN 'MATERIALIZED VIEW ' ELSE 'TABLE ' END || o.whole
                      || ' SET (' || o.prefix || x.name || '='
                      || pg_catalog.quote_literal(pg_catalog.substr(o.option, pg_catalog.length(x.name) + 2)) || ')'
               FROM options o JOIN LATERAL (SELECT pg_catalog.split_part(o.option, '=', 1) AS name) AS x ON true
              WHERE x.name <> 'check_option'
             UNION ALL
             SELECT c.schema, c.name, NULL, c.words || ' SET STATISTICS ', 'the statistics target of ' || c.path,
                    c.change || ' SET STATISTICS ' || a.attstattarget
               FROM columns c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = c.attnum
              WHERE a.attstattarget >= 0
             UNION ALL
             SELECT c.schema, c.name, NULL, c.words || ' SET (', 'the options of ' || c.path,
                    c.change || ' SET (' || pg_catalog.array_to_string(a.attoptions, ', ') || ')'
               FROM columns c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = c.attnum
              WHERE a.attoptions IS NOT NULL
             UNION ALL
             SELECT c.schema, c.name, NULL, c.words || ' SET STORAGE ', 'the storage of ' || c.path,
                    c.change || ' SET STORAGE ' || CASE WHEN a.attstorage = 'p' THEN 'PLAIN' WHEN a.attstorage = 'e' THEN 'EXTERNAL'
                                                        WHEN a.attstorage = 'm' THEN 'MAIN' ELSE 'EXTENDED' END
               FROM columns c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = c.attnum
               JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
              WHERE a.attstorage <> y.typstorage
             UNION ALL
             SELECT c.schema, c.name, NULL, c.words || ' SET COMPRESSION ', 'the compression of ' || c.path,
                    c.change || ' SET COMPRESSION ' || CASE WHEN c.compression = 'l' THEN 'lz4' ELSE 'pglz' END
               FROM columns c WHERE c.compression IN ('l', 'p')
             ORDER BY 5"
        );
        let mark = |row: &Row| {
            Ok(Mark {
                schema: row.try_get(0)?,
                name: row.try_get(1)?,
                constraint: row.try_get(2)?,
                words: row.try_get(3)?,
                what: row.try_get(4)?,
                statement: row.try_get(5)?,
            })
        };
        let rows = self.about(tables, &question).await?;
        self.read(rows.iter().map(mark).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_sought_as_pg_dump_writes_it() {
        let phrases = |words: &str, statement: &str| {
            let mark = Mark {
                schema: String::new(),
                name: String::new(),
                constraint: None,
                words: words.to_owned(),
                what: String::new(),
                statement: statement.to_owned(),
            };
            mark.phrases()
        };
        assert_eq!(
            phrases("fillfactor=", "ALTER TABLE a.t SET (fillfactor='50')"),
            ["fillfactor='50'", "fillfactor=50"]
        );
        assert_eq!(
            phrases(
                "ALTER COLUMN w SET (",
                "ALTER TABLE ONLY a.t ALTER COLUMN w SET (n_distinct=5)"
            ),
            ["ALTER COLUMN w SET (n_distinct=5)"]
        );
        assert_eq!(
            phrases("REPLICA IDENTITY FULL", "ALTER TABLE a.t REPLICA IDENTITY FULL"),
            ["REPLICA IDENTITY FULL"]
        );
    }
}
