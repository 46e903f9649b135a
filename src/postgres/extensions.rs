//! Extensions: their versions, and their members.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use tokio_postgres::Row;

use super::Session;
use crate::error::Result;

/// An extension's members depend on its version, which no archive contains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    pub name: String,
    pub version: String,
}

/// What an extension needs to be made on a server, where its default version is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExtensionNeeds {
    pub name: String,
    version: Option<String>,
    /// The server has the files of that version.
    pub is_whole: bool,
    /// Other extensions, which must be there first.
    pub requires: Vec<String>,
}

impl fmt::Display for ExtensionNeeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        self.version.iter().try_for_each(|version| write!(f, " {version}"))
    }
}

/// An object that an extension has made, named as in an archive's table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub extension: String,
    pub kind: MemberKind,
    /// Empty if it has none.
    pub schema: String,
    /// For a function, without its arguments.
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemberKind {
    /// A table, a view or a sequence.
    Relation,
    Function,
    Type,
    Schema,
    Language,
    Wrapper,
    Server,
}

/// A difference in the grants on an extension's member: an added grant, or one of the extension's own that was
/// revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberGrant {
    /// As an archive's table of contents would name the entry.
    pub schema: String,
    pub tag: String,
    pub role: String,
    pub is_revoke: bool,
    /// For messages.
    pub what: String,
    pub statement: String,
}

/// For each kind: the catalog, the column of the name, and the column of the schema.
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
    /// Of those of these extensions that the server knows by their control files.
    pub(crate) async fn needs_of_extensions(&self, names: &[&str]) -> Result<Vec<ExtensionNeeds>> {
        let question = "SELECT e.name::pg_catalog.text, e.default_version, v.version IS NOT NULL,
                 coalesce(v.requires::pg_catalog.text[], '{}')
               FROM pg_catalog.pg_available_extensions e
               LEFT JOIN pg_catalog.pg_available_extension_versions v
                 ON v.name OPERATOR(pg_catalog.=) e.name AND v.version OPERATOR(pg_catalog.=) e.default_version
              WHERE e.name::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($1) ORDER BY 1";
        let needs = |row: &Row| {
            Ok(ExtensionNeeds {
                name: row.try_get(0)?,
                version: row.try_get(1)?,
                is_whole: row.try_get(2)?,
                requires: row.try_get(3)?,
            })
        };
        let rows = self.client.query(question, &[&names]).await;
        rows.and_then(|rows| rows.iter().map(needs).collect())
            .map_err(|error| self.error("cannot look at the extensions", &error))
    }

    pub(crate) async fn has_extension(&self, name: &str) -> Result<bool> {
        let question = "SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) $1)";
        let row = self.client.query_one(question, &[&name]).await;
        row.and_then(|row| row.try_get(0))
            .map_err(|error| self.error("cannot look at the extensions", &error))
    }

    /// The database's extensions, by name; `None` if the server does not report them.
    pub async fn extensions(&self) -> Option<Vec<Extension>> {
        let question = "SELECT coalesce(pg_catalog.array_agg(extname::pg_catalog.text ORDER BY extname), '{}'),
                               coalesce(pg_catalog.array_agg(extversion ORDER BY extname), '{}')
                        FROM pg_catalog.pg_extension";
        let row = self.attempt(question).await.ok()??;
        let (names, versions): (Vec<String>, Vec<String>) = (row.try_get(0).ok()?, row.try_get(1).ok()?);
        let pairs = names.into_iter().zip(versions);
        Some(pairs.map(|(name, version)| Extension { name, version }).collect())
    }

    /// The extensions that can be made here, each with the version that `CREATE EXTENSION` makes.
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

    /// The members of these extensions in this database.
    pub async fn extension_members(&self, extensions: &[String]) -> Result<Vec<Member>> {
        let failed = |error| self.error("cannot look at the extensions' objects", &error);
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

    /// Where grants on these extensions' members differ from the grants that the extensions made.
    pub(crate) async fn member_grants(&self, extensions: &[String]) -> Result<Vec<MemberGrant>> {
        let failed = |error| self.error("cannot look at grants on the extensions' objects", &error);
        let rows = self.client.query(MEMBER_GRANTS, &[&extensions]).await.map_err(failed)?;
        let one = |row: &Row| {
            Ok(MemberGrant {
                schema: row.try_get(0)?,
                tag: row.try_get(1)?,
                role: row.try_get(2)?,
                is_revoke: row.try_get(3)?,
                what: row.try_get(4)?,
                statement: row.try_get(5)?,
            })
        };
        let read: std::result::Result<Vec<MemberGrant>, tokio_postgres::Error> = rows.iter().map(one).collect();
        read.map_err(failed)
    }
}

