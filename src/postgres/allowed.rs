//! What the session's role may do, found by trying it in a transaction that is rolled back: on a managed service the
//! master user may do things for which elsewhere a role must be a superuser.

use std::collections::BTreeSet;

use tokio_postgres::error::SqlState;

use super::quoting::{identifier, literal};
use super::{Named, Session};
use crate::error::Result;

/// The error for a role that is no superuser and whose connection has no password.
const PASSWORD_IS_REQUIRED: &str = "2F003";
const TRUSTS_SINCE: u32 = 13;
/// Begins a transaction that is rolled back.
pub(super) const QUIETLY: &str = "BEGIN; SET LOCAL client_min_messages = error; SET LOCAL lock_timeout = '10s'";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed<'a> {
    /// A publication of all tables, or of all tables in a schema.
    PublishAll,
    /// A subscription with this connection. Only a superuser may make one that requires no password.
    Subscribe {
        connection: &'a str,
        password_required: bool,
    },
    /// An event trigger.
    WatchEvents,
    /// An extension of this name, in this schema if the schema exists.
    Extend {
        name: &'a str,
        schema: &'a str,
    },
    /// A function marked `LEAKPROOF`.
    Leakproof,
    /// A function with a planner support function.
    Support,
    /// A function in an untrusted language with this name.
    Program(&'a str),
    /// A function that sets this parameter.
    SetParameter(&'a str),
    /// Operator classes and families.
    OperatorClass,
    /// A base type.
    BaseType,
    /// A cast `WITHOUT FUNCTION`.
    CastAsIs,
    /// A cast between two of PostgreSQL's own types.
    CastOfOwn,
    /// A transform of one of PostgreSQL's own types for a language.
    TransformOfOwn,
    /// An aggregate whose state has the type `internal`.
    AggregateInternal,
    /// A language with its own handler.
    Language,
    ForeignDataWrapper,
    AccessMethod,
    /// Parsers and templates of text search.
    TextSearch,
}

/// Objects of this database that belong to roles as which this role may not act.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Foreign {
    pub extensions: BTreeSet<String>,
    /// The schema `public`.
    pub public: bool,
}

fn temporary(rest: &str) -> String {
    format!("CREATE FUNCTION pg_temp.pgstow_asks() RETURNS pg_catalog.int4 {rest}")
}

