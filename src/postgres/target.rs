//! What a restore must know of its target before it changes anything, and the few changes that
//! are not pg_restore's.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use serde::Serialize;
use tokio_postgres::Row;

use super::quoting::{identifier, qualified};
use super::{ServerInfo, Session, TableName};
use crate::error::{Code, Error, Result};

/// A server and the database that we are connected to, as this role sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    pub server: ServerInfo,
    pub is_superuser: bool,
    /// May make schemas in this database.
    pub can_create: bool,
    pub can_create_databases: bool,
    pub can_create_roles: bool,
    pub objects: Objects,
    pub roles: BTreeSet<String>,
    pub tablespaces: BTreeSet<String>,
    /// Those that could be installed, by name.
    pub extensions: BTreeMap<String, Extension>,
    /// How many objects all transactions together may lock.
    pub locks: u64,
    /// Where the server's data are, if that is on this machine and we may look.
    pub free_bytes: Option<u64>,
}

/// What users have made: no system's and no extension's things, and not the schema `public`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Objects {
    pub count: u64,
    /// `table public.orders`; some of them.
    pub first: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Extension {
    pub default_version: Option<String>,
    pub installed: Option<String>,
}

/// A relation that has a name which a restore wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExistingTable {
    pub table: TableName,
    /// Of pg_class: `r`, `p`, `v`, …
    pub kind: char,
    /// `None` where nobody looked: at a view; where the role may not; where somebody keeps it
    /// locked.
    pub has_rows: Option<bool>,
}

const FIRST: i64 = 10;
/// No such table, object, function, schema, column.
const UNDEFINED: [&str; 5] = ["42P01", "42704", "42883", "3F000", "42703"];

/// Kinds of objects with their catalogs: class, object id, kind, name.
const OBJECTS: &str = "
    SELECT 'pg_class'::regclass AS class, c.oid, CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
           WHEN 'S' THEN 'sequence' WHEN 'f' THEN 'foreign table' ELSE 'table' END AS kind, c.relnamespace AS space,
           c.relname::text AS name
    FROM pg_class c WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relpersistence <> 't'
    UNION ALL
    SELECT 'pg_proc'::regclass, p.oid, CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate'
           ELSE 'function' END, p.pronamespace, p.proname::text FROM pg_proc p
    UNION ALL
    SELECT 'pg_type'::regclass, t.oid, 'type', t.typnamespace, t.typname::text
    FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
    WHERE t.typtype IN ('e', 'd', 'r') OR (t.typtype = 'c' AND c.relkind = 'c')
    UNION ALL
    SELECT 'pg_operator'::regclass, oid, 'operator', oprnamespace, oprname::text FROM pg_operator
    UNION ALL
    SELECT 'pg_collation'::regclass, oid, 'collation', collnamespace, collname::text FROM pg_collation
    UNION ALL
    SELECT 'pg_ts_config'::regclass, oid, 'text search configuration', cfgnamespace, cfgname::text FROM pg_ts_config
    UNION ALL
    SELECT 'pg_namespace'::regclass, oid, 'schema', NULL, nspname::text FROM pg_namespace
    WHERE nspname <> 'public' AND nspname !~ '^pg_'
    UNION ALL
    SELECT 'pg_event_trigger'::regclass, oid, 'event trigger', NULL, evtname::text FROM pg_event_trigger
    UNION ALL
    SELECT 'pg_foreign_server'::regclass, oid, 'foreign server', NULL, srvname::text FROM pg_foreign_server
    UNION ALL
    SELECT 'pg_publication'::regclass, oid, 'publication', NULL, pubname::text FROM pg_publication
    UNION ALL
    SELECT 'pg_largeobject'::regclass, oid, 'large object', NULL, oid::text FROM pg_largeobject_metadata";

