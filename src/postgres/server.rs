//! What the server reports about itself, and what each of pgstow's sessions sets first.

use serde::Serialize;
use tokio_postgres::Client;

/// About the server, and the database of the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerInfo {
    /// As the server prints it: `15.18 (Debian 15.18-0+deb12u1)`.
    pub version: String,
    /// 150018.
    pub version_num: u32,
    pub major: u32,
    /// The database's own encoding.
    pub encoding: String,
    /// The cluster's identifier; `None` if the role may not ask.
    pub system_identifier: Option<String>,
    /// This database's OID; a copy on another server seldom has the same one.
    pub database_oid: u32,
    pub in_recovery: bool,
    pub database: String,
    pub user: String,
    /// Settings (`name=value`) that change how data is written, that pg_dump does not set, and that have another
    /// value here than a backup needs.
    #[serde(skip)]
    pub to_settle: Vec<String>,
    #[serde(skip)]
    pub language: Language,
    #[serde(skip)]
    pub is_superuser: bool,
    /// Whether this database has any.
    #[serde(skip)]
    pub has_event_triggers: bool,
}

/// The language of the server's messages. pgstow never reads their meaning from their words, but PostgreSQL's
/// programs pass on only words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    #[default]
    English,
    /// Not English, unless a session of this login sets it.
    UntilSet,
    Foreign,
}

/// The setting that makes messages English.
pub(super) const ENGLISH: &str = "lc_messages=C";

/// The setting that switches event triggers off. Servers before 17 do not have it.
pub(super) const EVENT_TRIGGERS: &str = "event_triggers";

impl Language {
    fn of(locale: &str) -> Self {
        let english = matches!(locale, "C" | "POSIX")
            || ["C.", "en_", "en-", "English"]
                .iter()
                .any(|start| locale.starts_with(start));
        if english { Self::English } else { Self::Foreign }
    }
}

/// The first statement of every session, sent alone. The database's owner can set a search_path on which their
/// functions, operators and types come before PostgreSQL's own. So this statement names its one function in full, and
/// uses no operator and no type.
pub(super) const EMPTY_SEARCH_PATH: &str = "SELECT pg_catalog.set_config('search_path', '', false)";

/// The same settings as pg_dump's own session has, for the same reasons: no default of the role or database may run
/// foreign code, change the data that pgstow reads, or end the session early.
///
/// One statement sets all of them, each setting only where this server has it. It also names its operator in full,
/// because a pooler may run it on another connection than the statement before.
pub(super) const SETTINGS: &str = "SELECT pg_catalog.set_config(wanted.name, wanted.value, false)
     FROM (VALUES
       ('datestyle', 'ISO'), ('intervalstyle', 'postgres'),
       ('extra_float_digits', '3'), ('synchronize_seqscans', 'off'), ('quote_all_identifiers', 'off'),
       ('standard_conforming_strings', 'on'), ('statement_timeout', '0'), ('lock_timeout', '0'),
       ('idle_in_transaction_session_timeout', '0'), ('idle_session_timeout', '0'),
       ('transaction_timeout', '0'), ('row_security', 'off'),
       ('restrict_nonsystem_relation_kind', 'view,foreign-table'),
       ('max_parallel_workers_per_gather', '0'), ('constraint_exclusion', 'off')
     ) AS wanted (name, value)
     JOIN pg_catalog.pg_settings AS known
       ON pg_catalog.lower(known.name) OPERATOR(pg_catalog.=) wanted.name";

pub(super) async fn prepare_session(client: &Client) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(SETTINGS).await
}

/// Returns to the database's values of the settings on which its checks, computed columns, indexes and views depend:
/// pg_restore's sessions have the database's values too. A function may read views, too.
pub(crate) const FOR_LOADING: &str =
    "SELECT pg_catalog.set_config(known.name, '', false) FROM pg_catalog.pg_settings AS known
     WHERE known.name OPERATOR(pg_catalog.=) 'restrict_nonsystem_relation_kind';
     RESET TimeZone; RESET DateStyle; RESET IntervalStyle; RESET extra_float_digits; RESET bytea_output";

pub(super) async fn identify(client: &Client) -> Result<ServerInfo, tokio_postgres::Error> {
    let row = client
        .query_one(
            "SELECT pg_catalog.current_setting('server_version'),
                    pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
                    pg_catalog.getdatabaseencoding()::pg_catalog.text, pg_catalog.pg_is_in_recovery(),
                    pg_catalog.current_database()::pg_catalog.text, current_user::pg_catalog.text,
                    r.rolsuper, EXISTS (SELECT FROM pg_catalog.pg_event_trigger),
                    (SELECT d.oid FROM pg_catalog.pg_database AS d
                     WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()),
                    pg_catalog.current_setting('lc_messages'),
                    (SELECT l.rolsuper FROM pg_catalog.pg_roles AS l WHERE l.rolname OPERATOR(pg_catalog.=) session_user)
             FROM pg_catalog.pg_roles AS r WHERE r.rolname OPERATOR(pg_catalog.=) current_user",
            &[],
        )
        .await?;
    // The values with which a session of this role starts, before pgstow's own settings.
    let to_settle = client
        .query(
            "SELECT pg_catalog.concat(wanted.name, '=', wanted.value)
             FROM (VALUES ('bytea_output', 'hex'), ('quote_all_identifiers', 'off')) AS wanted (name, value)
             JOIN pg_catalog.pg_settings AS known ON known.name OPERATOR(pg_catalog.=) wanted.name
              AND known.reset_val OPERATOR(pg_catalog.<>) wanted.value",
            &[],
        )
        .await?;
    let version_num = row.try_get::<_, i32>(1)?.unsigned_abs();
    let mut language = Language::of(row.try_get(9)?);
    if language == Language::Foreign && (row.try_get(10)? || may_set_language(client, version_num).await) {
        language = Language::UntilSet;
    }
    // Some managed services hide it from ordinary roles.
    let system_identifier = client
        .query_one(
            "SELECT system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system()",
            &[],
        )
        .await
        .ok()
        .and_then(|row| row.try_get(0).ok());
    Ok(ServerInfo {
        version: row.try_get(0)?,
        version_num,
        major: version_num / 10_000,
        encoding: row.try_get(2)?,
        system_identifier,
        database_oid: row.try_get(8)?,
        in_recovery: row.try_get(3)?,
        database: row.try_get(4)?,
        user: row.try_get(5)?,
        language,
        is_superuser: row.try_get(6)?,
        has_event_triggers: row.try_get(7)?,
        to_settle: to_settle.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?,
    })
}

/// For a role that is no superuser: the privilege must have been granted, which is possible since 15.
async fn may_set_language(client: &Client, version_num: u32) -> bool {
    let question = "SELECT pg_catalog.has_parameter_privilege(session_user, 'lc_messages', 'SET')";
    version_num >= 150_000
        && client
            .query_one(question, &[])
            .await
            .is_ok_and(|row| row.try_get(0).unwrap_or(false))
}