/// The server keeps an extension's original grants in `pg_init_privs`. Without an entry there, an object had the
/// default privileges of its kind.
const MEMBER_GRANTS: &str = "WITH member AS (
       SELECT d.classid, d.objid FROM pg_catalog.pg_depend d
         JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
        WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
          AND d.deptype OPERATOR(pg_catalog.=) 'e' AND e.extname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($1)),
     object AS (
       SELECT m.classid, m.objid, n.nspname::pg_catalog.text AS schema,
              CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.relname AS tag,
              CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || pg_catalog.format('%I.%I', n.nspname, c.relname) AS whole,
              c.relowner AS owner, c.relacl AS acl,
              pg_catalog.acldefault((CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END)::pg_catalog.\"char\", c.relowner) AS given
         FROM member m JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) m.objid
         JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
        WHERE m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
          AND c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'p', 'v', 'm', 'f', 'S']::pg_catalog.\"char\"[])
       UNION ALL
       SELECT m.classid, m.objid, n.nspname::pg_catalog.text,
              CASE p.prokind WHEN 'p' THEN 'PROCEDURE ' ELSE 'FUNCTION ' END || p.proname || '('
                || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')',
              'ROUTINE ' || p.oid::pg_catalog.regprocedure::pg_catalog.text, p.proowner, p.proacl,
              pg_catalog.acldefault('f', p.proowner)
         FROM member m JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) m.objid
         JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
        WHERE m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
       UNION ALL
       SELECT m.classid, m.objid, n.nspname::pg_catalog.text, 'TYPE ' || t.typname,
              'TYPE ' || pg_catalog.format('%I.%I', n.nspname, t.typname), t.typowner, t.typacl,
              pg_catalog.acldefault('T', t.typowner)
         FROM member m JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) m.objid
         JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace
        WHERE m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
       UNION ALL
       SELECT m.classid, m.objid, '', 'FOREIGN DATA WRAPPER ' || w.fdwname,
              'FOREIGN DATA WRAPPER ' || pg_catalog.quote_ident(w.fdwname), w.fdwowner, w.fdwacl,
              pg_catalog.acldefault('F', w.fdwowner)
         FROM member m JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid OPERATOR(pg_catalog.=) m.objid
        WHERE m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass
       UNION ALL
       SELECT m.classid, m.objid, '', 'LANGUAGE ' || l.lanname, 'LANGUAGE ' || pg_catalog.quote_ident(l.lanname), l.lanowner,
              l.lanacl, pg_catalog.acldefault('l', l.lanowner)
         FROM member m JOIN pg_catalog.pg_language l ON l.oid OPERATOR(pg_catalog.=) m.objid
        WHERE m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_language'::pg_catalog.regclass),
     begun AS (
       SELECT o.schema, o.tag, o.whole, o.owner, coalesce(o.acl, o.given) AS held, coalesce(i.initprivs, o.given) AS given
         FROM object o LEFT JOIN pg_catalog.pg_init_privs i ON i.classoid OPERATOR(pg_catalog.=) o.classid
          AND i.objoid OPERATOR(pg_catalog.=) o.objid AND i.objsubid OPERATOR(pg_catalog.=) 0),
     changed AS (
       SELECT b.schema, b.tag, b.whole, x.grantee, x.privilege_type, false AS is_revoke
         FROM begun b, pg_catalog.aclexplode(b.held) x
        WHERE x.grantee OPERATOR(pg_catalog.<>) b.owner AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(b.given) g
                WHERE g.grantee OPERATOR(pg_catalog.=) x.grantee AND g.privilege_type OPERATOR(pg_catalog.=) x.privilege_type)
       UNION ALL
       SELECT b.schema, b.tag, b.whole, g.grantee, g.privilege_type, true
         FROM begun b, pg_catalog.aclexplode(b.given) g
        WHERE g.grantee OPERATOR(pg_catalog.<>) b.owner AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(b.held) x
                WHERE x.grantee OPERATOR(pg_catalog.=) g.grantee AND x.privilege_type OPERATOR(pg_catalog.=) g.privilege_type)),
     told AS (
       SELECT c.schema, c.tag, c.whole, c.is_revoke, pg_catalog.string_agg(c.privilege_type, ', ' ORDER BY c.privilege_type) AS rights,
              CASE c.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(c.grantee)::pg_catalog.text END AS role,
              CASE c.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.grantee)) END AS quoted
         FROM changed c GROUP BY c.schema, c.tag, c.whole, c.is_revoke, c.grantee)
     SELECT t.schema, t.tag, t.role, t.is_revoke,
            CASE WHEN t.is_revoke THEN 'that ' || t.role || ' has no ' || t.rights || ' on ' || t.whole
                 ELSE 'grants on ' || t.whole || ' to ' || t.role END,
            CASE WHEN t.is_revoke THEN 'REVOKE ' || t.rights || ' ON ' || t.whole || ' FROM ' || t.quoted
                 ELSE 'GRANT ' || t.rights || ' ON ' || t.whole || ' TO ' || t.quoted END
       FROM told t ORDER BY 1, 2, 3, 4";