impl Session {
    /// Asks the target about itself. Changes nothing.
    pub async fn survey(&self) -> Result<Target> {
        let failed = |error| self.error("cannot look at the target", &error);
        let row = self
            .client
            .query_one(
                "SELECT r.rolsuper, has_database_privilege(current_database(), 'CREATE'), r.rolcreatedb, r.rolcreaterole,
                        current_setting('max_locks_per_transaction')::int8
                        * (current_setting('max_connections')::int8 + current_setting('max_prepared_transactions')::int8)
                 FROM pg_roles r WHERE r.rolname = current_user",
                &[],
            )
            .await
            .map_err(failed)?;
        let is = |column: usize| row.try_get::<_, bool>(column).map_err(failed);
        let is_superuser = is(0)?;
        let locks: i64 = row.try_get(4).map_err(failed)?;
        Ok(Target {
            server: self.server.clone(),
            is_superuser,
            can_create: is(1)?,
            can_create_databases: is_superuser || is(2)?,
            can_create_roles: is_superuser || is(3)?,
            objects: self.objects().await?,
            roles: self.names("SELECT rolname::text FROM pg_roles").await?,
            tablespaces: self.names("SELECT spcname::text FROM pg_tablespace").await?,
            extensions: self.extensions().await?,
            locks: locks.unsigned_abs(),
            free_bytes: self.free_bytes().await,
        })
    }

    async fn names(&self, question: &str) -> Result<BTreeSet<String>> {
        let failed = |error| self.error("cannot look at the target", &error);
        let rows = self.client.query(question, &[]).await.map_err(failed)?;
        rows.iter().map(|row| row.try_get(0).map_err(failed)).collect()
    }

    async fn objects(&self) -> Result<Objects> {
        let failed = |error| self.error("cannot look at the target's objects", &error);
        // What the cluster came with has a number below 16384. Internal parts of something (an
        // identity column's sequence) go with it.
        let question = format!(
            "SELECT o.kind, CASE WHEN n.oid IS NULL THEN quote_ident(o.name) ELSE format('%I.%I', n.nspname, o.name) END,
                    count(*) OVER ()
             FROM ({OBJECTS}) AS o LEFT JOIN pg_namespace n ON n.oid = o.space
             WHERE (o.oid >= 16384 OR o.kind = 'large object')
               AND (n.oid IS NULL
                    OR n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)')
               AND NOT EXISTS (SELECT FROM pg_depend d
                               WHERE d.classid = o.class AND d.objid = o.oid AND d.objsubid = 0 AND d.deptype IN ('e', 'i'))
             ORDER BY o.kind <> 'table', o.kind, 2 LIMIT $1"
        );
        let rows = self.client.query(&question, &[&FIRST]).await.map_err(failed)?;
        let mut objects = Objects::default();
        for row in rows {
            let (kind, name): (String, String) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
            objects.count = row.try_get::<_, i64>(2).map_err(failed)?.unsigned_abs();
            objects.first.push(format!("{kind} {name}"));
        }
        Ok(objects)
    }

    async fn extensions(&self) -> Result<BTreeMap<String, Extension>> {
        let failed = |error| self.error("cannot look at the target's extensions", &error);
        let question = "SELECT name::text, default_version, installed_version FROM pg_available_extensions
                        UNION SELECT extname::text, NULL, extversion FROM pg_extension
                        WHERE extname NOT IN (SELECT name FROM pg_available_extensions)";
        let rows = self.client.query(question, &[]).await.map_err(failed)?;
        let read = |row: &Row| {
            let extension = Extension {
                default_version: row.try_get(1)?,
                installed: row.try_get(2)?,
            };
            Ok((row.try_get(0)?, extension))
        };
        rows.iter().map(|row| read(row).map_err(failed)).collect()
    }

    /// On the disk of the server's data. The folder is known for the server's by the number in it
    /// that only this cluster has: a server in a container may name a folder of ours.
    async fn free_bytes(&self) -> Option<u64> {
        let row = self.attempt("SELECT current_setting('data_directory')").await.ok()??;
        let folder: String = row.try_get(0).ok()?;
        let mut number = [0; 8];
        let control = Path::new(&folder).join("global/pg_control");
        std::fs::File::open(control).ok()?.read_exact(&mut number).ok()?;
        if u64::from_ne_bytes(number).to_string() != *self.server.system_identifier.as_ref()? {
            return None;
        }
        let disk = rustix::fs::statvfs(&folder).ok()?;
        Some(disk.f_bavail * disk.f_frsize)
    }

    pub async fn database_exists(&self, name: &str) -> Result<bool> {
        let row = self
            .client
            .query_opt("SELECT FROM pg_database WHERE datname = $1", &[&name])
            .await;
        let row = row.map_err(|error| self.error("cannot look for the database", &error))?;
        Ok(row.is_some())
    }

