//! Extensions: which there are, in which versions, and what is theirs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokio_postgres::Row;

use super::Session;
use crate::error::Result;

/// What is of an extension depends on its version: an archive says none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    pub name: String,
    pub version: String,
}

/// What an extension has made, as an archive's table of contents would name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub extension: String,
    pub kind: MemberKind,
    /// Empty where there is none.
    pub schema: String,
    /// Of a function without its arguments.
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemberKind {
    /// A table, a view, a sequence.
    Relation,
    Function,
    Type,
    Schema,
    Language,
    Wrapper,
    Server,
}

/// Of each kind: the catalog, the name's column, and the schema's.
const MEMBERS: [(MemberKind, &str, &str, &str); 7] = [
    (MemberKind::Relation, "pg_class", "relname", "relnamespace"),
    (MemberKind::Function, "pg_proc", "proname", "pronamespace"),
    (MemberKind::Type, "pg_type", "typname", "typnamespace"),
    (MemberKind::Schema, "pg_namespace", "nspname", "0"),
    (MemberKind::Language, "pg_language", "lanname", "0"),
    (MemberKind::Wrapper, "pg_foreign_data_wrapper", "fdwname", "0"),
    (MemberKind::Server, "pg_foreign_server", "srvname", "0"),
];

impl Session {
    /// The database's, by name; `None` where the server does not say.
    pub async fn extensions(&self) -> Option<Vec<Extension>> {
        let question = "SELECT coalesce(pg_catalog.array_agg(extname::pg_catalog.text ORDER BY extname), '{}'),
                               coalesce(pg_catalog.array_agg(extversion ORDER BY extname), '{}')
                        FROM pg_catalog.pg_extension";
        let row = self.attempt(question).await.ok()??;
        let (names, versions): (Vec<String>, Vec<String>) = (row.try_get(0).ok()?, row.try_get(1).ok()?);
        let pairs = names.into_iter().zip(versions);
        Some(pairs.map(|(name, version)| Extension { name, version }).collect())
    }

    /// Those that can be made here, each with the version that `CREATE EXTENSION` makes.
    pub async fn available_extensions(&self) -> Result<BTreeMap<String, String>> {
        let failed = |error| self.error("cannot look at the extensions", &error);
        let question =
            "SELECT name::pg_catalog.text, coalesce(default_version, '') FROM pg_catalog.pg_available_extensions";
        let rows = self.client.query(question, &[]).await.map_err(failed)?;
        let pair = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
        rows.iter()
            .map(pair)
            .collect::<std::result::Result<_, tokio_postgres::Error>>()
            .map_err(failed)
    }

    /// What these extensions have made in this database.
    pub async fn extension_members(&self, extensions: &[String]) -> Result<Vec<Member>> {
        let failed = |error| self.error("cannot look at what is the extensions'", &error);
        let mut members = Vec::new();
        for (kind, catalog, name, schema) in MEMBERS {
            let question = format!(
                "SELECT e.extname::pg_catalog.text, coalesce(n.nspname::pg_catalog.text, ''), x.{name}::pg_catalog.text
                 FROM pg_catalog.{catalog} x
                 JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.{catalog}'::pg_catalog.regclass
                   AND d.objid = x.oid AND d.deptype = 'e'
                 JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
                   AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                 LEFT JOIN pg_catalog.pg_namespace n ON n.oid = {schema}
                 WHERE e.extname = ANY ($1)"
            );
            let rows = self.client.query(&question, &[&extensions]).await.map_err(failed)?;
            for row in rows {
                members.push(Member {
                    extension: row.try_get(0).map_err(failed)?,
                    kind,
                    schema: row.try_get(1).map_err(failed)?,
                    name: row.try_get(2).map_err(failed)?,
                });
            }
        }
        Ok(members)
    }
}
