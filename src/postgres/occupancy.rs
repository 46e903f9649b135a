//! What the target already has where rows will go: which tables have rows, who owns them, and which are partitions of
//! which.
//!
//! pgstow plans no query over a table of another owner: for a constant in an index's expression, the planner would
//! run a function of that owner as pgstow's role. COPY of a plain table plans nothing.

use tokio_postgres::Row;

use super::refusal::Refusal;
use super::tables::{CHOSEN, Names};
use super::wire::{Rows, Wire};
use super::{Named, Session};
use crate::error::{Code, Error, Result};
use crate::postgres::quoting::qualified;

/// A table up to this many bytes is read to its end: that costs less than a new session for the next table.
const SMALL: i64 = 4 << 20;

/// The object that has a table's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Occupant {
    /// As in `pg_class`.
    pub kind: char,
    pub owner: String,
    /// The owner is no superuser, and may load rows into it as itself.
    pub owner_loads: bool,
    /// The owner's code is the code of a role that is no superuser.
    pub is_strangers: bool,
}

impl Occupant {
    /// For an error.
    pub fn what(&self) -> &'static str {
        match self.kind {
            'r' => "a plain table",
            'p' => "a partitioned table",
            'v' => "a view",
            'm' => "a materialized view",
            'f' => "a foreign table",
            'S' => "a sequence",
            _ => "something else",
        }
    }
}

