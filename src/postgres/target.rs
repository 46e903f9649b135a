//! What a restore must know about its target before it changes anything, and the few statements that it runs there
//! itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use tokio_postgres::error::SqlState;

use super::quoting::literal;
use super::refusal::classify;
use super::{Refusal, Session, Wire};
use crate::error::{Code, Error, Result};

/// The most objects that an error names.
const NAMED: i64 = 5;

/// The server and the database of the session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetSurvey {
    pub is_superuser: bool,
    /// Whether the role may make schemas in this database.
    pub may_create: bool,
    /// Of the database, unless it is a superuser.
    pub owner: Option<String>,
    pub may_create_roles: bool,
    /// Whether the role may make databases.
    pub may_create_databases: bool,
    /// The number of tables, functions, types, schemas and large objects that belong neither to the system nor to an
    /// extension; an empty `public` does not count.
    pub objects: u64,
    pub first_objects: Vec<String>,
    /// By name, whether this role may act as it, and so make it the owner of objects.
    pub roles: BTreeMap<String, bool>,
    /// By name, whether this role may create objects in it.
    pub tablespaces: BTreeMap<String, bool>,
    /// By name, whether it is installed in this database. The server may lack the files of one that is.
    pub extensions: BTreeMap<String, bool>,
    /// The number of locks that one transaction can count on.
    pub locks: u64,
    /// Known only if the server runs on this machine and shows its folder.
    pub free_bytes: Option<u64>,
    /// Settings of the database itself, each as `ROLE NAME=VALUE`; the value has no quotes and no spaces.
    pub settings: BTreeSet<String>,
}

/// An object whose existence is asked for, named as in an archive's table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named<'a> {
    pub kind: &'a str,
    pub schema: &'a str,
    pub name: &'a str,
}

/// The kind of an object that is looked up by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    Table,
    Type,
}

