//! Parses a statement of `globals.sql`, with an allow-list of what pg_dumpall writes about roles. A parsed statement
//! is written anew before it runs, so the server never gets a byte of the file's own syntax.

use std::collections::BTreeSet;

use crate::postgres::quoting::{identifier, literal};

/// What a statement asks for; [`wanted`] returns `None` for any other statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    Role(String),
    Attributes {
        role: String,
        attributes: Attributes,
    },
    Setting {
        role: String,
        database: Option<String>,
        name: String,
        values: Vec<String>,
    },
    Comment {
        role: String,
        text: Option<String>,
    },
    Membership(Membership),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attributes {
    /// Attributes that give power over the server: names as in SQL.
    pub privileged: Vec<&'static str>,
    /// The harmless attributes, as SQL, if they are not the default.
    pub plain: Vec<String>,
    /// As in the file.
    pub until: Option<String>,
    pub password: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Membership {
    pub granted: String,
    pub member: String,
    /// `ADMIN`, `INHERIT`, `SET`.
    pub options: Vec<(&'static str, bool)>,
    pub grantor: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// A bare word, in upper case.
    Word(String),
    /// In double quotes.
    Name(String),
    /// In single quotes.
    Text(String),
    Number(String),
    Sign(char),
}

pub(super) fn wanted(sql: &str) -> Option<Wanted> {
    let tokens = tokens(sql)?;
    let mut rest = Rest(&tokens);
    let wanted = match (rest.word()?, rest.peek()) {
        ("CREATE", "ROLE") => {
            rest.take("ROLE")?;
            Wanted::Role(rest.name()?)
        }
        ("ALTER", "ROLE") => {
            rest.take("ROLE")?;
            alteration(&mut rest)?
        }
        ("COMMENT", "ON") => {
            rest.take("ON")?;
            rest.take("ROLE")?;
            let role = rest.name()?;
            rest.take("IS")?;
            let text = match rest.take("NULL") {
                Some(()) => None,
                None => Some(rest.text()?),
            };
            Wanted::Comment { role, text }
        }
        ("GRANT", _) => Wanted::Membership(membership(&mut rest)?),
        _ => return None,
    };
    rest.0.is_empty().then_some(wanted)
}

fn alteration(rest: &mut Rest<'_>) -> Option<Wanted> {
    // `ALL` in quotes is a role like any other.
    if rest.peek() == "ALL" {
        return None;
    }
    let role = rest.name()?;
    if rest.take("WITH").is_some() {
        let attributes = attributes(rest)?;
        return Some(Wanted::Attributes { role, attributes });
    }
    let database = match rest.take("IN") {
        Some(()) => {
            rest.take("DATABASE")?;
            Some(rest.name()?)
        }
        None => None,
    };
    let (name, values) = assignment(rest)?;
    Some(Wanted::Setting {
        role,
        database,
        name,
        values,
    })
}

fn attributes(rest: &mut Rest<'_>) -> Option<Attributes> {
    let mut found = Attributes {
        privileged: Vec::new(),
        plain: Vec::new(),
        until: None,
        password: false,
    };
    while !rest.0.is_empty() {
        match rest.word()? {
            "SUPERUSER" => found.privileged.push("SUPERUSER"),
            "CREATEROLE" => found.privileged.push("CREATEROLE"),
            "REPLICATION" => found.privileged.push("REPLICATION"),
            "BYPASSRLS" => found.privileged.push("BYPASSRLS"),
            word @ ("LOGIN" | "CREATEDB" | "NOINHERIT") => found.plain.push(word.to_owned()),
            // The defaults of a new role.
            "NOSUPERUSER" | "NOCREATEROLE" | "NOREPLICATION" | "NOBYPASSRLS" | "NOLOGIN" | "NOCREATEDB" | "INHERIT" => {
            }
            "CONNECTION" => {
                rest.take("LIMIT")?;
                let number = rest.number()?;
                found.plain.push(format!("CONNECTION LIMIT {number}"));
            }
            "VALID" => {
                rest.take("UNTIL")?;
                let until = rest.text()?;
                found.plain.push(format!("VALID UNTIL {}", literal(&until)));
                found.until = Some(until);
            }
            "PASSWORD" => {
                rest.take("NULL").or_else(|| rest.text().map(drop))?;
                found.password = true;
            }
            _ => return None,
        }
    }
    Some(found)
}

fn membership(rest: &mut Rest<'_>) -> Option<Membership> {
    let granted = rest.name()?;
    rest.take("TO")?;
    let mut found = Membership {
        granted,
        member: rest.name()?,
        options: Vec::new(),
        grantor: None,
    };
    if rest.take("WITH").is_some() {
        loop {
            let option = match rest.word()? {
                "ADMIN" => "ADMIN",
                "INHERIT" => "INHERIT",
                "SET" => "SET",
                _ => return None,
            };
            let value = match rest.word()? {
                "OPTION" | "TRUE" => true,
                "FALSE" => false,
                _ => return None,
            };
            found.options.push((option, value));
            if rest.sign(',').is_none() {
                break;
            }
        }
    }
    if rest.take("GRANTED").is_some() {
        rest.take("BY")?;
        found.grantor = Some(rest.name()?);
    }
    Some(found)
}

impl Membership {
    /// The part of it that a server of this major version understands: before 16 only `ADMIN`. `None` if the
    /// membership would give more there than in the backup.
    pub fn for_major(&self, major: u32) -> Option<Self> {
        if major >= 16 {
            return Some(self.clone());
        }
        let mut known = self.clone();
        known.options.retain(|option| *option == ("ADMIN", true));
        (!self.options.contains(&("SET", false))).then_some(known)
    }

    /// PostgreSQL before 16 understands only `ADMIN`, with the word `OPTION`.
    pub fn sql(&self, with_grantor: bool) -> String {
        let mut sql = format!("GRANT {} TO {}", identifier(&self.granted), identifier(&self.member));
        for (number, (option, value)) in self.options.iter().enumerate() {
            let value = if *value { "OPTION" } else { "FALSE" };
            sql += &format!("{} {option} {value}", if number == 0 { " WITH" } else { "," });
        }
        if let (Some(grantor), true) = (&self.grantor, with_grantor) {
            sql += &format!(" GRANTED BY {}", identifier(grantor));
        }
        sql
    }
}

fn assignment(rest: &mut Rest<'_>) -> Option<(String, Vec<String>)> {
    rest.take("SET")?;
    let name = rest.setting()?;
    rest.take("TO").or_else(|| rest.sign('='))?;
    let mut values = vec![rest.text()?];
    while rest.sign(',').is_some() {
        values.push(rest.text()?);
    }
    Some((name, values))
}

/// A setting of a database as pg_dump writes it: its role, its name and its values.
pub(super) fn of_database(sql: &str) -> Option<(Option<String>, String, Vec<String>)> {
    if let Some(Wanted::Setting {
        role,
        database: Some(_),
        name,
        values,
    }) = wanted(sql)
    {
        return Some((Some(role), name, values));
    }
    let tokens = tokens(sql)?;
    let mut rest = Rest(&tokens);
    rest.take("ALTER")?;
    rest.take("DATABASE")?;
    rest.name()?;
    let (name, values) = assignment(&mut rest)?;
    rest.0.is_empty().then_some((None, name, values))
}

struct Rest<'t>(&'t [Token]);

impl<'t> Rest<'t> {
    fn next(&mut self) -> Option<&'t Token> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// The next bare word; empty if the next token is none.
    fn peek(&self) -> &'t str {
        match self.0.first() {
            Some(Token::Word(word)) => word,
            _ => "",
        }
    }

    fn word(&mut self) -> Option<&'t str> {
        match self.next()? {
            Token::Word(word) => Some(word),
            _ => None,
        }
    }

    fn take(&mut self, wanted: &str) -> Option<()> {
        if self.peek() != wanted {
            return None;
        }
        self.next().map(drop)
    }

    fn sign(&mut self, wanted: char) -> Option<()> {
        match self.0.first()? {
            Token::Sign(sign) if *sign == wanted => self.next().map(drop),
            _ => None,
        }
    }

    /// The server folds bare names to lower case. An empty name is not a name.
    fn name(&mut self) -> Option<String> {
        match self.next()? {
            Token::Word(word) => Some(word.to_ascii_lowercase()),
            Token::Name(name) if !name.is_empty() => Some(name.clone()),
            _ => None,
        }
    }

    /// One name, or several with dots between: `app.tenant`.
    fn setting(&mut self) -> Option<String> {
        let mut name = self.name()?;
        while self.sign('.').is_some() {
            name = format!("{name}.{}", self.name()?);
        }
        Some(name.to_ascii_lowercase())
    }

    fn text(&mut self) -> Option<String> {
        match self.next()? {
            Token::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<String> {
        let minus = if self.sign('-').is_some() { "-" } else { "" };
        match self.next()? {
            Token::Number(number) => Some(format!("{minus}{number}")),
            _ => None,
        }
    }
}

/// There are no comments, dollar quotes, Unicode escapes or operators: pg_dumpall needs none of them in these
/// statements, so a statement with any of them is not parsed.
fn tokens(sql: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            ' ' | '\t' | '\n' | '\r' => {
                rest = &rest[1..];
                continue;
            }
            '\'' => {
                let (text, length) = quoted(rest, '\'')?;
                // It depends on a setting whether a backslash is an escape.
                (Token::Text(text).into_plain()?, length)
            }
            'E' | 'e' if rest[1..].starts_with('\'') => {
                let (text, length) = escaped(&rest[1..])?;
                (Token::Text(text), length + 1)
            }
            '"' => {
                let (name, length) = quoted(rest, '"')?;
                (Token::Name(name), length)
            }
            'a'..='z' | 'A'..='Z' | '_' => {
                let length = word_length(rest);
                (Token::Word(rest[..length].to_ascii_uppercase()), length)
            }
            '0'..='9' => {
                let length = word_length(rest);
                let number = &rest[..length];
                if !number.bytes().all(|byte| byte.is_ascii_digit()) {
                    return None;
                }
                (Token::Number(number.to_owned()), length)
            }
            '-' if !rest[1..].starts_with('-') => (Token::Sign('-'), 1),
            ',' | '=' | '.' => (Token::Sign(first), 1),
            _ => return None,
        };
        rest = &rest[length..];
        // Two adjacent tokens can have another meaning, as in U&"…" or 'a''b'.
        let touches = rest.starts_with(['\'', '"', '$', '&']);
        if touches && !matches!(token, Token::Sign(_)) {
            return None;
        }
        // The server joins texts that follow each other.
        if let (Token::Text(_), Some(Token::Text(_))) = (&token, tokens.last()) {
            return None;
        }
        tokens.push(token);
    }
    Some(tokens)
}

