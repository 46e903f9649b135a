//! What stands in the target where rows are to go: which tables hold rows, who owns them, what is a partition of what.
//!
//! No query is planned over a table that others own: a planner computes what is constant in an index's expression, by
//! a function of the owner's and as the role that looks. COPY of a plain table plans nothing.

use tokio_postgres::Row;

use super::refusal::Refusal;
use super::tables::{CHOSEN, Names};
use super::wire::{Rows, Wire};
use super::{Named, Session};
use crate::error::{Code, Error, Result};
use crate::postgres::quoting::qualified;

/// A table of so many bytes is read to its end, which costs less than another session for the next one.
const SMALL: i64 = 4 << 20;

/// What has a table's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Occupant {
    /// As `pg_class` has it.
    pub kind: char,
    pub owner: String,
    /// The owner is no superuser, and may load rows into it as itself.
    pub owner_loads: bool,
    /// Code of the owner's is code of somebody who is no superuser.
    pub is_strangers: bool,
}

impl Occupant {
    /// In words, for an error.
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
    /// What has each of these names here.
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

    /// Whether a plain table that exists holds a row; those of its heirs do not count.
    pub async fn holds_rows(&self, schema: &str, name: &str) -> Result<bool> {
        let table = (schema.to_owned(), name.to_owned());
        Ok(self.holding_rows(&[table]).await? == [true])
    }

    /// The same of several.
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
            // Neither its text nor its language matters.
            let copy = format!("COPY {} TO STDOUT (ENCODING 'SQL_ASCII')", qualified(schema, name));
            match line.copy(copy.as_bytes(), &mut first).await {
                Ok(()) => wire = Some(line),
                // The line is closed with the rest of the rows on it.
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

    /// Nothing where it does not tell whether there are rows. A partitioned table has none of its own.
    async fn table_size(&self, schema: &str, name: &str) -> Result<Option<i64>> {
        let question = format!(
            "WITH chosen AS ({CHOSEN})
             SELECT CASE WHEN c.relkind = 'p' THEN 0 WHEN a.amname = 'heap' THEN pg_catalog.pg_relation_size(c.oid) END
               FROM chosen JOIN pg_catalog.pg_class c ON c.oid = chosen.oid
               LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam"
        );
        let row = self.client.query_opt(&question, &[&vec![schema], &vec![name]]).await;
        row.and_then(|row| row.map_or(Ok(None), |row| row.try_get(0)))
            .map_err(|error| self.error("cannot look into the table", &error))
    }

    /// A session that looks, and can do nothing else.
    async fn looking(&self) -> Result<Wire> {
        let mut wire = self.open_wire().await?;
        let begin = "SET client_encoding = 'UTF8'; SET row_security = off; BEGIN TRANSACTION READ ONLY";
        wire.execute(begin.as_bytes()).await.map_err(Refusal::into_error)?;
        Ok(wire)
    }

    /// The partitions of a table at all its levels, which hold its rows.
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

    /// Of these sequences, whether they are there, and whether this role may set them.
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
    let what = format!("cannot see whether {schema}.{name} holds rows: {}", error.message());
    let error = Error::new(code, what);
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