impl Session {
    pub async fn survey_target(&self) -> Result<TargetSurvey> {
        let failed = |error| self.error("cannot look at the target", &error);
        let about = self
            .client
            .query_one(
                "SELECT r.rolsuper, r.rolcreatedb, pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'),
                        pg_catalog.current_setting('max_locks_per_transaction')::pg_catalog.int8
                          * (pg_catalog.current_setting('max_connections')::pg_catalog.int8
                             + pg_catalog.current_setting('max_prepared_transactions')::pg_catalog.int8),
                        r.rolcreaterole,
                        (SELECT o.rolname::pg_catalog.text FROM pg_catalog.pg_database d
                           JOIN pg_catalog.pg_roles o ON o.oid OPERATOR(pg_catalog.=) d.datdba AND NOT o.rolsuper
                          WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
                 FROM pg_catalog.pg_roles r WHERE r.rolname = current_user",
                &[],
            )
            .await
            .map_err(failed)?;
        let texts = |rows: Vec<tokio_postgres::Row>| -> Result<BTreeSet<String>, tokio_postgres::Error> {
            rows.iter().map(|row| row.try_get(0)).collect()
        };
        let ask = |sql: &'static str| self.client.query(sql, &[]);
        let pairs = |rows: Vec<tokio_postgres::Row>| -> Result<BTreeMap<String, bool>, tokio_postgres::Error> {
            rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
        };
        // Since 16 a membership may exclude the right to act as the role.
        let acting = match self.server.major {
            16.. => {
                "SELECT rolname::pg_catalog.text, pg_catalog.pg_has_role(current_user, oid, 'SET') FROM pg_catalog.pg_roles"
            }
            _ => {
                "SELECT rolname::pg_catalog.text, pg_catalog.pg_has_role(current_user, oid, 'MEMBER') FROM pg_catalog.pg_roles"
            }
        };
        let roles = ask(acting).await.map_err(failed)?;
        // In the database's own one every role may create objects.
        let tablespaces = ask(
            "SELECT t.spcname::pg_catalog.text, pg_catalog.has_tablespace_privilege(t.oid, 'CREATE') OR EXISTS (
                      SELECT FROM pg_catalog.pg_database d WHERE d.dattablespace OPERATOR(pg_catalog.=) t.oid
                         AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
             FROM pg_catalog.pg_tablespace t",
        )
        .await
        .map_err(failed)?;
        let extensions = ask(
            "SELECT coalesce(a.name, e.extname)::pg_catalog.text, e.extname IS NOT NULL
             FROM pg_catalog.pg_available_extensions a FULL JOIN pg_catalog.pg_extension e ON e.extname = a.name",
        )
        .await
        .map_err(failed)?;
        let settings = ask(
            "SELECT coalesce((SELECT r.rolname::pg_catalog.text FROM pg_catalog.pg_roles r
                              WHERE r.oid OPERATOR(pg_catalog.=) setrole), '') || ' '
                    || pg_catalog.replace(pg_catalog.replace(pg_catalog.unnest(setconfig), '\"', ''), ' ', '')
             FROM pg_catalog.pg_db_role_setting
             WHERE setdatabase OPERATOR(pg_catalog.=)
               (SELECT oid FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database())",
        )
        .await
        .map_err(failed)?;
        let (objects, first_objects) = self.objects().await.map_err(failed)?;
        Ok(TargetSurvey {
            is_superuser: about.try_get(0).map_err(failed)?,
            may_create_databases: about.try_get(1).map_err(failed)?,
            may_create: about.try_get(2).map_err(failed)?,
            owner: about.try_get(5).map_err(failed)?,
            may_create_roles: about.try_get(4).map_err(failed)?,
            locks: about.try_get::<_, i64>(3).map_err(failed)?.unsigned_abs(),
            objects,
            first_objects,
            roles: pairs(roles).map_err(failed)?,
            tablespaces: pairs(tablespaces).map_err(failed)?,
            extensions: pairs(extensions).map_err(failed)?,
            free_bytes: self.free_bytes().await,
            settings: texts(settings).map_err(failed)?,
        })
    }

    /// Settings of the role, the database or the server that would stop a restore, or make its rows differ from those
    /// in the backup. Returns them with the values that the restore needs, `name=value`, and sets these values in
    /// this session.
    pub async fn settle_obstacles(&self) -> Result<Vec<String>> {
        let failed = |error| self.error("cannot look at the target's settings", &error);
        let rows = self
            .client
            .query(
                "SELECT known.name::pg_catalog.text, wanted.value::pg_catalog.text
                 FROM (VALUES ('array_nulls', 'on'), ('default_transaction_deferrable', 'off'),
                              ('default_transaction_isolation', 'read committed'), ('default_transaction_read_only', 'off'),
                              ('idle_in_transaction_session_timeout', '0'), ('idle_session_timeout', '0'),
                              ('lock_timeout', '0'), ('statement_timeout', '0'), ('transaction_timeout', '0'),
                              ('transform_null_equals', 'off')) AS wanted (name, value)
                 JOIN pg_catalog.pg_settings AS known ON known.name OPERATOR(pg_catalog.=) wanted.name
                  AND known.reset_val OPERATOR(pg_catalog.<>) wanted.value",
                &[],
            )
            .await
            .map_err(failed)?;
        let mut options = Vec::new();
        for row in &rows {
            let (name, value): (String, String) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
            self.execute(&format!("SET {name} = '{value}'")).await?;
            options.push(format!("{name}={}", value.replace(' ', "\\ ")));
        }
        Ok(options)
    }

    async fn objects(&self) -> Result<(u64, Vec<String>), tokio_postgres::Error> {
        let rows = self
            .client
            .query(
                "WITH here AS (
                   SELECT oid, nspname FROM pg_catalog.pg_namespace
                   WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND nspname !~ '^pg_(toast|temp)'
                 ), found AS (
                   SELECT 'relation' AS kind, 'pg_catalog.pg_class'::pg_catalog.regclass AS class, c.oid AS oid,
                          n.nspname || '.' || c.relname AS name
                     FROM pg_catalog.pg_class c JOIN here n ON n.oid = c.relnamespace WHERE c.relkind <> 'i'
                   UNION ALL
                   SELECT 'function', 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, n.nspname || '.' || p.proname || '()'
                     FROM pg_catalog.pg_proc p JOIN here n ON n.oid = p.pronamespace
                   UNION ALL
                   SELECT 'type', 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, n.nspname || '.' || t.typname
                     FROM pg_catalog.pg_type t JOIN here n ON n.oid = t.typnamespace WHERE t.typtype IN ('e', 'd', 'r')
                   UNION ALL
                   SELECT 'schema', 'pg_catalog.pg_namespace'::pg_catalog.regclass, oid, nspname FROM here WHERE nspname <> 'public'
                   UNION ALL
                   SELECT 'object', 'pg_catalog.pg_largeobject'::pg_catalog.regclass, oid, 'large object ' || oid
                     FROM pg_catalog.pg_largeobject_metadata
                 ), own AS (
                   SELECT name FROM found f WHERE NOT EXISTS (
                     SELECT FROM pg_catalog.pg_depend d
                     WHERE d.classid = f.class AND d.objid = f.oid AND d.deptype = 'e')
                 )
                 SELECT (SELECT pg_catalog.count(*) FROM own), name::pg_catalog.text FROM own ORDER BY name LIMIT $1",
                &[&NAMED],
            )
            .await?;
        let count = rows.first().map_or(Ok(0), |row| row.try_get::<_, i64>(0))?;
        let names = rows.iter().map(|row| row.try_get(1)).collect::<Result<_, _>>()?;
        Ok((count.unsigned_abs(), names))
    }

    /// The server's folder is recognised by the number in it that only its cluster has: a server in a container
    /// behind a local port may name a folder that exists here too.
    async fn free_bytes(&self) -> Option<u64> {
        let row = self
            .attempt("SELECT pg_catalog.current_setting('data_directory')")
            .await
            .ok()??;
        let folder: String = row.try_get(0).ok()?;
        let mut number = [0; 8];
        let control = Path::new(&folder).join("global/pg_control");
        File::open(control).ok()?.read_exact(&mut number).ok()?;
        if u64::from_ne_bytes(number).to_string() != *self.server.system_identifier.as_ref()? {
            return None;
        }
        let disk = rustix::fs::statvfs(folder).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Whether the database exists and no drop of it was begun: the server marks a database before it drops it.
    pub async fn is_whole(&self, name: &str) -> Result<bool> {
        let question = "SELECT datconnlimit OPERATOR(pg_catalog.<>) -2 FROM pg_catalog.pg_database
             WHERE datname OPERATOR(pg_catalog.=) $1";
        let row = self.client.query_opt(question, &[&name]).await;
        row.and_then(|row| row.map_or(Ok(false), |row| row.try_get(0)))
            .map_err(|error| self.error("cannot look for the database", &error))
    }

    /// Runs one statement, or several, each in its own transaction.
    pub async fn execute(&self, statement: &str) -> Result<()> {
        self.client
            .batch_execute(statement)
            .await
            .map_err(|error| self.refused(&error))
    }

    /// Runs a statement that makes something again; it is no error if it exists already. `joined` is an inheritance
    /// child or partition and the table under which it belongs.
    pub(crate) async fn again(&self, statement: &str, joined: Option<&(String, String)>) -> Result<()> {
        match self.client.batch_execute(statement).await {
            Err(error) if error.code().is_some_and(is_presence) => Ok(()),
            Err(error) => match joined {
                // The server's error is the same for a partition that is attached already and for a table that takes
                // no partitions.
                Some(pair) if self.is_joined(pair).await? => Ok(()),
                _ => Err(self.refused(&error)),
            },
            Ok(()) => Ok(()),
        }
    }

    /// Whether an operator exists for exactly these types, written as by `regoperator`. Another operator may have its
    /// name.
    pub async fn has_operator(&self, operator: &str) -> Result<bool> {
        let question = "SELECT pg_catalog.to_regoperator($1::pg_catalog.text) IS NOT NULL";
        match self.client.query_one(question, &[&operator]).await {
            // Older servers refuse a type that does not exist.
            Err(error) if error.code().is_some() => Ok(false),
            row => row
                .and_then(|row| row.try_get(0))
                .map_err(|error| self.error("cannot look for an operator", &error)),
        }
    }

    /// The OIDs of these indexes (schema and name), by which the server knows their ages: the oldest has the lowest.
    /// `None` for an index that does not exist.
    pub async fn ages(&self, indexes: &[[String; 2]]) -> Result<Vec<Option<u32>>> {
        let (schemas, names): (Vec<&str>, Vec<&str>) = indexes
            .iter()
            .map(|[schema, name]| (schema.as_str(), name.as_str()))
            .unzip();
        let question = "SELECT (SELECT c.oid FROM pg_catalog.pg_class c
                                JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
                                WHERE n.nspname OPERATOR(pg_catalog.=) u.schema
                                AND c.relname OPERATOR(pg_catalog.=) u.name)
                        FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]))
                          WITH ORDINALITY AS u (schema, name, at)
                        ORDER BY u.at";
        let rows = self.client.query(question, &[&schemas, &names]).await;
        let ages = rows.and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect());
        ages.map_err(|error| self.error("cannot look for indexes", &error))
    }

    /// Which of these objects exist here. Objects of unknown kinds count as existing: the server itself will report
    /// what it lacks.
    pub async fn exist(&self, asked: &[Named<'_>]) -> Result<Vec<bool>> {
        let column = |of: fn(&Named<'_>) -> String| asked.iter().map(of).collect::<Vec<_>>();
        let kinds = column(|named| named.kind.to_owned());
        let schemas = column(|named| named.schema.to_owned());
        let names = column(|named| named.name.to_owned());
        let rows = self
            .client
            .query(
                "SELECT CASE
                   WHEN kind = 'SCHEMA' THEN EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = name)
                   WHEN kind = 'EXTENSION' THEN EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = name)
                   WHEN kind = 'EVENT TRIGGER' THEN EXISTS (SELECT FROM pg_catalog.pg_event_trigger WHERE evtname = name)
                   WHEN kind = 'PROCEDURAL LANGUAGE' THEN EXISTS (SELECT FROM pg_catalog.pg_language WHERE lanname = name)
                   WHEN kind = 'FOREIGN DATA WRAPPER' THEN
                     EXISTS (SELECT FROM pg_catalog.pg_foreign_data_wrapper WHERE fdwname = name)
                   WHEN kind = 'SERVER' THEN EXISTS (SELECT FROM pg_catalog.pg_foreign_server WHERE srvname = name)
                   WHEN kind IN ('TYPE', 'SHELL TYPE', 'DOMAIN') THEN
                     EXISTS (SELECT FROM pg_catalog.pg_type WHERE typname = name AND typnamespace = n.oid)
                   WHEN kind IN ('TABLE', 'VIEW', 'MATERIALIZED VIEW', 'FOREIGN TABLE', 'SEQUENCE', 'INDEX') THEN
                     EXISTS (SELECT FROM pg_catalog.pg_class WHERE relname = name AND relnamespace = n.oid)
                   WHEN kind IN ('CONSTRAINT', 'CHECK CONSTRAINT', 'FK CONSTRAINT') THEN
                     EXISTS (SELECT FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_class r ON r.oid = c.conrelid
                             WHERE r.relnamespace = n.oid AND r.relname || ' ' || c.conname = name)
                   WHEN kind = 'TRIGGER' THEN
                     EXISTS (SELECT FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class r ON r.oid = t.tgrelid
                             WHERE r.relnamespace = n.oid AND r.relname || ' ' || t.tgname = name)
                   WHEN kind = 'POLICY' THEN
                     EXISTS (SELECT FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class r ON r.oid = p.polrelid
                             WHERE r.relnamespace = n.oid AND r.relname || ' ' || p.polname = name)
                   WHEN kind = 'COLLATION' THEN
                     EXISTS (SELECT FROM pg_catalog.pg_collation WHERE collname = name AND collnamespace = n.oid)
                   WHEN kind = 'TEXT SEARCH CONFIGURATION' THEN
                     EXISTS (SELECT FROM pg_catalog.pg_ts_config WHERE cfgname = name AND cfgnamespace = n.oid)
                   WHEN kind IN ('OPERATOR') THEN
                     EXISTS (SELECT FROM pg_catalog.pg_operator WHERE oprname = name AND oprnamespace = n.oid)
                   WHEN kind IN ('OPERATOR CLASS') THEN
                     EXISTS (SELECT FROM pg_catalog.pg_opclass WHERE opcname = name AND opcnamespace = n.oid)
                   WHEN kind IN ('OPERATOR FAMILY') THEN
                     EXISTS (SELECT FROM pg_catalog.pg_opfamily WHERE opfname = name AND opfnamespace = n.oid)
                   WHEN kind = 'CAST' THEN
                     EXISTS (SELECT FROM pg_catalog.pg_cast WHERE name = 'CAST (' || pg_catalog.format_type(castsource, NULL)
                             || ' AS ' || pg_catalog.format_type(casttarget, NULL) || ')')
                   WHEN kind = 'TEXT SEARCH DICTIONARY' THEN
                     EXISTS (SELECT FROM pg_catalog.pg_ts_dict WHERE dictname = name AND dictnamespace = n.oid)
                   WHEN kind IN ('FUNCTION', 'PROCEDURE', 'AGGREGATE') THEN
                     EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.pronamespace = n.oid
                             AND p.proname || '(' || pg_catalog.array_to_string(ARRAY(
                               SELECT pg_catalog.format_type(u.t, NULL)
                               FROM pg_catalog.unnest(p.proargtypes) WITH ORDINALITY AS u (t, at)
                               ORDER BY u.at), ', ') || ')' = name)
                   ELSE true END
                 FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]),
                                 pg_catalog.unnest($3::pg_catalog.text[]))
                      WITH ORDINALITY AS asked (kind, schema, name, at)
                 LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = asked.schema
                 ORDER BY at",
                &[&kinds, &schemas, &names],
            )
            .await
            .map_err(|error| self.error("cannot look at the target", &error))?;
        rows.iter()
            .map(|row| row.try_get(0))
            .collect::<Result<_, _>>()
            .map_err(|error| self.error("cannot look at the target", &error))
    }

    /// The OID of the object with this name, if it exists.
    pub async fn oid(&self, kind: ObjectKind, schema: &str, name: &str) -> Result<Option<u32>> {
        let sql = match kind {
            ObjectKind::Table => {
                "SELECT c.oid FROM pg_catalog.pg_class AS c
                 JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
                 WHERE c.relname OPERATOR(pg_catalog.=) $2 AND n.nspname OPERATOR(pg_catalog.=) $1"
            }
            ObjectKind::Type => {
                "SELECT t.oid FROM pg_catalog.pg_type AS t
                 JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) t.typnamespace
                 WHERE t.typname OPERATOR(pg_catalog.=) $2 AND n.nspname OPERATOR(pg_catalog.=) $1"
            }
        };
        let row = self.client.query_opt(sql, &[&schema, &name]).await;
        row.and_then(|row| row.map(|row| row.try_get(0)).transpose())
            .map_err(|error| self.error("cannot look at the target", &error))
    }

    /// The error for a statement of a restore that the server refused.
    pub(super) fn refused(&self, error: &tokio_postgres::Error) -> Error {
        let inner = classify(error, &self.redactor);
        let code = match inner.code() {
            Code::ConnErr if error.is_closed() => Code::ConnErr,
            Code::Permission => Code::Permission,
            _ => Code::RestoreErr,
        };
        let text = match error.as_db_error() {
            // A detail may contain values of a row.
            Some(server) => {
                let detail = server.detail().map(super::redaction::without_values);
                let detail = detail.map_or(String::new(), |detail| format!(" ({detail})"));
                self.redactor
                    .clean(&format!("the server says: {}{detail}", server.message()))
            }
            None => inner.message(),
        };
        Error::new(code, text)
    }
}

impl Wire {
    /// Whether the first is a partition or inheritance child of the second, both written as in a statement.
    pub(crate) async fn is_joined(&mut self, (child, parent): &(String, String)) -> Result<bool, Refusal> {
        let question = format!(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_inherits
               WHERE inhrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass({})
                 AND inhparent OPERATOR(pg_catalog.=) pg_catalog.to_regclass({}))",
            literal(child),
            literal(parent)
        );
        let rows = self.query(question.as_bytes()).await?;
        Ok(rows.first().and_then(|row| row.text(0)) == Some("t"))
    }
}

/// It is a member or an inheritance child already.
pub(crate) fn is_presence(state: &SqlState) -> bool {
    [SqlState::DUPLICATE_OBJECT, SqlState::DUPLICATE_TABLE].contains(state)
}

pub(super) fn is_absence(state: &SqlState) -> bool {
    [
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_OBJECT,
        SqlState::UNDEFINED_FUNCTION,
        SqlState::UNDEFINED_COLUMN,
        SqlState::INVALID_SCHEMA_NAME,
    ]
    .contains(state)
}
