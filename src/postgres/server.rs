//! What the server says of itself, and what each of our sessions sets first.

use serde::Serialize;
use tokio_postgres::Client;

/// Of one server and the database we are connected to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerInfo {
    /// As the server prints it: `15.18 (Debian 15.18-0+deb12u1)`.
    pub version: String,
    /// 150018.
    pub version_num: u32,
    pub major: u32,
    /// The database's own encoding.
    pub encoding: String,
    /// Of the cluster; `None` where the role may not ask.
    pub system_identifier: Option<String>,
    /// Of this database, which a copy on another server seldom has as well.
    pub database_oid: u32,
    pub in_recovery: bool,
    pub database: String,
    pub user: String,
    /// Settings (`name=value`) that change how data is written, that pg_dump does not set, and
    /// that are not here as we want them.
    #[serde(skip)]
    pub to_settle: Vec<String>,
    #[serde(skip)]
    pub language: Language,
    #[serde(skip)]
    pub is_superuser: bool,
    /// In this database.
    #[serde(skip)]
    pub has_event_triggers: bool,
}

/// Of the server's messages. What they mean is never read from their words, but PostgreSQL's programs pass on words alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    #[default]
    English,
    /// In another, until a session that this login begins sets it.
    UntilSet,
    Foreign,
}

/// What sets it.
pub(super) const ENGLISH: &str = "lc_messages=C";

/// The setting that switches event triggers off. Servers before 17 do not know it.
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

/// The first statement of every session, by itself. The database's owner can give us a search_path
/// on which functions, operators and types of theirs stand before PostgreSQL's own. This names its
/// one function in full, and has no operator and no type.
pub(super) const EMPTY_SEARCH_PATH: &str = "SELECT pg_catalog.set_config('search_path', '', false)";

/// What pg_dump sets in its own session, for the same reasons: nothing that the role or database
/// has as default may run code of others, change what we read, or end us early.
pub(super) async fn prepare_session(client: &Client) -> Result<(), tokio_postgres::Error> {
    // One statement for all others: a setting is set where this server has it. Its operator is named
    // in full as well: a pooler may give this statement to another connection than the one before.
    client
        .batch_execute(
            "SELECT pg_catalog.set_config(wanted.name, wanted.value, false)
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
               ON pg_catalog.lower(known.name) OPERATOR(pg_catalog.=) wanted.name",
        )
        .await
}

/// Gives back to the database what of it changes what checks, computed columns, indexes and views make of their values:
/// pg_restore's sessions have that from the database as well. A function may look at views, too.
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
    // The values with which a session of this role starts, whatever we have set since.
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
    // Some managed services keep it from ordinary roles.
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

/// As a role that is no superuser: somebody must have granted it, which can be done since 15.
async fn may_set_language(client: &Client, version_num: u32) -> bool {
    let question = "SELECT pg_catalog.has_parameter_privilege(session_user, 'lc_messages', 'SET')";
    version_num >= 150_000
        && client
            .query_one(question, &[])
            .await
            .is_ok_and(|row| row.try_get(0).unwrap_or(false))
}