impl Session {
    /// The object that has each of these names here.
    pub(crate) async fn occupants(&self, tables: &Names) -> Result<Vec<Option<Occupant>>> {
        let (schemas, names): (Vec<&str>, Vec<&str>) = tables
            .iter()
            .map(|(schema, name)| (schema.as_str(), name.as_str()))
            .unzip();
        let question = "SELECT c.relkind::pg_catalog.text, pg_catalog.pg_get_userbyid(c.relowner)::pg_catalog.text,
                    o.rolsuper, pg_catalog.has_schema_privilege(c.relowner, n.oid, 'USAGE')
                      AND pg_catalog.has_table_privilege(c.relowner, c.oid, 'INSERT')
                      AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
               FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]))
                    WITH ORDINALITY AS asked (schema, name, at)
               LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = asked.schema
               LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = asked.name
               LEFT JOIN pg_catalog.pg_roles o ON o.oid = c.relowner
              ORDER BY asked.at";
        let failed = |error| self.error("cannot look at the tables", &error);
        let rows = self.client.query(question, &[&schemas, &names]).await.map_err(failed)?;
        let occupant = |row: &Row| {
            let Some(kind) = row.try_get::<_, Option<String>>(0)? else {
                return Ok(None);
            };
            let is_super = row.try_get::<_, Option<bool>>(2)?.unwrap_or_default();
            Ok(Some(Occupant {
                kind: kind.chars().next().unwrap_or_default(),
                owner: row.try_get(1)?,
                owner_loads: !is_super && row.try_get::<_, Option<bool>>(3)?.unwrap_or_default(),
                is_strangers: !is_super,
            }))
        };
        rows.iter().map(occupant).collect::<Result<_, _>>().map_err(failed)
    }

    /// Whether an existing plain table has a row; rows of its inheritance children do not count.
    pub async fn holds_rows(&self, schema: &str, name: &str) -> Result<bool> {
        let table = (schema.to_owned(), name.to_owned());
        Ok(self.holding_rows(&[table]).await? == [true])
    }

    /// The same for several tables.
    pub(crate) async fn holding_rows(&self, tables: &Names) -> Result<Vec<bool>> {
        let mut wire = None;
        let mut found = Vec::with_capacity(tables.len());
        for (schema, name) in tables {
            let bytes = self.table_size(schema, name).await?;
            if bytes == Some(0) {
                found.push(false);
                continue;
            }
            let mut line: Wire = match wire.take() {
                Some(line) => line,
                None => self.looking().await?,
            };
            let mut first = First {
                any: false,
                to_the_end: bytes.is_some_and(|bytes| bytes <= SMALL),
            };
            // The encoding does not matter here, because the text is not read.
            let copy = format!("COPY {} TO STDOUT (ENCODING 'SQL_ASCII')", qualified(schema, name));
            match line.copy(copy.as_bytes(), &mut first).await {
                Ok(()) => wire = Some(line),
                // The session is closed with the remaining rows unread.
                Err(Refusal::Broken(_)) if first.any => {}
                Err(refusal) => return Err(unseen(schema, name, refusal)),
            }
            found.push(first.any);
        }
        if let Some(wire) = wire {
            wire.close().await;
        }
        Ok(found)
    }

    /// `None` if the size does not show whether there are rows: a partitioned table has no rows of its own.
    async fn table_size(&self, schema: &str, name: &str) -> Result<Option<i64>> {
        let question = format!(
            "WITH chosen AS ({CHOSEN})
             SELECT CASE WHEN c.relkind = 'p' THEN 0 WHEN a.amname = 'heap' THEN pg_catalog.pg_relation_size(c.oid) END
               FROM chosen JOIN pg_catalog.pg_class c ON c.oid = chosen.oid
               LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam"
        );
        let row = self.client.query_opt(&question, &[&vec![schema], &vec![name]]).await;
        row.and_then(|row| row.map_or(Ok(None), |row| row.try_get(0)))
            .map_err(|error| self.error("cannot look at the table's size", &error))
    }

    /// A session that can only read.
    async fn looking(&self) -> Result<Wire> {
        let mut wire = self.open_wire().await?;
        let begin = "SET client_encoding = 'UTF8'; SET row_security = off; BEGIN TRANSACTION READ ONLY";
        wire.execute(begin.as_bytes()).await.map_err(Refusal::into_error)?;
        Ok(wire)
    }

    /// The partitions of a table at all levels that hold its rows.
    pub(crate) async fn leaves(&self, schema: &str, name: &str) -> Result<Vec<(String, String)>> {
        let question = format!(
            "WITH chosen AS ({CHOSEN})
             SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text
               FROM chosen JOIN LATERAL pg_catalog.pg_partition_tree(chosen.oid) t ON t.isleaf
               JOIN pg_catalog.pg_class c ON c.oid = t.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              ORDER BY 1, 2"
        );
        let failed = |error| self.error("cannot look at the partitions", &error);
        let rows = self.client.query(&question, &[&vec![schema], &vec![name]]).await;
        let rows = rows.map_err(failed)?;
        let leaf = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
        rows.iter().map(leaf).collect::<Result<_, _>>().map_err(failed)
    }

    /// For each of these sequences: whether it exists, and whether this role may set it.
    pub(crate) async fn sequences(&self, asked: &[Named<'_>]) -> Result<Vec<(bool, bool)>> {
        let (schemas, names): (Vec<&str>, Vec<&str>) = asked.iter().map(|one| (one.schema, one.name)).unzip();
        let question = "SELECT c.oid IS NOT NULL, coalesce(pg_catalog.has_sequence_privilege(c.oid, 'UPDATE')
                      AND pg_catalog.has_sequence_privilege(c.oid, 'SELECT'), false)
               FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]))
                    WITH ORDINALITY AS asked (schema, name, at)
               LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = asked.schema
               LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = asked.name AND c.relkind = 'S'
              ORDER BY asked.at";
        let failed = |error| self.error("cannot look at the sequences", &error);
        let rows = self.client.query(question, &[&schemas, &names]).await.map_err(failed)?;
        let found = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
        rows.iter().map(found).collect::<Result<_, _>>().map_err(failed)
    }
}

fn unseen(schema: &str, name: &str, refusal: Refusal) -> Error {
    let hint = refusal.hint_of_rows();
    let error = refusal.into_error();
    let code = match error.code() {
        Code::Permission => Code::Permission,
        _ => Code::RestoreErr,
    };
    let what = format!("cannot find out whether {schema}.{name} has rows");
    let error = Error::new(code, what).source(error);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Ends a COPY after its first row.
struct First {
    any: bool,
    to_the_end: bool,
}

impl Rows for First {
    fn text(&mut self, _: &[u8]) {
        self.any = true;
    }
    fn end(&mut self, _: u64) {}
    async fn turn(&mut self) -> Result<()> {
        match self.any && !self.to_the_end {
            true => Err(Error::internal("it has rows")),
            false => Ok(()),
        }
    }
}