impl Token {
    fn into_plain(self) -> Option<Self> {
        match &self {
            Token::Text(text) if text.contains('\\') => None,
            _ => Some(self),
        }
    }
}

/// Letters of other scripts too, so that no word ends where the server's word does not.
fn word_length(text: &str) -> usize {
    let in_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
    let length = text.find(|c| !in_word(c)).unwrap_or(text.len());
    // pg_dumpall quotes names with any other character.
    if text[..length]
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        length
    } else {
        // Longer than any token, so the character here is no token.
        1
    }
}

fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut inner = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            inner.push(c);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            inner.push(quote);
        } else {
            return Some((inner, at + 1));
        }
    }
    None
}

/// The text after an `E`: pg_dumpall escapes only backslashes.
fn escaped(text: &str) -> Option<(String, usize)> {
    let mut inner = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => {
                chars.next_if(|(_, next)| *next == '\\')?;
                inner.push('\\');
            }
            '\'' if chars.next_if(|(_, next)| *next == '\'').is_some() => inner.push('\''),
            '\'' => return Some((inner, at + 1)),
            _ => inner.push(c),
        }
    }
    None
}

/// Settings of a role that give it no power and load no code.
const HARMLESS: [&str; 112] = [
    "application_name",
    "array_nulls",
    "backend_flush_after",
    "bytea_output",
    "check_function_bodies",
    "client_connection_check_interval",
    "client_encoding",
    "client_min_messages",
    "constraint_exclusion",
    "cpu_index_tuple_cost",
    "cpu_operator_cost",
    "cpu_tuple_cost",
    "cursor_tuple_fraction",
    "datestyle",
    "default_statistics_target",
    "default_table_access_method",
    "default_tablespace",
    "default_text_search_config",
    "default_toast_compression",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "effective_cache_size",
    "effective_io_concurrency",
    "enable_async_append",
    "enable_bitmapscan",
    "enable_distinct_reordering",
    "enable_gathermerge",
    "enable_group_by_reordering",
    "enable_hashagg",
    "enable_hashjoin",
    "enable_incremental_sort",
    "enable_indexonlyscan",
    "enable_indexscan",
    "enable_material",
    "enable_memoize",
    "enable_mergejoin",
    "enable_nestloop",
    "enable_parallel_append",
    "enable_parallel_hash",
    "enable_partition_pruning",
    "enable_partitionwise_aggregate",
    "enable_partitionwise_join",
    "enable_presorted_aggregate",
    "enable_self_join_elimination",
    "enable_seqscan",
    "enable_sort",
    "enable_tidscan",
    "extra_float_digits",
    "from_collapse_limit",
    "geqo",
    "geqo_effort",
    "geqo_generations",
    "geqo_pool_size",
    "geqo_seed",
    "geqo_selection_bias",
    "geqo_threshold",
    "gin_fuzzy_search_limit",
    "gin_pending_list_limit",
    "hash_mem_multiplier",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "intervalstyle",
    "io_combine_limit",
    "jit",
    "jit_above_cost",
    "jit_inline_above_cost",
    "jit_optimize_above_cost",
    "join_collapse_limit",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "lock_timeout",
    "logical_decoding_work_mem",
    "maintenance_io_concurrency",
    "maintenance_work_mem",
    "max_parallel_maintenance_workers",
    "max_parallel_workers",
    "max_parallel_workers_per_gather",
    "min_parallel_index_scan_size",
    "min_parallel_table_scan_size",
    "parallel_leader_participation",
    "parallel_setup_cost",
    "parallel_tuple_cost",
    "plan_cache_mode",
    "quote_all_identifiers",
    "random_page_cost",
    "recursive_worktable_factor",
    "row_security",
    "search_path",
    "seq_page_cost",
    "statement_timeout",
    "synchronize_seqscans",
    "synchronous_commit",
    "tcp_keepalives_count",
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "tcp_user_timeout",
    "temp_buffers",
    "temp_tablespaces",
    "timezone",
    "timezone_abbreviations",
    "transaction_timeout",
    "vacuum_buffer_usage_limit",
    "vacuum_cost_delay",
    "vacuum_cost_limit",
    "vacuum_cost_page_dirty",
    "vacuum_cost_page_hit",
    "vacuum_cost_page_miss",
    "work_mem",
    "xmlbinary",
    "xmloption",
];

