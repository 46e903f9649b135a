//! The server's inventory for `system_info.json`: what a restore needs to know about the server of the backup. It
//! contains no secrets.

use serde_json::{Map, Value, json};

use super::Session;

/// Settings that change what a restored database does or needs.
const SETTINGS: &str = "'server_encoding', 'lc_collate', 'lc_ctype', 'lc_messages', 'lc_monetary', 'lc_numeric', \
    'lc_time', 'TimeZone', 'DateStyle', 'IntervalStyle', 'default_text_search_config', 'block_size', 'wal_block_size', \
    'wal_segment_size', 'data_checksums', 'wal_level', 'max_connections', 'max_wal_senders', 'max_replication_slots', \
    'max_prepared_transactions', 'max_locks_per_transaction', 'max_worker_processes', 'shared_buffers', 'work_mem', \
    'maintenance_work_mem', 'effective_cache_size', 'shared_preload_libraries', 'session_preload_libraries', \
    'hot_standby', 'synchronous_commit', 'fsync', 'full_page_writes', 'archive_mode', 'autovacuum', 'jit', 'ssl', \
    'password_encryption', 'row_security', 'integer_datetimes', 'max_identifier_length', 'rds.extensions', \
    'rds.logical_replication', 'standard_conforming_strings', 'bytea_output', 'default_toast_compression', \
    'default_table_access_method'";

/// pgstow asks each question separately. A question that an old server does not know, or that the role may not ask,
/// is left out and named under `unavailable`.
const QUESTIONS: &[(&str, u32, &str)] = &[
    ("version", 0, "SELECT pg_catalog.to_jsonb(pg_catalog.version())"),
    (
        "database",
        0,
        "SELECT pg_catalog.jsonb_build_object('name', datname, 'encoding', pg_catalog.pg_encoding_to_char(encoding), 'collate', datcollate,
                'ctype', datctype, 'owner', pg_catalog.pg_get_userbyid(datdba), 'connection_limit', datconnlimit)
         FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()",
    ),
    (
        "locale",
        15,
        "SELECT pg_catalog.jsonb_build_object('provider', CASE d->>'datlocprovider' WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin'
                WHEN 'c' THEN 'libc' ELSE d->>'datlocprovider' END,
                'locale', coalesce(d->>'datlocale', d->>'daticulocale'), 'collation_version', d->>'datcollversion')
         FROM (SELECT pg_catalog.to_jsonb(x) AS d FROM pg_catalog.pg_database x WHERE datname = pg_catalog.current_database()) AS y",
    ),
    (
        "databases",
        0,
        "SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('name', datname, 'bytes',
                CASE WHEN pg_catalog.has_database_privilege(oid, 'CONNECT') THEN pg_catalog.pg_database_size(oid) END) ORDER BY datname)
         FROM pg_catalog.pg_database WHERE datallowconn",
    ),
    (
        "extensions",
        0,
        "SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('name', extname, 'version', extversion, 'schema', nspname)
                ORDER BY extname), '[]')
         FROM pg_catalog.pg_extension JOIN pg_catalog.pg_namespace n ON n.oid = extnamespace",
    ),
    (
        "tablespaces",
        0,
        "SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('name', spcname, 'location', pg_catalog.pg_tablespace_location(oid)) ORDER BY spcname)
         FROM pg_catalog.pg_tablespace",
    ),
    (
        "objects",
        0,
        "SELECT pg_catalog.jsonb_build_object('tables', pg_catalog.count(*) FILTER (WHERE relkind = 'r'),
                'partitioned_tables', pg_catalog.count(*) FILTER (WHERE relkind = 'p'),
                'foreign_tables', pg_catalog.count(*) FILTER (WHERE relkind = 'f'),
                'views', pg_catalog.count(*) FILTER (WHERE relkind = 'v'),
                'materialized_views', pg_catalog.count(*) FILTER (WHERE relkind = 'm'),
                'indexes', pg_catalog.count(*) FILTER (WHERE relkind IN ('i', 'I')),
                'sequences', pg_catalog.count(*) FILTER (WHERE relkind = 'S'))
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
         WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND nspname !~ '^pg_(toast|temp)'",
    ),
    (
        "large_objects",
        0,
        "SELECT pg_catalog.to_jsonb(pg_catalog.count(*)) FROM pg_catalog.pg_largeobject_metadata",
    ),
    (
        "replication",
        0,
        "SELECT pg_catalog.jsonb_build_object('role', CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'standby' ELSE 'primary' END)",
    ),
    (
        "started_at",
        0,
        "SELECT pg_catalog.to_jsonb(pg_catalog.pg_postmaster_start_time() AT TIME ZONE 'UTC')",
    ),
];

impl Session {
    /// Never fails as a whole, because a backup does not depend on it.
    pub async fn system_info(&self) -> Value {
        let mut info = Map::new();
        let mut unavailable = Map::new();
        info.insert("server".into(), json!(self.server));
        // This session sets two of them itself, so take their reset values.
        let settings = format!(
            "SELECT pg_catalog.jsonb_object_agg(name,
                    CASE WHEN name IN ('DateStyle', 'IntervalStyle') THEN reset_val ELSE setting END || coalesce(' ' || unit, ''))
             FROM pg_catalog.pg_settings WHERE name IN ({SETTINGS})"
        );
        let questions = QUESTIONS.iter().copied().chain([("settings", 0, settings.as_str())]);
        for (name, since, question) in questions {
            if self.server.major < since {
                continue;
            }
            // As text, so that the driver does not need to know the type.
            let question = format!("SELECT x::pg_catalog.text FROM ({question}) AS answer (x)");
            match self.ask(&question).await {
                Ok(answer) => info.insert(name.into(), answer),
                Err(why) => unavailable.insert(name.into(), Value::String(why)),
            };
        }
        if !unavailable.is_empty() {
            info.insert("unavailable".into(), Value::Object(unavailable));
        }
        Value::Object(info)
    }

    /// The part of it that says how the database sorts and encodes text.
    pub async fn locale_info(&self) -> Value {
        let mut info = Map::new();
        for (name, since, question) in QUESTIONS {
            if ["database", "locale"].contains(name) && self.server.major >= *since {
                let question = format!("SELECT x::pg_catalog.text FROM ({question}) AS answer (x)");
                info.extend(
                    self.ask(&question)
                        .await
                        .ok()
                        .map(|answer| ((*name).to_owned(), answer)),
                );
            }
        }
        Value::Object(info)
    }

    async fn ask(&self, question: &str) -> Result<Value, String> {
        let row = self
            .attempt(question)
            .await
            .map_err(|error| match error.as_db_error() {
                Some(server) => self.redactor.clean(server.message()),
                None => error.to_string(),
            })?;
        let text: Option<String> = match row {
            Some(row) => row.try_get(0).map_err(|error| error.to_string())?,
            None => None,
        };
        text.map_or(Ok(Value::Null), |text| {
            serde_json::from_str(&text).map_err(|error| error.to_string())
        })
    }
}