impl Session {
    /// Tries it, and leaves nothing behind.
    pub async fn may(&self, deed: Deed<'_>) -> Result<bool> {
        let statements = match deed {
            Deed::PublishAll => "CREATE PUBLICATION pgstow_asks FOR ALL TABLES".to_owned(),
            Deed::Subscribe {
                connection,
                password_required,
            } => {
                let waived = if password_required { "" } else { ", password_required = false" };
                format!(
                    "CREATE SUBSCRIPTION pgstow_asks CONNECTION {} PUBLICATION pgstow_asks
                     WITH (connect = false, slot_name = NONE, enabled = false, create_slot = false{waived})",
                    literal(connection)
                )
            }
            Deed::WatchEvents => "CREATE FUNCTION pg_temp.pgstow_asks() RETURNS pg_catalog.event_trigger
                 LANGUAGE plpgsql AS 'BEGIN END';
                 CREATE EVENT TRIGGER pgstow_asks ON sql_drop EXECUTE FUNCTION pg_temp.pgstow_asks()"
                .to_owned(),
            // If there is no schema to make it in, the server reports that before it checks privileges.
            Deed::Extend { name, schema } => format!(
                "SET LOCAL search_path TO {}, public; CREATE EXTENSION {} CASCADE",
                identifier(schema),
                identifier(name)
            ),
            Deed::Support => {
                temporary("LANGUAGE sql SUPPORT pg_catalog.generate_series_int4_support AS 'SELECT 1'")
            }
            Deed::Leakproof => temporary("LANGUAGE sql LEAKPROOF AS 'SELECT 1'"),
            Deed::Program(language) => temporary(&format!("LANGUAGE {} AS 'pgstow', 'asks'", identifier(language))),
            Deed::SetParameter(name) => temporary(&format!(
                "LANGUAGE sql SET {} TO DEFAULT AS 'SELECT 1'",
                identifier(name)
            )),
            Deed::OperatorClass => "CREATE OPERATOR FAMILY pg_temp.pgstow_asks USING btree".to_owned(),
            Deed::BaseType => "CREATE TYPE pg_temp.pgstow_asks".to_owned(),
            Deed::CastAsIs => "CREATE CAST (pg_catalog.int4 AS pg_catalog.xml) WITHOUT FUNCTION".to_owned(),
            Deed::CastOfOwn => "CREATE CAST (pg_catalog.int4 AS pg_catalog.xml) WITH INOUT".to_owned(),
            Deed::TransformOfOwn => "CREATE TRANSFORM FOR pg_catalog.int4 LANGUAGE sql
                 (FROM SQL WITH FUNCTION pg_catalog.prsd_lextype(pg_catalog.internal))"
                .to_owned(),
            Deed::AggregateInternal => "CREATE AGGREGATE pg_temp.pgstow_asks (pg_catalog.int8)
                 (SFUNC = pg_catalog.int8_avg_accum, STYPE = pg_catalog.internal, FINALFUNC = pg_catalog.numeric_poly_avg)"
                .to_owned(),
            Deed::Language => "CREATE LANGUAGE pgstow_asks HANDLER pg_catalog.plpgsql_call_handler".to_owned(),
            Deed::ForeignDataWrapper => "CREATE FOREIGN DATA WRAPPER pgstow_asks".to_owned(),
            Deed::AccessMethod => "CREATE ACCESS METHOD pgstow_asks TYPE INDEX HANDLER pg_catalog.bthandler".to_owned(),
            Deed::TextSearch => {
                "CREATE TEXT SEARCH TEMPLATE pg_temp.pgstow_asks (LEXIZE = pg_catalog.dsimple_lexize)".to_owned()
            }
        };
        // Without the privilege to make temporary objects, these trials show nothing.
        if statements.contains("pg_temp.") && deed != Deed::WatchEvents && !self.may_make_temporary().await? {
            return Ok(true);
        }
        let failed = |error| self.error("cannot ask what the role may do", &error);
        self.client.batch_execute(QUIETLY).await.map_err(failed)?;
        let done = self.client.batch_execute(&statements).await;
        self.client.batch_execute("ROLLBACK").await.map_err(failed)?;
        let Some(said) = done.err().and_then(|error| error.code().cloned()) else {
            return Ok(true);
        };
        // Every other error says nothing about the role.
        let refuses = match deed {
            Deed::Subscribe { .. } => said.code() == PASSWORD_IS_REQUIRED,
            Deed::AggregateInternal => said == SqlState::INVALID_FUNCTION_DEFINITION,
            _ => false,
        };
        Ok(!refuses && said != SqlState::INSUFFICIENT_PRIVILEGE)
    }

    /// Whether the server accepts the statement. It leaves nothing behind.
    pub(super) async fn takes(&self, statement: &str) -> Result<bool> {
        let failed = |error| self.error("cannot ask what the role may do", &error);
        self.client.batch_execute(QUIETLY).await.map_err(failed)?;
        let done = self.client.batch_execute(statement).await;
        self.client.batch_execute("ROLLBACK").await.map_err(failed)?;
        match done {
            Err(error) if error.code().is_none() => Err(failed(error)),
            done => Ok(done.is_ok()),
        }
    }