/// Prefixes of settings of libraries that are no extensions, or that have another name than their extension.
const LIBRARIES: [&str; 12] = [
    "auth_delay",
    "auto_explain",
    "basebackup_to_shell",
    "basic_archive",
    "passwordcheck",
    "pgaudit",
    "pljava",
    "plperl",
    "pltcl",
    "pltclu",
    "plv8",
    "sepgsql",
];

/// What a setting of a role can do to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Might {
    Harmless,
    /// It hides a session from the log, switches constraints off, or belongs to a library.
    Power,
    /// It loads code into each of the role's sessions, or switches them to another role.
    Code,
}

/// `libraries`: prefixes of settings that a library of the server has, or may have. A setting with another prefix
/// (`app.tenant`) is only a value that the application's own functions read.
pub(super) fn might(setting: &str, libraries: &BTreeSet<String>) -> Might {
    let prefix = setting.split_once('.').map(|(prefix, _)| prefix);
    if prefix.is_some_and(|prefix| !LIBRARIES.contains(&prefix) && !libraries.contains(prefix)) {
        return Might::Harmless;
    }
    if HARMLESS.binary_search(&setting).is_ok() {
        return Might::Harmless;
    }
    let marks = [
        "librar",
        "_path",
        "provider",
        "_init",
        "start_proc",
        "_command",
        "vmoptions",
        "libjvm",
        "classpath",
    ];
    if marks.iter().any(|mark| setting.contains(mark)) || matches!(setting, "role" | "session_authorization") {
        Might::Code
    } else {
        Might::Power
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_setting_might_do_is_known() {
        assert!(HARMLESS.is_sorted() && LIBRARIES.is_sorted());
        let libraries = ["pg_stat_statements", "cron"].map(str::to_owned).into();
        for (wanted, settings) in [
            (
                Might::Harmless,
                &[
                    "search_path",
                    "work_mem",
                    "enable_tidscan",
                    "parallel_tuple_cost",
                    "jit_above_cost",
                    "xmlbinary",
                    "app.tenant",
                    "myapp.feature.on",
                    "app.search_path",
                ][..],
            ),
            (
                Might::Power,
                &[
                    "log_statement",
                    "log_min_duration_statement",
                    "session_replication_role",
                    "pgaudit.log",
                    "auto_explain.log_analyze",
                    "pg_stat_statements.track",
                    "cron.timezone",
                    "plv8.execution_timeout",
                    "allow_system_table_mods",
                    "password_encryption",
                ],
            ),
            (
                Might::Code,
                &[
                    "role",
                    "session_authorization",
                    "session_preload_libraries",
                    "local_preload_libraries",
                    "dynamic_library_path",
                    "extension_control_path",
                    "jit_provider",
                    "plperl.on_init",
                    "plperl.on_plperlu_init",
                    "pltcl.start_proc",
                    "plv8.start_proc",
                    "pljava.vmoptions",
                ],
            ),
        ] {
            for setting in settings {
                assert_eq!(might(setting, &libraries), wanted, "{setting}");
            }
        }
    }

    #[test]
    fn what_pg_dumpall_writes_is_understood() {
        let plain = |plain: &[&str]| Attributes {
            privileged: vec![],
            plain: plain.iter().map(|&word| word.to_owned()).collect(),
            until: None,
            password: false,
        };
        assert_eq!(wanted("CREATE ROLE x"), Some(Wanted::Role("x".into())));
        assert_eq!(wanted("create\n role \"A \"\"b\""), Some(Wanted::Role("A \"b".into())));
        let sql = "ALTER ROLE x WITH NOSUPERUSER INHERIT NOCREATEROLE CREATEDB LOGIN NOREPLICATION NOBYPASSRLS \
                   CONNECTION LIMIT -1 VALID UNTIL '2030-01-01'";
        let role = || "x".to_owned();
        assert_eq!(
            wanted(sql),
            Some(Wanted::Attributes {
                role: role(),
                attributes: Attributes {
                    until: Some("2030-01-01".into()),
                    ..plain(&["CREATEDB", "LOGIN", "CONNECTION LIMIT -1", "VALID UNTIL '2030-01-01'"])
                }
            })
        );
        let sql = "ALTER ROLE x WITH SUPERUSER NOINHERIT CREATEROLE REPLICATION BYPASSRLS PASSWORD 'SCRAM'";
        assert_eq!(
            wanted(sql),
            Some(Wanted::Attributes {
                role: role(),
                attributes: Attributes {
                    privileged: vec!["SUPERUSER", "CREATEROLE", "REPLICATION", "BYPASSRLS"],
                    password: true,
                    ..plain(&["NOINHERIT"])
                }
            })
        );
        assert_eq!(
            wanted("ALTER ROLE x IN DATABASE \"d\" SET \"TimeZone\" TO 'UTC'"),
            Some(Wanted::Setting {
                role: role(),
                database: Some("d".into()),
                name: "timezone".into(),
                values: vec!["UTC".into()]
            })
        );
        assert_eq!(
            wanted("ALTER ROLE x SET search_path TO E'a\\\\''', 'b'"),
            Some(Wanted::Setting {
                role: role(),
                database: None,
                name: "search_path".into(),
                values: vec!["a\\'".into(), "b".into()]
            })
        );
        let Some(Wanted::Membership(membership)) =
            wanted("GRANT a TO \"B\" WITH ADMIN OPTION, INHERIT FALSE, SET TRUE GRANTED BY c")
        else {
            panic!("no membership")
        };
        assert_eq!(
            membership.sql(true),
            "GRANT \"a\" TO \"B\" WITH ADMIN OPTION, INHERIT FALSE, SET OPTION GRANTED BY \"c\""
        );
        assert_eq!(membership.sql(false).split(" GRANTED").count(), 1);
        let older = membership.for_major(15).unwrap();
        assert_eq!(older.sql(false), "GRANT \"a\" TO \"B\" WITH ADMIN OPTION");
        assert_eq!(membership.for_major(16).as_ref(), Some(&membership));
        for (more, told) in [
            ("WITH INHERIT TRUE", Some("GRANT \"a\" TO \"b\"")),
            ("WITH ADMIN FALSE, INHERIT FALSE", Some("GRANT \"a\" TO \"b\"")),
            ("WITH ADMIN OPTION, INHERIT FALSE, SET FALSE", None),
        ] {
            let Some(Wanted::Membership(membership)) = wanted(&format!("GRANT a TO b {more}")) else {
                panic!("no membership")
            };
            assert_eq!(
                membership.for_major(15).map(|older| older.sql(true)).as_deref(),
                told,
                "{more}"
            );
        }
        assert!(
            matches!(wanted("COMMENT ON ROLE x IS 'it''s'"), Some(Wanted::Comment { text: Some(text), .. }) if text == "it's")
        );
    }

    #[test]
    fn anything_else_is_not() {
        for sql in [
            "DO $$ BEGIN COPY (SELECT 1) TO PROGRAM 'id'; END $$",
            "CREATE ROLE x SUPERUSER",
            "CREATE ROLE x; DO $$ $$",
            "CREATE ROLE x -- \r; DO $$ $$",
            "CREATE ROLE /* x */ y",
            "CREATE ROLE x IN ROLE postgres",
            "CREATE ROLE U&\"x\"",
            "CREATE ROLE U& \"x\"",
            "CREATE ROLE \"x\"\"",
            "CREATE ROLE x\"y\"",
            "CREATE ROLE é",
            "CREATE ROLE \"\"",
            "CREATE USER x",
            "CREATE TABLESPACE t LOCATION '/t'",
            "ALTER ROLE ALL SET work_mem TO '1MB'",
            "ALTER ROLE x RENAME TO y",
            "ALTER ROLE x SET role = postgres",
            "ALTER ROLE x SET work_mem FROM CURRENT",
            "ALTER ROLE x SET search_path TO 'a' 'b'",
            "ALTER ROLE x SET search_path TO 'a\\'', b'",
            "ALTER ROLE x SET search_path TO E'a\\''",
            "ALTER ROLE x SET a TO 'open",
            "ALTER ROLE x WITH SYSID 1",
            "ALTER ROLE x WITH CONNECTION LIMIT 1e9",
            "ALTER DATABASE x SET work_mem TO '1MB'",
            "ALTER SYSTEM SET work_mem TO '1MB'",
            "GRANT ALL ON SCHEMA a TO b",
            "GRANT a, b TO c",
            "GRANT a TO b WITH ADMIN",
            "GRANT SET ON PARAMETER a TO b",
            "DROP ROLE x",
            "SECURITY LABEL ON ROLE x IS 'y'",
            "\\! id",
            "",
        ] {
            assert_eq!(wanted(sql), None, "{sql}");
        }
    }
}