    /// Runs one CREATE DATABASE.
    pub async fn create_database(&self, statement: &str) -> Result<()> {
        self.client.batch_execute(statement).await.map_err(|error| {
            let text = "cannot create the database";
            match error.code().map(tokio_postgres::error::SqlState::code) {
                Some("42P04") => Error::new(Code::RestoreErr, format!("{text}: there is one of that name"))
                    .hint("restore into it without --create, or give the new one another name"),
                Some("42501") => Error::new(Code::Permission, format!("{text}: this role may not"))
                    .hint(format!("ALTER ROLE {} CREATEDB", identifier(&self.server.user))),
                _ => {
                    let error = self.error(text, &error);
                    Error::new(Code::RestoreErr, error.message())
                }
            }
        })
    }

    /// Those of the names that relations have already.
    pub async fn existing_tables(&self, names: &[TableName]) -> Result<Vec<ExistingTable>> {
        let failed = |error| self.error("cannot look for tables of these names", &error);
        let schemas: Vec<&str> = names.iter().map(|one| one.schema.as_str()).collect();
        let tables: Vec<&str> = names.iter().map(|one| one.name.as_str()).collect();
        let rows = self
            .client
            .query(
                "SELECT n.nspname::text, c.relname::text, c.relkind::text
                 FROM unnest($1::text[], $2::text[]) AS wanted (schema, name)
                 JOIN pg_namespace n ON n.nspname = wanted.schema
                 JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name
                 ORDER BY 1, 2",
                &[&schemas, &tables],
            )
            .await
            .map_err(failed)?;
        let mut found = Vec::new();
        // Somebody may be rewriting one.
        self.run("SET lock_timeout = '2s'").await?;
        for row in rows {
            let kind: String = row.try_get(2).map_err(failed)?;
            let table = TableName {
                schema: row.try_get(0).map_err(failed)?,
                name: row.try_get(1).map_err(failed)?,
            };
            let question = format!("SELECT EXISTS (SELECT FROM {})", qualified(&table.schema, &table.name));
            let has_rows = match self.attempt(&question).await {
                Ok(Some(row)) => row.try_get(0).ok(),
                Err(error) if self.client.is_closed() => return Err(failed(error)),
                _ => None,
            };
            found.push(ExistingTable {
                table,
                kind: kind.chars().next().unwrap_or_default(),
                has_rows,
            });
        }
        self.run("SET lock_timeout = 0").await?;
        Ok(found)
    }

    /// Runs DROP statements in one transaction, and says how many dropped something. What does not
    /// exist need not be dropped; at any other error nothing has been.
    pub async fn drop_all(&self, statements: &[String]) -> Result<usize> {
        self.run("BEGIN").await?;
        let dropped = self.drop_each(statements).await;
        match dropped {
            Ok(count) => {
                self.run("COMMIT").await?;
                Ok(count)
            }
            Err(error) => {
                // Where this fails, the connection is gone, and the transaction with it.
                let _ = self.client.batch_execute("ROLLBACK").await;
                Err(error)
            }
        }
    }

    async fn drop_each(&self, statements: &[String]) -> Result<usize> {
        let mut count = 0;
        for statement in statements {
            let guarded = format!("SAVEPOINT before_drop;\n{statement}\n;RELEASE SAVEPOINT before_drop");
            let Err(error) = self.client.batch_execute(&guarded).await else {
                count += 1;
                continue;
            };
            let state = error.code().map(tokio_postgres::error::SqlState::code);
            if !state.is_some_and(|state| UNDEFINED.contains(&state)) {
                let why = self.error("cannot drop what is in the way", &error);
                let text = format!("{} ({})", why.message(), statement.trim());
                return Err(Error::new(Code::RestoreErr, text).hint(match state {
                    Some("2BP01") => "something that is not in the backup depends on it: drop that yourself first",
                    Some("53200") => "raise max_locks_per_transaction on the target: all is dropped in one transaction",
                    Some("42501") => "restore as a role that owns what is to be dropped",
                    _ => "nothing was dropped",
                }));
            }
            self.run("ROLLBACK TO SAVEPOINT before_drop; RELEASE SAVEPOINT before_drop")
                .await?;
        }
        Ok(count)
    }
}