    /// Whether PostgreSQL lets only superusers make this extension, in every database.
    pub async fn is_for_superusers(&self, extension: &str) -> Result<bool> {
        // Older servers have no trusted extensions.
        let trusted = match self.server.major {
            TRUSTS_SINCE.. => "v.trusted",
            _ => "false",
        };
        let question = format!(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_available_extension_versions v
               JOIN pg_catalog.pg_available_extensions e
                 ON e.name OPERATOR(pg_catalog.=) v.name AND e.default_version OPERATOR(pg_catalog.=) v.version
              WHERE v.name OPERATOR(pg_catalog.=) $1 AND v.superuser AND NOT {trusted})"
        );
        let row = self.client.query_one(&question, &[&extension]).await;
        row.and_then(|row| row.try_get(0))
            .map_err(|error| self.error("cannot look at the extensions", &error))
    }

    /// Which of these objects, each with its schema, exist when these extensions are installed. It leaves nothing
    /// behind. `None` if one of the extensions cannot be made here.
    pub async fn exist_with(&self, extensions: &[(&str, String)], asked: &[Named<'_>]) -> Result<Option<Vec<bool>>> {
        let failed = |error| self.error("cannot ask what extensions make", &error);
        let schemas = self.lacking_schemas(extensions).await?;
        let making: Vec<String> = extensions
            .iter()
            .map(|(name, schema)| {
                format!(
                    "SET LOCAL search_path TO {}, public; CREATE EXTENSION IF NOT EXISTS {};",
                    identifier(schema),
                    identifier(name)
                )
            })
            .collect();
        let schemas: Vec<String> = schemas
            .iter()
            .map(|name| format!("CREATE SCHEMA {};", identifier(name)))
            .collect();
        let making = format!("{}{} SET LOCAL search_path TO ''", schemas.concat(), making.concat());
        self.client.batch_execute(QUIETLY).await.map_err(failed)?;
        let there = match self.client.batch_execute(&making).await {
            Ok(()) => self.exist_as_granted(asked).await.map(Some),
            Err(error) if error.code().is_some() => Ok(None),
            Err(error) => Err(failed(error)),
        };
        self.client.batch_execute("ROLLBACK").await.map_err(failed)?;
        there
    }

    /// Schemas of these extensions that do not exist: an extension would be made in another one.
    async fn lacking_schemas<'a>(&self, extensions: &'a [(&str, String)]) -> Result<BTreeSet<&'a str>> {
        let schemas: BTreeSet<&str> = extensions.iter().map(|(_, schema)| schema.as_str()).collect();
        let schemas: Vec<&str> = schemas.into_iter().collect();
        let asked: Vec<Named<'_>> = schemas
            .iter()
            .map(|schema| Named {
                kind: "SCHEMA",
                schema: "",
                name: schema,
            })
            .collect();
        let there = self.exist(&asked).await?;
        let lacking = schemas.into_iter().zip(there).filter(|(_, there)| !there);
        Ok(lacking.map(|(schema, _)| schema).collect())
    }

    /// Finds functions also by the names of their arguments, which GRANT statements contain.
    async fn exist_as_granted(&self, asked: &[Named<'_>]) -> Result<Vec<bool>> {
        let failed = |error| self.error("cannot look for functions", &error);
        let there = self.exist(asked).await?;
        let schemas: Vec<&str> = asked.iter().map(|named| named.schema).collect();
        let names: Vec<&str> = asked.iter().map(|named| named.name).collect();
        let question = "SELECT EXISTS (SELECT FROM pg_catalog.pg_proc p
               JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
              WHERE n.nspname OPERATOR(pg_catalog.=) asked.schema
                AND pg_catalog.concat(p.proname, '(', pg_catalog.pg_get_function_identity_arguments(p.oid), ')')
                      OPERATOR(pg_catalog.=) asked.name)
             FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]))
                  WITH ORDINALITY AS asked (schema, name, at)
            ORDER BY at";
        let rows = self.client.query(question, &[&schemas, &names]).await.map_err(failed)?;
        let mut granted = Vec::new();
        for (row, there) in rows.iter().zip(there) {
            granted.push(there || row.try_get(0).map_err(failed)?);
        }
        Ok(granted)
    }

    /// Which of PostgreSQL's own tables and views the role may not read.
    pub async fn hidden_catalogs(&self) -> Result<BTreeSet<String>> {
        let failed = |error| self.error("cannot ask what the role may read", &error);
        let question = "SELECT c.relname::pg_catalog.text FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
             WHERE n.nspname OPERATOR(pg_catalog.=) 'pg_catalog'
               AND c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'v']::pg_catalog.\"char\"[])
               AND NOT pg_catalog.has_any_column_privilege(c.oid, 'SELECT')";
        let rows = self.client.query(question, &[]).await.map_err(failed)?;
        let read = rows
            .iter()
            .map(|row| row.try_get(0))
            .collect::<std::result::Result<_, _>>();
        read.map_err(failed)
    }

    pub(super) async fn may_make_temporary(&self) -> Result<bool> {
        let sql = "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMP')";
        let row = self.client.query_one(sql, &[]).await;
        row.and_then(|row| row.try_get(0))
            .map_err(|error| self.error("cannot ask what the role may do", &error))
    }

    /// Which of these subscriptions have a replication slot: no transaction can drop these.
    pub async fn with_slots(&self, names: &[&str]) -> Result<Vec<String>> {
        let sql = "SELECT subname::pg_catalog.text FROM pg_catalog.pg_subscription
             WHERE subname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($1) AND subslotname IS NOT NULL
               AND subdbid OPERATOR(pg_catalog.=) (SELECT oid FROM pg_catalog.pg_database
                 WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) ORDER BY 1";
        let failed = |error| self.error("cannot look for subscriptions", &error);
        let rows = self.client.query(sql, &[&names]).await.map_err(failed)?;
        let read = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>();
        read.map_err(failed)
    }

    /// Whether another role may make objects in a schema, or schemas in the database. A schema that does not exist
    /// counts as allowed.
    pub async fn may_create(&self, role: &str, schema: Option<&str>) -> Result<bool> {
        let row = match schema {
            Some(schema) => {
                let sql = "SELECT COALESCE(pg_catalog.bool_and(
                      pg_catalog.has_schema_privilege($1::pg_catalog.text::pg_catalog.name, oid, 'CREATE')), true)
                    FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) $2";
                self.client.query_one(sql, &[&role, &schema]).await
            }
            None => {
                let sql = "SELECT pg_catalog.has_database_privilege($1::pg_catalog.text::pg_catalog.name,
                    pg_catalog.current_database(), 'CREATE')";
                self.client.query_one(sql, &[&role]).await
            }
        };
        row.and_then(|row| row.try_get(0))
            .map_err(|error| self.error("cannot ask what a role may do", &error))
    }

    /// Whether this session's role may give objects to another role and keep control over them: it is a member that
    /// inherits. `false` if there is no such role.
    pub async fn stands_for(&self, role: &str) -> Result<bool> {
        // Since 16 a membership may exclude the right to act as the role.
        let acting = match self.server.major {
            16.. => "SET",
            _ => "MEMBER",
        };
        let question = format!(
            "SELECT pg_catalog.pg_has_role(oid, 'USAGE') AND pg_catalog.pg_has_role(oid, '{acting}')
               FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) $1"
        );
        let row = self.client.query_opt(&question, &[&role]).await;
        row.and_then(|row| row.map_or(Ok(false), |row| row.try_get(0)))
            .map_err(|error| self.error("cannot ask what a role may do", &error))
    }

    /// Whether an existing role has the privileges of another role, or is that role.
    pub async fn has_rights_of(&self, role: &str, of: &str) -> Result<bool> {
        let question = "SELECT pg_catalog.pg_has_role($1::pg_catalog.text::pg_catalog.name, oid, 'USAGE')
               FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) $2";
        let row = self.client.query_opt(question, &[&role, &of]).await;
        row.and_then(|row| row.map_or(Ok(false), |row| row.try_get(0)))
            .map_err(|error| self.error("cannot ask what a role may do", &error))
    }

    /// Existing objects that this role may not change.
    pub async fn foreign(&self) -> Result<Foreign> {
        let failed = |error| self.error("cannot look at the target", &error);
        let rows = self
            .client
            .query(
                "SELECT extname::pg_catalog.text, true FROM pg_catalog.pg_extension
                 WHERE NOT pg_catalog.pg_has_role(extowner, 'USAGE')
                 UNION ALL SELECT nspname::pg_catalog.text, false FROM pg_catalog.pg_namespace
                 WHERE nspname OPERATOR(pg_catalog.=) 'public' AND NOT pg_catalog.pg_has_role(nspowner, 'USAGE')",
                &[],
            )
            .await
            .map_err(failed)?;
        let mut foreign = Foreign::default();
        for row in rows {
            let (name, is_extension): (String, bool) =
                (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
            match is_extension {
                true => drop(foreign.extensions.insert(name)),
                false => foreign.public = true,
            }
        }
        Ok(foreign)
    }
}
